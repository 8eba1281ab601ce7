"""What was given on the command line, as argparse would take it."""

import argparse

import pytest

from ebmzoo.cli.configs import options


@pytest.mark.parametrize(
    "words",
    [
        ["--ckpt_path=a", "--ckpt_path", "b"],
        ["--ckpt_path", "a", "--ckpt_path=b", "--other=--ckpt_path", "-c", "c"],
        ["--other", "x", "-c", "a=b", "--ckpt_path=c=d"],
        ["--ckpt_path="],
        [],
    ],
)
def test_values_come_in_the_order_of_the_words(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--ckpt_path", "-c", action="append", default=[])
    parser.add_argument("--other")
    assert options(words, "--ckpt_path", "-c") == parser.parse_args(words).ckpt_path


def test_an_option_without_its_value_is_the_parsers_matter():
    assert options(["--ckpt_path"], "--ckpt_path") == []
