"""Callbacks are spoken of by their names, whatever their place in a config."""

import json

import pytest
import yaml

from ebmzoo.cli.callback_words import OPTION, _known, with_callbacks
from ebmzoo.cli.configs import shipped
from ebmzoo.cli.errors import UserError

CONFIGS = {name: yaml.load(path.read_text(), yaml.CSafeLoader) for name, path in shipped().items()}


def said(config, *words):
    """What becomes of the callbacks of a config."""
    rest = with_callbacks([f"{OPTION}{words[0]}", *words[1:]] if words else [], config)
    return json.loads(rest[-1].removeprefix(f"{OPTION}="))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_callback_of_every_config_is_within_reach(name):
    given = CONFIGS[name]["trainer"]["callbacks"]
    kinds = [one["class_path"] for one in given]
    for place, kind in enumerate(kinds):
        number = f".{kinds[: place + 1].count(kind)}" if kinds.count(kind) > 1 else ""
        changed = said(CONFIGS[name], f".{kind}{number}.some.setting", "[1, two]")
        assert changed[place]["init_args"].pop("some") == {"setting": [1, "two"]}
        assert [one["class_path"] for one in changed] == kinds
        assert [one["init_args"] for one in changed] == [one.get("init_args", {}) for one in given]
        left = said(CONFIGS[name], f".{kind}{number}", "null")
        assert [one["class_path"] for one in left] == [*kinds[:place], *kinds[place + 1 :]]


@pytest.mark.parametrize("name", [name for name in CONFIGS if "inception_path" in shipped()[name].read_text()])
def test_the_words_of_a_configs_own_comment_work(name):
    by_name = {one["class_path"]: one["init_args"] for one in said(CONFIGS[name], ".inception_path", "w.pth")}
    assert by_name["Evaluate"]["inception_path"] == "w.pth"


SOME = {"trainer": {"callbacks": [{"class_path": "EMA"}, "ebmzoo.callbacks.Evaluate", {"class_path": "Pictures"}]}}


def test_words_of_other_things_stay_as_they_are():
    words = ["--config", "x.yaml", "--trainer.max_steps=3", "--trainer.callback", "1", "--model.trainer.callbacks", "2"]
    assert with_callbacks(words, SOME) == words


def test_lists_are_said_and_continued():
    assert [one["class_path"] for one in said(SOME, "", "null", f"{OPTION}+=Guard", f"{OPTION}.rollbacks=3")] == [
        "Guard"
    ]
    words = ["+=EMA", f"{OPTION}.decay=0.5", f"{OPTION}+=Guard", f"{OPTION}.init_args.rollbacks=1"]
    found = said({}, *words)
    assert found == [
        {"class_path": "EMA", "init_args": {"decay": 0.5}},
        {"class_path": "Guard", "init_args": {"rollbacks": 1}},
    ]
    # What is named after an appended one is still found by its name.
    found = said(SOME, "+=Guard", f"{OPTION}.Evaluate.n_val=7", f"{OPTION}.rollbacks=1")
    assert (found[1]["init_args"], found[3]["init_args"]) == ({"n_val": 7}, {"rollbacks": 1})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["n_vall", "0"], "no callback of the config has 'n_vall': did you mean n_val"),
        (["Evaluat.n_val", "0"], "the config has no callback 'Evaluat': did you mean Evaluate"),
        (["seed", "1"], f"2 callbacks have it: say {OPTION}.Evaluate.seed or {OPTION}.Pictures.seed"),
        (["Evaluate", "0"], f"null leaves it out; to set something of it: {OPTION}.Evaluate.KEY VALUE"),
        (["Guard", "null"], "no callback of the config has 'Guard'"),
        (["n_val"], "needs a value"),
        (["EMA.decay", "0.5", f"{OPTION}+=EMA", f"{OPTION}.EMA.decay", "1"], f"say {OPTION}.EMA.1.decay or"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words, line):
    with pytest.raises(UserError) as caught:
        said(SOME, f".{words[0]}", *words[1:])
    assert line in str(caught.value)


@pytest.mark.thorough
def test_a_run_takes_them(ebmzoo, here):
    words = ["--trainer.callbacks.EMA.decay", "0.25", "--trainer.callbacks+=Pictures", "--trainer.callbacks.n=4"]
    assert ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *words, "--trainer.max_epochs", 1).code == 0
    first, second = yaml.safe_load((here / "run" / "config.yaml").read_text())["trainer"]["callbacks"]
    assert (first["init_args"]["decay"], second["init_args"]["n"]) == (0.25, 4)
    last = here / "run" / "checkpoints" / "last.ckpt"
    # A checkpoint's own config is spoken of in the same way.
    words = ["--trainer.callbacks.EMA", "null", "--trainer.callbacks.n_points", "30"]
    assert ebmzoo("fit", "--ckpt_path", last, "--run_dir", "again", *words, "--trainer.max_epochs", 2).code == 0
    (only,) = yaml.safe_load((here / "again" / "config.yaml").read_text())["trainer"]["callbacks"]
    assert (only["class_path"], only["init_args"]["n_points"]) == ("ebmzoo.Pictures", 30)


def test_settings_include_those_that_a_class_passes_on():
    assert {"monitor", "every_n_train_steps"} <= set(_known("MonitoredCheckpoint"))
