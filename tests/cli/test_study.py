"""``ebmzoo study`` of a function in a file, of a target and of a checkpoint; and what is refused, in one line each."""

import numpy as np
import pytest

QUICK = ["--steps", "20", "--warmup", "20", "--ais", "0", "--out", "page.html"]
BANANA = """
def banana(x):
    return 0.5 * x[:, 0].square() + 2 * (x[:, 1] - x[:, 0].square()).square()

four = 4
"""


@pytest.fixture
def banana(here):
    (here / "mine.py").write_text(BANANA)
    return "mine.py:banana"


def test_a_function_in_a_file(ebmzoo, here, banana):
    rng = np.random.default_rng(0)
    np.save("other.npy", rng.normal(size=(50, 2)) * 9)
    words = ["--energy", banana, "--shape", "2", "--chains", "16", "--outside", "other.npy", "--samples", "ends.npy"]
    answer = ebmzoo("study", *words, *QUICK)
    assert answer.code == 0, answer.err
    assert "20 steps of HMC each" in answer.out and "AUROC" in answer.out
    assert "ebmzoo study --energy mine.py:banana" in (here / "page.html").read_text()
    assert np.load("ends.npy").shape == (16, 2)


def test_a_target_knows_its_shape(ebmzoo, here):
    answer = ebmzoo("study", "--energy", "ebmzoo.data:Ring", "--sampler", "ReplicaExchange", *QUICK)
    assert answer.code == 0 and "swap rates" in answer.out, answer.err


@pytest.mark.thorough
def test_a_checkpoint_begins_where_it_begins(ebmzoo, checkpoint, here):
    answer = ebmzoo("study", "--ckpt_path", checkpoint["ecvae"], *QUICK)
    assert answer.code == 0 and "64  20 steps of HMC each" in answer.out, answer.err
    assert "ECVAE: averaged (EMA) weights of version_0" in (here / "page.html").read_text()


def test_bad_words_are_one_line(ebmzoo, here, banana):
    np.save("flat.npy", np.zeros(3))
    np.save("nan.npy", np.full((3, 2), np.nan))
    for words, line in {
        ("--energy", "mine.py:bananna", "--shape", "2"): "mine.py has no bananna: did you mean banana?",
        ("--energy", "mine.py:four", "--shape", "2"): "mine.py:four is no function and no module: int",
        ("--energy", "nothing.py:e", "--shape", "2"): "cannot import it (FileNotFoundError",
        ("--energy", "banana"): "give module:name or file.py:name",
        ("--energy", banana): "where do the chains begin? Give --shape 2",
        ("--energy", banana, "--start", "flat.npy"): "an array of numbers (n, …) is needed",
        ("--energy", banana, "--start", "none.npy"): "--start none.npy: there is no such file",
        ("--energy", banana, "--start", "mine.py"): "--start mine.py is not a .npy file of numbers",
        ("--energy", banana, "--start", "nan.npy"): "nan.npy holds numbers that are not finite",
        ("--energy", banana, "--shape", "2", "--start", "flat.npy"): "not at both",
        ("--energy", banana, "--shape", "-2"): "the numbers of --shape are positive",
        ("--energy", banana, "--shape", "2", "--samples", "e.txt"): "--samples is a .npy file",
        ("--energy", banana, "--shape", "1"): "cannot be taken at x (64, 1): IndexError",
        (): "an energy is given by --energy module:name or by --ckpt_path, one of them",
        ("--energy", banana, "--shape", "2", "--sampler", "MLA"): "did you mean MALA?",
    }.items():
        answer = ebmzoo("study", *words, *QUICK)
        assert answer.code == 2 and line in answer.err and answer.err.count("\n") == 1, answer.err
    answer = ebmzoo("study", "--energy", banana, "--shape", "2", "--out", "page.png")
    assert answer.code == 2 and "ending in .html" in answer.err
