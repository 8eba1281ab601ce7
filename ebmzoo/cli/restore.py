"""``ebmzoo restore``: colour, enlarge or complete images with a model that was trained on undamaged ones."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmzoo.cli.arguments import Parser, check_writable, load_model, need_decoder, read_images, weights_of
from ebmzoo.cli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ebmzoo.methods import Method
    from ebmzoo.tasks import Degradation, Restorer

TASKS = ("colorize", "superres", "inpaint")
SHOWN = 8  # rows of the picture
HOLE = ((230, 150, 60), (110, 60, 10))  # hidden pixels in it, as a chessboard: one colour could be the image's own


def run(verb: str, arguments: Sequence[str]) -> None:
    """Restore images and write them, a picture, and the figures with their protocol."""
    options = parser_of(verb).parse_args(arguments)
    out = Path(options.out)
    _check(options, out)

    import torch

    from ebmzoo.cli.restoration_scores import Scores
    from ebmzoo.images import save_png, strips, to_uint8
    from ebmzoo.mcmc import PerImageNoise

    files = _files(Path(options.input))
    names = _names(files)
    _check_empty(out / "restored", names)
    model = load_model(options)
    restorer = _restorer(options, model).settled(model)
    make = degradation_of(options, tuple(model.image_shape))
    load = _loader(options, files, names, make(range(1)), model)
    usable, unusable = _sorted_out(load, len(files))
    scores = Scores(options, model, restorer)
    shown: dict[str, list[Tensor]] = {}
    for start in range(0, len(usable), options.batch_size):
        rows = usable[start : start + options.batch_size]
        degradation, (y, reference) = make(rows), load(rows)
        y = degradation.degrade(y) if _at_full_size(options) else y
        found = restorer(model, degradation, y, noise=PerImageNoise.of_rows(options.seed, rows, model.device))
        for row, image in zip(rows, to_uint8(found.image), strict=True):
            save_png(image, out / "restored" / f"{names[row]}.png")
        scores.update(degradation, y, found, reference)
        if start < SHOWN:
            columns = {"degraded": degradation.lift(y), "restored": found.image, "reference": reference}
            for name, column in columns.items():
                if column is not None:
                    shown.setdefault(name, []).append(_pixels(column, degradation if name == "degraded" else None))
    picture = strips([torch.cat(column)[:SHOWN] for column in shown.values()], titles=list(shown))
    save_png(picture, out / "strip.png")
    lines = scores.write(out / "results.json", unusable)
    weights = weights_of(model)
    print(f"{out}: {len(usable)} images restored by {options.ckpt_path}, {weights} weights, seed {options.seed}")
    print("\n".join([*(f"skipped {line}" for line in unusable), *lines, f"picture: {out / 'strip.png'}"]))


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The options of this verb."""
    parser = Parser(verb, "Restore degraded images: colour, super-resolution, inpainting.", "images restored")
    add = parser.add_argument
    add("--task", required=True, choices=TASKS, help="what is to be undone")
    add("--input", required=True, help="an image or a folder of images: grey ones, small ones, or ones with holes")
    add("--out", default="restored", help="a folder: restored/*.png, strip.png, results.json (restored)")
    add("--reference", help="the undamaged image or folder, same names: adds PSNR, SSIM, and FID with --extractor")
    add("--degrade", action="store_true", help="the inputs are undamaged: degrade them first, they are the reference")
    add("--scale", type=int, help="superres: how many times as large (4)")
    add(
        "--mask",
        help="inpaint: LEFT,TOP,RIGHT,BOTTOM in px; M20 (a centred square, px of 64) or R20 (scattered blocks, per "
        "cent of the pixels), as Dual-MCMC's figure 5; or an image, white where a pixel is to be filled in",
    )
    add("--steps", type=int, help="steps of the chain in z (50; Dual-MCMC 100)")
    add("--step_size", type=float, help="of the chain in z (half of what is stable)")
    add("--temperature", type=float, help="of the chain in z; 0 seeks the most probable code (1; Dual-MCMC 0)")
    add("--sigma", type=float, help="how exactly the chain in z must match the input, in data units")
    add("--no_energy", action="store_true", help="chain in z: leave the energy out of the prior")
    add("--start", choices=("inferred", "prior"), help="where chains begin (inferred, where there is an encoder)")
    add("--x_steps", type=int, help="steps of a chain in x afterwards (the method's test chain; Dual-MCMC 4)")
    add("--extractor", help="feature network of the FID: digits, cifar10, inception, or a file of ebmzoo extractor")
    add("--inception_path", help="torch-fidelity's Inception weights, where they are not in torch's hub folder")
    return parser


# -- what was asked for ------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace, out: Path) -> None:
    for name, task in (("scale", "superres"), ("mask", "inpaint")):
        if getattr(options, name) is not None and options.task != task:
            raise UserError(f"--{name} belongs to --task {task}, not to {options.task}")
    if options.task == "inpaint" and options.mask is None:
        raise UserError("--task inpaint needs --mask: LEFT,TOP,RIGHT,BOTTOM, M20, R20, or an image")
    if options.degrade and options.reference:
        raise UserError("--degrade makes the inputs the reference: leave --reference out")
    if options.batch_size <= 0:
        raise UserError(f"--batch_size must be positive, not {options.batch_size}")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder")
    check_writable(out)


def _at_full_size(options: argparse.Namespace) -> bool:
    """Whether the inputs have the model's size, and are degraded here: a grey image's colours, a hole's content."""
    return bool(options.degrade) or options.task != "superres"


def _restorer(options: argparse.Namespace, model: Method) -> Restorer:
    """The procedure of the method's paper, with what the command line says otherwise."""
    from ebmzoo.tasks import Restorer, chain_in_x

    need_decoder(model, options.task)
    restorer = Restorer.of(model)
    names = ("steps", "step_size", "temperature", "sigma", "start")
    changed = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.no_energy:
        changed["energy_temperature"] = None
    if options.x_steps is not None:
        sampler = chain_in_x(model)
        if options.x_steps and sampler is None:
            raise UserError(f"--x_steps needs a chain in x, which this {type(model).__name__} does not have")
        changed |= {"x_sampler": sampler, "x_steps": options.x_steps} if options.x_steps else {"x_sampler": None}
    return replace(restorer, **changed)


def degradation_of(options: argparse.Namespace, image_shape: tuple[int, ...]) -> Any:
    """What makes the operator of a batch: of its rows, since scattered masks are drawn for each image."""
    from ebmzoo.mcmc import PerImageNoise
    from ebmzoo.tasks import Colorize, Inpaint, SuperResolve, scattered_mask

    task, mask = options.task, options.mask
    share = re.fullmatch(r"R(\d+)", mask) if task == "inpaint" else None
    if share:

        def drawn(rows: Sequence[int]) -> Degradation:
            # Not the seed's own numbers: those are the codes'.
            noise = PerImageNoise.of_rows(options.seed + 1_000_003, rows)
            return Inpaint(scattered_mask(image_shape, int(share[1]) / 100, noise, len(rows)))

        make = drawn
    else:
        if task == "inpaint":
            one: Degradation = Inpaint(_mask(mask, image_shape))
        else:
            one = Colorize() if task == "colorize" else SuperResolve(4 if options.scale is None else options.scale)

        def fixed(rows: Sequence[int]) -> Degradation:
            return one

        make = fixed
    make(range(1)).measured_shape(image_shape)
    return make


def _mask(words: str, image_shape: tuple[int, ...]) -> Tensor:
    from ebmzoo.data.files import read_pixels
    from ebmzoo.tasks import box_mask, centre_mask

    if side := re.fullmatch(r"M(\d+)", words):
        return centre_mask(image_shape, int(side[1]))
    if re.fullmatch(r"\d+(,\d+){3}", words):
        left, top, right, bottom = map(int, words.split(","))
        return box_mask(image_shape, (left, top, right, bottom))
    if not Path(words).is_file():
        raise UserError(f"--mask {words}: neither LEFT,TOP,RIGHT,BOTTOM nor M20 nor R20, and there is no such file")
    hidden = read_pixels(words, words, channels=1)[None] >= 128
    if not hidden.any() or hidden.all():
        raise UserError(f"the mask {words} hides {'every' if hidden.any() else 'no'} pixel: white is what is filled in")
    return hidden


# -- files -------------------------------------------------------------------------------------------------------------


def _files(place: Path) -> list[tuple[Path, str]]:
    """The images at a place, each with its path relative to it."""
    from ebmzoo.data.files import ENDINGS, image_files

    if place.is_dir():
        found = [(place / name, name) for name in image_files(place)]
        if not found:
            raise UserError(f"no images in {place}: no file in it ends in {', '.join(ENDINGS)}")
        return found
    if not place.exists():
        raise UserError(f"there is no image or folder {place} (looked from {Path.cwd()})")
    return [(place, place.name)]


def _names(files: Sequence[tuple[Path, str]]) -> list[str]:
    """Names of the results, without their ending; no two may be one."""
    names = [str(Path(name).with_suffix("")) for _, name in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two inputs would both be written to {twice[0]}.png: rename one")
    return names


def _check_empty(folder: Path, names: Sequence[str]) -> None:
    others = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.png")} - set(names)
    if others:
        raise UserError(f"{folder} holds {len(others)} other PNGs ({min(others)}.png, ...): give an empty folder")


def _loader(
    options: argparse.Namespace,
    files: Sequence[tuple[Path, str]],
    names: Sequence[str],
    degradation: Degradation,
    model: Method,
) -> Callable[[Sequence[int]], tuple[Tensor, Tensor | None]]:
    """What reads inputs and, where there are any, references of some rows, floats in [-1, 1]."""
    full = tuple(model.image_shape)
    shape = full if _at_full_size(options) else degradation.measured_shape(full)
    inputs = [path for path, _ in files]
    references = _references(options, names) if options.reference else None

    def load(rows: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        y = read_images([inputs[row] for row in rows], shape).to(model.like)
        if references is None:
            return y, y if options.degrade else None
        return y, read_images([references[row] for row in rows], full).to(model.like)

    return load


def _sorted_out(load: Callable[[Sequence[int]], Any], count: int) -> tuple[list[int], list[str]]:
    """The rows that can be read, which all are once now, and a line for each of the others; not all may be others."""
    usable: list[int] = []
    unusable: list[str] = []
    for row in range(count):
        try:
            load([row])
            usable.append(row)
        except ValueError as error:
            unusable.append(str(error))
    if not usable:
        raise UserError(unusable[0])
    return usable, unusable


def _references(options: argparse.Namespace, names: Sequence[str]) -> list[Path]:
    """The reference of each input: the one that there is, or that of the same name."""
    found = _files(Path(options.reference))
    if len(names) == len(found) == 1:
        return [found[0][0]]
    by_name = dict(zip(_names(found), (path for path, _ in found), strict=True))
    if missing := [name for name in names if name not in by_name]:
        raise UserError(f"{options.reference} has no reference for {len(missing)} inputs, such as {missing[0]}")
    return [by_name[name] for name in names]


def _pixels(images: Tensor, degradation: Degradation | None) -> Tensor:
    """Images as bytes of three channels, with a chessboard where the mask of an inpainting hides them."""
    import torch

    from ebmzoo.images import to_uint8
    from ebmzoo.tasks import Inpaint

    pixels = to_uint8(images).cpu().expand(-1, 3, -1, -1)
    if isinstance(degradation, Inpaint):
        rows, columns = (torch.arange(side) for side in pixels.shape[2:])
        board = pixels.new_tensor(HOLE)[(rows[:, None] + columns) % 2].permute(2, 0, 1)
        return pixels.where(~degradation.hidden.cpu(), board)
    return pixels
