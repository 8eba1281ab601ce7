"""What verbs without a Trainer share: options of one line, places to write to, methods that can do something."""

import os
from pathlib import Path

import pytest

from ebmzoo.cli.arguments import OneLineParser, Parser, check_writable, methods_with
from ebmzoo.cli.errors import UserError


@pytest.fixture
def parser():
    found = OneLineParser("verb", "What it does.")
    found.add_argument("--task", required=True, choices=("colour", "enlarge"))
    found.add_argument("--scale", type=int)
    return found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--task", "colour", "--scal=3"], "no option --scal=3: did you mean scale?"),
        (["--task", "color"], "no 'color' here: did you mean colour?"),
        (["--scale", "3"], "the following arguments are required: --task (one of colour, enlarge)"),
        (["--task", "colour", "--scale", "x"], "argument --scale: invalid int value: 'x'"),
    ],
)
def test_what_a_parser_refuses_is_one_line_with_what_was_meant(parser, words, line):
    with pytest.raises(UserError) as caught:
        parser.parse_args(words)
    assert str(caught.value) == line


def test_a_verb_that_makes_a_model_can_be_told_how():
    with pytest.raises(UserError, match="required: --ckpt_path"):
        Parser("verb", "What it does.").parse_args([])
    options = Parser("verb", "What it does.", "images").parse_args(["--ckpt_path", "a", "--trust", "b", "--trust", "c"])
    assert (options.trust, options.seed, options.batch_size, options.device) == (["b", "c"], 0, 256, None)
    assert not hasattr(Parser("verb", "What it does.").parse_args(["--ckpt_path", "a"]), "seed")


def test_a_place_is_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new" / "deep" / "file")
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/file/inside: {tmp_path}/file is a file"):
        check_writable(tmp_path / "file" / "inside")
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} is not writable"):
        check_writable(tmp_path / "new")


def test_methods_by_what_they_have_or_are_given():
    assert methods_with("encode", "ebm") == "" and "Method" not in methods_with("sample").split(", ")
    assert methods_with("decode", "draw_latents", "log_prior").split(", ") == [
        *("BiDVL", "CooperativeVAE", "DualMCMC", "ECVAE", "VAE", "VAEBM", "WGAN")
    ]
    assert methods_with("latent_sampler") == "DualMCMC"  # an argument
