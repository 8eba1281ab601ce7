"""The soak in short: the same code as ``make soak``, a few of each."""

import pytest

from benchmarks import soak


@pytest.mark.thorough
def test_killed_runs_resume(capsys):
    assert soak.kill(1, seed=1) == 0
    assert "1 resumed from a whole checkpoint" in capsys.readouterr().out


@pytest.mark.thorough
def test_odd_configs_run_or_end_in_one_line(capsys):
    assert soak.fuzz(3, seed=2) == 0
    assert "0 failed" in capsys.readouterr().out


def test_mutations_are_many_and_leave_the_original_alone():
    import random

    rng, base = random.Random(0), {"model": {"class_path": "A", "init_args": {"width": 3, "parts": [{"lr": 0.1}]}}}
    seen = {str(soak.mutated(base, rng, ["A", "B"])[0]) for _ in range(200)}
    assert base == {"model": {"class_path": "A", "init_args": {"width": 3, "parts": [{"lr": 0.1}]}}}
    assert len(seen) > 60 and sum(text != str(base) for text in seen) == len(seen) - (str(base) in seen)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_faults_are_named_in_a_real_run():
    assert soak.faults(1200, seed=0) == 0  # as make soak does
