"""Checkpoints that are whole: after kill -9 at any moment, and told from those with flipped bytes."""

from __future__ import annotations

import random
import signal
import tempfile
from pathlib import Path

import torch

from ebmzoo.checkpoints import newest_good, read
from ebmzoo.cli.main import main as ebmzoo

from .forks import CONFIGS, SHORT, in_fork

EVERY = 4  # iterations between checkpoints
OFTEN = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.every_n_train_steps={EVERY}"]
OFTEN += ["--trainer.callbacks.save_top_k=0", "--trainer.callbacks.save_last=true"]


def kill(n: int, seed: int) -> int:
    """kill -9 at random moments: each time the next start finds a whole checkpoint, not older than one interval."""
    rng = random.Random(seed)
    failed = steps_before = 0
    with tempfile.TemporaryDirectory() as folder:
        # Every batch end leaves a mark, so that it is known how far a killed run had come.
        config, reached = CONFIGS / "ecvae_digits.yaml", Path(folder) / "reached"
        words = ["fit", f"--config={config}", f"--run_dir={folder}/run", "--resume=auto", *SHORT, *OFTEN]
        words += ["--trainer.max_steps=1000000", "--trainer.callbacks+=tests.faults.Mark"]
        words += [f"--trainer.callbacks.path={reached}"]
        while_training = 0
        for number in range(n):
            reached.write_text("0")
            # Most while it trains and writes checkpoints, some before.
            begun = (lambda: True) if number % 10 == 9 else lambda: reached.read_text() not in ("", "0")
            ended = in_fork(lambda: ebmzoo(words), seconds=300, kill_when=begun, kill_after=3 * rng.random())
            last = int(reached.read_text() or 0)
            newest, passed_over = newest_good(Path(folder) / "run" / "checkpoints")
            steps = read(newest)["global_step"] if newest else 0
            while_training += last > 0
            good = ended.code == -signal.SIGKILL and steps >= steps_before and last - steps <= EVERY and not passed_over
            if not good:
                failed += 1
                print(f"FAILED {number}: exit {ended.code}, checkpoint of {steps}, reached {last}, {passed_over}")
                print(ended.text[-1500:])
            steps_before = steps
        leftover = len(list((Path(folder) / "run" / "checkpoints").glob(".*.part")))
        whole = ended_whole(words, steps_before + 3)
    print(
        f"kill: {n} kills (seed {seed}), {while_training} while it trained, up to iteration {steps_before}: "
        f"{n - failed} resumed from a whole checkpoint, none older than {EVERY} iterations; {leftover} half-written "
        f"files left aside; the last resume {'ended well' if whole else 'FAILED'}"
    )
    return failed + (not whole)


def ended_whole(words: list[str], steps: int) -> bool:
    """Whether the run can be brought to an end."""
    return in_fork(lambda: ebmzoo([*words, f"--trainer.max_steps={steps}"]), seconds=120).code == 0


def flips(n: int, seed: int) -> int:
    """Random bytes of a checkpoint changed: it loads identical tensors, or ends in one line that names the file."""
    rng = random.Random(seed)
    identical = refused = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        config = CONFIGS / "ecvae_digits.yaml"
        fit = ["fit", f"--config={config}", f"--run_dir={folder}/run", "--trainer.max_steps=2", *SHORT]
        assert in_fork(lambda: ebmzoo(fit), seconds=120).code == 0
        path = Path(folder) / "run" / "checkpoints" / "last.ckpt"
        whole, good = path.read_bytes(), read(path)
        for number in range(n):
            # Half of them where the structure is: the directory at the end, and the pickle at the beginning.
            place = rng.randrange(len(whole)) if number % 2 else rng.choice([*range(40000), *range(-12000, 0)])
            data = bytearray(whole)
            data[place] ^= rng.randrange(1, 256)
            bad = path.with_name("bad.ckpt")
            bad.write_bytes(data)
            try:
                content = read(bad)
            except ValueError as error:
                refused += 1
                failed += str(bad) not in str(error) or len(str(error).splitlines()) != 1
                continue
            same = all(torch.equal(content["state_dict"][name], value) for name, value in good["state_dict"].items())
            identical += same
            failed += not same
    print(f"flips: {n} bytes (seed {seed}): {refused} refused in one line, {identical} identical, {failed} failed")
    return failed
