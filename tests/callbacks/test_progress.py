import io
import re
import sys

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ebmzoo.callbacks import Progress
from ebmzoo.callbacks.progress import line

from .fakes import Images, model, trainer


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    def make(kind):
        found = kind()
        monkeypatch.setattr(sys, "stdout", found)
        return found

    return make


def fit(path, **options):
    tiny = model()
    run = trainer(path, [Progress()], enable_progress_bar=True, **options)
    run.fit(tiny, Images(), ckpt_path=options.get("ckpt_path"))
    return run, tiny


def test_without_a_terminal_there_are_ten_lines_over_all_epochs(tmp_path, screen):
    out = screen(io.StringIO)
    fit(tmp_path, max_epochs=4)
    lines = out.getvalue().splitlines()
    assert [text.split(",")[0] for text in lines] == [
        f"step {k}/20 ({5 * k}%)" for k in (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
    ]
    assert all(re.search(r", \d+:\d\d left, .*loss_vae=\d", text) for text in lines[:-1])
    assert "left" not in lines[-1]


def test_in_a_terminal_one_bar_runs_to_the_end(tmp_path, screen):
    out = screen(Terminal)
    fit(tmp_path, max_epochs=4)
    states = [text.strip() for text in out.getvalue().split("\r") if text.strip()]
    totals = {found for text in states for found in re.findall(r"\d+/(\d+),", text)}
    assert totals == {"20"}
    assert re.match(r"100%\|[#█]+\| 20/20, 00:00 left, .*it/s, loss_vae=\d", states[-1])
    assert out.getvalue().endswith("\n") and out.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("options", "total"), [({"max_steps": 7, "max_epochs": -1}, 7), ({"max_steps": 7}, 7), ({"max_steps": 70}, 10)]
)
def test_the_end_is_steps_or_epochs_whichever_comes_first(tmp_path, screen, options, total):
    out = screen(io.StringIO)
    fit(tmp_path, **options)
    assert out.getvalue().splitlines()[-1].startswith(f"step {total}/{total} (100%)")


def test_a_resumed_run_goes_on_where_it_was(tmp_path, screen):
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model(), Images())
    run.save_checkpoint(tmp_path / "x.ckpt")
    out = screen(io.StringIO)
    run = trainer(tmp_path, [Progress()], max_epochs=4, enable_progress_bar=True)
    run.fit(model(), Images(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert out.getvalue().startswith("step 12/20 (60%)")


def test_other_verbs_have_their_bars_in_a_terminal_only(tmp_path, screen):
    run = trainer(tmp_path, [Progress()], enable_progress_bar=True)
    out = screen(io.StringIO)
    run.validate(model(), Images(), verbose=False)
    run.test(model(), Images(), verbose=False)
    assert out.getvalue() == ""
    out = screen(Terminal)
    run.validate(model(), Images(), verbose=False)
    run.test(model(), Images(), verbose=False)
    assert "Validation" in out.getvalue() and "Testing" in out.getvalue()


def test_it_can_be_turned_off(tmp_path, screen):
    for kind in (io.StringIO, Terminal):
        out = screen(kind)
        bar = Progress()
        bar.disable()
        trainer(tmp_path, [bar], enable_progress_bar=True, max_epochs=1).fit(model(), Images())
        assert out.getvalue() == ""


def test_training_is_the_same_with_and_without(tmp_path, screen):
    screen(Terminal)
    raw = []
    for callbacks, shown in (([], False), ([Progress()], True)):
        tiny = model()
        torch.manual_seed(1)
        trainer(tmp_path, callbacks, enable_progress_bar=shown, max_epochs=1).fit(tiny, Images())
        raw.append(tiny.decoder[0].weight)
    assert torch.equal(*raw)


def test_a_line_by_hand():
    # A resumed run: 300 of its 750 steps in 60 s leave 250, at 5 a second 50 s.
    assert line(750, 1000, 60.0, 300, {}) == "step 750/1000 (75%), 0:50 left, 5 steps/s"
    assert line(2, None, 10.0, 2, {"a": "1.5"}) == "step 2, 5 s/step, a=1.5"
    assert line(1000, 1000, 3600.0, 1000, {}) == "step 1000/1000 (100%), 3.6 s/step"


class Figure(L.Callback):
    """Measures what a list says at each validation."""

    def __init__(self, values):
        self.values = iter(values)

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/figure", next(self.values))


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_each_validation_leaves_a_line_with_the_best(tmp_path, screen, kind):
    out = screen(kind)
    best = ModelCheckpoint(tmp_path, monitor="val/figure")
    callbacks = [Progress(), Figure([5.0, 3.0, 4.0]), best]
    run = trainer(tmp_path, callbacks, enable_progress_bar=True, enable_checkpointing=True, max_epochs=3)
    run.fit(model(), Images())
    lines = [text.strip() for text in re.split(r"[\r\n]", out.getvalue())]
    found = [text for text in lines if "val/figure" in text]
    assert found == [
        "step 5  val/figure 5 (best 5)",
        "step 10  val/figure 3 (best 3)",
        "step 15  val/figure 4 (best 3)",
    ]
