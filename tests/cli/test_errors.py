"""What a line says of an error, and which errors are bad input."""

import argparse

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessRaisedException

from ebmzoo.cli.errors import UserError, cause_of, instantiating, line_of, nearest
from ebmzoo.data.base import DataModule


def test_nearest_says_nothing_where_nothing_helps():
    assert nearest("x", (f"name{number}" for number in range(100))) == ""


def test_constructors_objections_are_bad_input():
    for error in (ValueError("no such size"), TypeError("no such size"), RuntimeError("no such size")):
        with pytest.raises(UserError, match="^no such size"), instantiating():
            raise error
    with pytest.raises(AttributeError), instantiating():
        raise AttributeError("ours")


def test_parser_errors_are_bad_input():
    assert line_of(argparse.ArgumentError(None, "no such\nsize")) == "no such size"


def test_what_a_parser_wrapped_is_the_first_error_of_another():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=DataModule | None)
    config = parser.parse_object({"data": {"class_path": "ebmzoo.Digits", "init_args": {"size": 9}}})
    with pytest.raises(ValueError, match="Does not validate") as caught:
        parser.instantiate_classes(config)
    assert str(cause_of(caught.value)) == "digits come at 8, 16 or 32 px, not 9"


def raised(error):
    """The error as its raise statement leaves it."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_raise_statement_tells_bad_input_from_what_an_operation_ran_into():
    assert line_of(raised(ValueError("no such\nsize"))) == "no such size"
    assert line_of(raised(RuntimeError("ours"))) is None
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("x")
    assert line_of(caught.value) is None


def test_what_a_library_raises_of_any_type_is_bad_input():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    with pytest.raises(RuntimeError) as caught:
        torch.optim.SparseAdam([weight]).step()
    assert line_of(caught.value) == "SparseAdam does not support dense gradients, please consider Adam instead"
    with pytest.raises(RuntimeError) as caught, instantiating():
        torch.optim.SparseAdam([weight]).step()
    assert line_of(caught.value).startswith("SparseAdam does not")
    with pytest.raises(RuntimeError) as caught:
        torch.nn.functional.linear(torch.ones(1, 2), torch.ones(1, 3))
    assert line_of(caught.value) is None


ADVICE = {
    "No supported gpu backend found!": "No supported gpu backend found; take --trainer.accelerator auto",
    "`val_check_interval` (9) must be less. If you want to disable validation set `limit_val_batches` to 0.0": (
        "`val_check_interval` (9) must be less; --trainer.limit_val_batches 0 leaves validation out"
    ),
}


@pytest.mark.parametrize(("words", "line"), ADVICE.items())
def test_advice_of_ours_stands_in_for_lightnings(words, line):
    assert line_of(MisconfigurationException(words)) == line


def test_an_operation_without_a_deterministic_version_is_said_in_one_line():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError) as caught:
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    finally:
        torch.use_deterministic_algorithms(before)
    line = line_of(caught.value)
    assert line.startswith("put_ does not have a deterministic implementation")
    assert line.endswith("; --trainer.deterministic warn goes on")


CHILD = """

-- Process 0 terminated with the following error:
Traceback (most recent call last):
  File "a.py", line 3, in f
    {statement}
{kind}: {words}
"""


@pytest.mark.parametrize(
    ("statement", "kind", "line"),
    [
        ("raise ValueError(", "ValueError", "no such size"),
        ('raise UserError(f"{x}")\n    ^^^^^^', "ebmzoo.cli.errors.UserError", "no such size"),
        ("raise RuntimeError(", "RuntimeError", None),
        ('int("x")', "ValueError", None),
    ],
)
def test_what_a_forked_process_raised(statement, kind, line):
    text = CHILD.format(statement=statement, kind=kind, words="no such size")
    assert line_of(ProcessRaisedException(text, 0, 123)) == line
