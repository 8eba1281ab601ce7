"""Entry point of the command line: picks the verb, and turns what a user can get wrong into one line."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import ebmzoo

# Each verb's words and the module whose run(verb, arguments) does it, imported only when asked for.
VERBS = {
    "fit": ("train a method from a config, or go on from a checkpoint", "ebmzoo.cli.lightning_cli"),
    "validate": ("the validation figures of a checkpoint", "ebmzoo.cli.lightning_cli"),
    "test": ("the whole evaluation of a checkpoint: results.json and pictures", "ebmzoo.cli.lightning_cli"),
    "predict": ("score, energy and reconstruction of every example: predictions.npz", "ebmzoo.cli.lightning_cli"),
    "sample": ("draw from a checkpoint: images, their chains, or what lies between them", "ebmzoo.cli.sample"),
    "restore": ("colour, enlarge or complete images with a checkpoint", "ebmzoo.cli.restore"),
    "explore": ("a page with a model's energy of points, and chains that run on it", "ebmzoo.cli.explore"),
    "study": ("chains on any energy: whether they mix, its log Z, how it looks: a page", "ebmzoo.cli.study"),
    "export": ("the weights of a checkpoint as one safetensors file", "ebmzoo.cli.export"),
    "list": ("what there is: configs, methods, networks, samplers, data; a config to edit", "ebmzoo.cli.listing"),
    "extractor": ("train figures' feature network on labelled images: a file for Evaluate", "ebmzoo.cli.extractor"),
    "doctor": ("what a config needs: memory, evaluations, data, weights, devices", "ebmzoo.cli.doctor"),
    "benchmark": ("train and test all methods of a suite under one budget", "ebmzoo.cli.benchmark"),
    "sweep": ("train and test a config with every combination of some settings", "ebmzoo.cli.sweep"),
    "compare": ("finished runs side by side: tables, and one HTML page", "ebmzoo.cli.compare"),
    "speed": ("time chains here against other ways to write them: speed.json", "ebmzoo.cli.speed"),
}

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 after bad input, 130 after Ctrl-C, 1 after a failure of ours.

    Bad input is answered by one line on the error stream; the environment variable EBMZOO_TRACEBACK=1 adds
    where it came from.

    Args:
        arguments: the words after ``ebmzoo``; those of the process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else BAD_INPUT
    verb, *rest = arguments
    if verb == "--version":
        print(f"ebmzoo {ebmzoo.__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
        return _refuse(f"no verb {verb!r}: {meant}")
    # The error room costs nothing to import; the verbs cost seconds, and their imports can fail by bad input
    # as well.
    from ebmzoo.cli.errors import Stopped, line_of

    try:
        import_module(VERBS[verb][1]).run(verb, rest)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else FAILED
    except Stopped as end:
        print(f"ebmzoo: stopped: {end}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ebmzoo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        if os.environ.get("EBMZOO_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
        return _refuse(line)
    return 0


def _refuse(line: str) -> int:
    print(f"ebmzoo: error: {line}", file=sys.stderr)
    return BAD_INPUT


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {words}" for name, (words, _) in VERBS.items())
    return (
        "usage: ebmzoo VERB [options]\n\n"
        "Train, evaluate, compare and use energy-based generative models.\n\n"
        f"{verbs}\n\n"
        "ebmzoo VERB --help lists the options of a verb, ebmzoo --version the version.\n"
        "Try: ebmzoo fit --config ecvae_digits"
    )


if __name__ == "__main__":
    sys.exit(main())
