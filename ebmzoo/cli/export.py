"""``ebmzoo export``: a checkpoint's weights, and what makes the model of them again, as one safetensors file."""

from __future__ import annotations

from collections.abc import Sequence

from ebmzoo.cli.given import import_trusted
from ebmzoo.cli.sample import Parser


def run(verb: str, arguments: Sequence[str]) -> None:
    """Read the checkpoint and write the file."""
    parser = Parser(
        prog=f"ebmzoo {verb}", description="Write a checkpoint's weights as safetensors.", allow_abbrev=False
    )
    parser.add_argument("--ckpt_path", required=True, help="checkpoint of a training run")
    parser.add_argument("--out", required=True, help="the file, ending in .safetensors")
    parser.add_argument("--no_ema", action="store_true", help="raw weights, not averaged ones")
    parser.add_argument("--trust", action="append", default=[], help="a module whose classes the checkpoint may name")
    options = parser.parse_args(arguments)
    for module in options.trust:
        import_trusted(module)

    from ebmzoo.checkpoints import export, read

    averaged = export(read(options.ckpt_path), options.out, options.ckpt_path, ema=not options.no_ema)
    weights = "averaged (EMA)" if averaged else "raw"
    print(f"{options.out}: {weights} weights of {options.ckpt_path}; in Python: ebmzoo.load({options.out!r})")
