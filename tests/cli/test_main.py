"""Picking the verb, the fast help, and which exceptions become one line."""

import subprocess
import sys
import types

import pytest

import ebmzoo as package
from ebmzoo.cli import main as module

LIGHT = """
import sys, time
started = time.perf_counter()
from ebmzoo.cli.main import main
assert main(["--help"]) == 0
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"torch", "lightning", "jsonargparse", "matplotlib", "wandb"} & loaded
assert not heavy, heavy
print("seconds", time.perf_counter() - started)
"""


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, timeout=60)
    for verb in ("fit", "validate", "test", "predict", "sample"):
        assert f"\n  {verb} " in done.stdout
    assert float(done.stdout.split()[-1]) < 1.5


def test_the_package_alone_imports_nothing_heavy():
    code = "import sys, ebmzoo; print(ebmzoo.__version__, 'torch' in sys.modules, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [package.__version__, "False", "False"]


def test_module_run_returns_its_exit_code():
    words = [sys.executable, "-m", "ebmzoo.cli.main", "sampel"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "ebmzoo: error: no verb 'sampel': did you mean sample?\n"


def test_no_verb_is_bad_input(ebmzoo):
    code, out, err = ebmzoo()
    assert (code, out) == (2, "")
    assert "usage: ebmzoo VERB" in err


def test_version(ebmzoo):
    assert ebmzoo("--version") == (0, f"ebmzoo {package.__version__}\n", "")


def test_every_verb_has_help(ebmzoo):
    for verb in module.VERBS:
        code, out, _ = ebmzoo(verb, "--help")
        assert code == 0
        others = ("list", "extractor", "doctor", "benchmark", "sweep", "compare", "speed")
        assert ("--ckpt_path" in out) == (verb not in others)


@pytest.fixture
def failing(monkeypatch):
    """Make a verb whose run raises what it is told to."""

    def use(error_of):
        room = types.ModuleType("failing")
        room.run = lambda verb, words: error_of()
        monkeypatch.setitem(sys.modules, "failing", room)
        monkeypatch.setitem(module.VERBS, "fail", ("fails", "failing"))

    return use


def test_an_intended_value_error_is_one_line(ebmzoo, failing):
    def refuse():
        raise ValueError("the size must be\n   8, 16 or 32")

    failing(refuse)
    assert ebmzoo("fail") == (2, "", "ebmzoo: error: the size must be 8, 16 or 32\n")


def test_the_traceback_can_be_asked_for(ebmzoo, failing, monkeypatch):
    def refuse():
        raise ValueError("the size must be 8")

    failing(refuse)
    monkeypatch.setenv("EBMZOO_TRACEBACK", "1")
    code, _, err = ebmzoo("fail")
    assert code == 2
    assert "in refuse" in err
    assert err.endswith("ebmzoo: error: the size must be 8\n")


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (lambda: int("x"), ValueError),  # a ValueError that nobody raised on purpose
        (lambda: {}["x"], KeyError),
        (lambda: None.shape, AttributeError),
    ],
)
def test_programming_errors_keep_their_traceback(ebmzoo, failing, program, kind):
    failing(program)
    with pytest.raises(kind):
        ebmzoo("fail")


def test_a_refused_file_is_named(ebmzoo, failing, tmp_path):
    failing(lambda: (tmp_path / "no" / "file").read_text())
    code, _, err = ebmzoo("fail")
    assert code == 2
    assert err == f"ebmzoo: error: No such file or directory: {tmp_path / 'no' / 'file'}\n"
