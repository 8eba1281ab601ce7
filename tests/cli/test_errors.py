"""A parser's trees of words, condensed to the line that matters."""

import argparse

import pytest

from ebmzoo.cli.errors import UserError, condense, instantiating, line_of, nearest

UNION = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'ebmzoo.methods.base.Method'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'ebmzoo.VAE':
        {inner}
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {{'class_path': 'VAE'}}"""

CASES = [
    ("Option 'latentdim' is not accepted", "VAE has no setting 'latentdim': did you mean latent_dim?"),
    ("the following arguments are required: encoder", "VAE needs encoder"),
    (
        "'NoneType' object has no attribute 'keys'",
        "init_args is empty: give settings under it, or remove the line",
    ),
    ("steps and proposals are counts, not -3 and 0", "steps and proposals are counts, not -3 and 0"),
]

TREES = [
    (
        UNION.format(inner="Parser key \"latent_dim\":\n          Expected a <class 'int'>. Got value: x"),
        "model.latent_dim: expected int, not 'x'",
    ),
    (
        UNION.format(
            inner='Parser key "sampler":\n\n   - Expected a path but HCM either not accessible or invalid\n'
            "   - Expected a dot import path string: HCM"
        ),
        "model.sampler: no class 'HCM' here: did you mean HMC?",
    ),
    ("Parser key \"config\": Path is not a file: 'x'", "config: Path is not a file: 'x'"),
    ("something that nobody foresaw\nin two lines", "something that nobody foresaw"),
    (
        "Parser key \"trainer.devices\":\n  Errors:\n    - Expected a <class 'int'>\n"
        "    - Expected a <class 'str'>\n    - Expected a <class 'NoneType'>\n"
        "  Given value type: <class 'dict'>\n  Given value: {}",
        "trainer.devices: expected int or str, not '{}'",
    ),
]


@pytest.mark.parametrize(("leaf", "line"), CASES)
def test_the_leaf_of_a_union(leaf, line):
    assert condense(UNION.format(inner=leaf)) == f"model: {line}"


def test_unknown_arguments_of_the_trainer():
    found = condense("unrecognized arguments: --trainer.max_epoch 3")
    assert found.startswith("trainer has no setting 'max_epoch': did you mean max_epochs")


@pytest.mark.parametrize(("tree", "line"), TREES)
def test_condense(tree, line):
    assert condense(tree) == line


def test_nearest_says_nothing_where_nothing_helps():
    assert nearest("x", (f"name{number}" for number in range(100))) == ""


def test_constructors_objections_are_bad_input():
    for error in (ValueError("no such size"), TypeError("no such size"), RuntimeError("no such size")):
        with pytest.raises(UserError, match="^no such size"), instantiating():
            raise error
    with pytest.raises(AttributeError), instantiating():
        raise AttributeError("ours")


def test_parser_errors_are_bad_input():
    assert line_of(argparse.ArgumentError(None, "unrecognized arguments: extra")) == "'extra' belongs to no option"
