"""``ebmzoo export``: a checkpoint's weights, and what makes the model of them again, as one safetensors file."""

from __future__ import annotations

from collections.abc import Sequence

from ebmzoo.cli.arguments import Parser


def run(verb: str, arguments: Sequence[str]) -> None:
    """Read the checkpoint and write the file."""
    parser = Parser(verb, "Write a checkpoint's weights as safetensors.")
    parser.add_argument("--out", required=True, help="the file, ending in .safetensors")
    options = parser.parse_args(arguments)

    from ebmzoo.checkpoints import export

    averaged = export(options.ckpt_path, options.out, ema=not options.no_ema)
    weights = "averaged (EMA)" if averaged else "raw"
    print(f"{options.out}: {weights} weights of {options.ckpt_path}; in Python: ebmzoo.load({options.out!r})")
