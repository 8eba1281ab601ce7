"""Two processes: equal to one with the joined batch, each with its own noise, resumed bit for bit, re-split."""

import random
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD
from torch.utils.data import DataLoader

from ebmzoo.callbacks import EMA
from ebmzoo.data import Digits
from ebmzoo.factories import spec
from ebmzoo.mcmc import GeneratorNoise, JointNoise, ReplayBuffer
from ebmzoo.methods.capabilities import HasEnergy
from ebmzoo.metrics import StreamingFID

from .methods.cases import METHODS, MOST_SLOW, RARELY, assert_identical, kept, seeded, state
from .processes import trainer, two_processes

SHAPE = (1, 8, 8)
BATCHES, ROWS = 8, 6


class JointBuffer(ReplayBuffer):
    """Kept examples of all processes on each of them, in the order in which one process would keep them."""

    def push(self, *leaves):
        if torch.distributed.is_initialized():
            joined = [[torch.empty_like(leaf) for _ in range(2)] for leaf in leaves]
            for parts, leaf in zip(joined, leaves, strict=True):
                torch.distributed.all_gather(parts, leaf.detach().contiguous())
            leaves = [torch.cat(parts) for parts in joined]
        super().push(*leaves)


def joint_training(rank, name, world):
    """Weights after a few iterations of plain SGD on this rank's rows, with noise drawn for the joint batch."""
    method = seeded(name).double()
    source = torch.Generator().manual_seed(1)
    method.noise = JointNoise(source, rank, world) if world > 1 else GeneratorNoise(source)
    method._players = {player: (parts, spec(SGD, lr=1e-4), None) for player, (parts, _, _) in method.players().items()}
    for part in method.modules():
        for attribute, value in vars(part).copy().items():
            if isinstance(value, ReplayBuffer):
                setattr(part, attribute, JointBuffer(value.capacity))
    joint = torch.rand(BATCHES, ROWS, *SHAPE, generator=torch.Generator().manual_seed(2)).double() * 2 - 1
    start = {key: value.clone() for key, value in method.state_dict().items()}
    rows = joint.tensor_split(world, dim=1)[rank]
    trainer(world, max_epochs=1, **RARELY).fit(method, DataLoader(list(rows), batch_size=None))
    moved = sum(float((value.double() - start[key].double()).abs().sum()) for key, value in method.state_dict().items())
    return {"moved": moved, **method.state_dict()}


@pytest.mark.parametrize("name", MOST_SLOW)
def test_two_processes_equal_one_with_the_joined_batch(name):
    one = joint_training(0, name, 1)
    for two in two_processes(joint_training, name, 2):
        assert two["moved"] > 1e-3
        assert two.keys() == one.keys()
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", MOST_SLOW)
def test_every_method_trains_in_mixed_precision_with_weights_and_energies_in_fp32(name):
    method = seeded(name)
    start = {key: value.clone() for key, value in method.named_parameters()}
    trainer(max_steps=8, precision="bf16-mixed", **RARELY).fit(method, Digits(batch_size=100))
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in method.state_dict().values()
               if value.is_floating_point())  # fmt: skip
    assert any(not torch.equal(value, start[key]) for key, value in method.named_parameters())
    for buffer in kept(method).values():
        assert {leaf.dtype for leaf in buffer.leaves} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        if isinstance(method, HasEnergy):
            assert method.energy(torch.zeros(2, *SHAPE)).dtype == torch.float32
        assert method.sample(2, noise=0).isfinite().all()


def own_noise(rank, seed=5):
    torch.manual_seed(seed)
    method = METHODS["ecvae"]()
    trainer(2, max_steps=2).fit(method, Digits(batch_size=50))
    state = {"seed": torch.initial_seed(), "rng": torch.get_rng_state()}
    return {**state, "samples": method.sample(4), "weights": dict(method.state_dict())}


def test_each_process_draws_its_own_noise_and_holds_the_same_weights():
    a, b = two_processes(own_noise)
    assert not torch.equal(a["rng"], b["rng"])
    assert (a["samples"] - b["samples"]).abs().max() > 0.1
    assert_identical(a["weights"], b["weights"])


@pytest.mark.thorough
def test_no_process_draws_what_a_neighbouring_seed_draws():
    assert len({one["seed"] for seed in (0, 1) for one in two_processes(own_noise, seed)}) == 4


def train(rank, world, folder, name, steps, checkpoint=None, every=1):
    """Train from the start, with a checkpoint after every iteration (or fewer), or from one; the state at the end."""
    method = seeded(name)
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=every)
    callbacks = [EMA(decay=0.9), *([] if checkpoint else [saver])]
    torch.manual_seed(7 if checkpoint is None else 99)  # whatever a new process did before
    fit = trainer(world, max_steps=steps, callbacks=callbacks, enable_checkpointing=checkpoint is None, **RARELY)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit.fit(method, Digits(batch_size=300 // world), ckpt_path=checkpoint, weights_only=True)
    return {"state": {k: v.clone() for k, v in state(fit).items()}, "said": [str(w.message) for w in said]}


def random_iterations(name, count, steps):
    """Iterations before the last one; an epoch has five."""
    return random.Random(name).sample(range(1, steps), count)


@pytest.mark.slow  # tests/methods/test_contract.py resumes at chosen ones
@pytest.mark.parametrize("name", METHODS)
def test_resume_at_random_iterations_on_one_process(tmp_path, name):
    whole = train(0, 1, tmp_path, name, 12)["state"]
    for step in random_iterations(name, 5, 12):
        assert_identical(train(0, 1, tmp_path, name, 12, str(tmp_path / f"step={step}.ckpt"))["state"], whole)


def whole_and_resumed(rank, folder, name, count):
    steps = 12 if count > 1 else 8
    chosen = random_iterations(name, count, steps)
    whole = train(rank, 2, folder, name, steps, every=1 if count > 1 else chosen[0])["state"]
    again = [train(rank, 2, folder, name, steps, f"{folder}/step={s}.ckpt")["state"] for s in chosen]
    return {"whole": whole, "again": again}


@pytest.mark.parametrize("count", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MOST_SLOW)
def test_resume_at_random_iterations_on_two_processes(tmp_path, name, count):
    ranks = two_processes(whole_and_resumed, str(tmp_path), name, count)
    for rank in ranks:
        for again in rank["again"]:
            assert_identical(again, rank["whole"])
    assert not torch.equal(ranks[0]["whole"]["rng"], ranks[1]["whole"]["rng"])


@pytest.mark.thorough
def test_another_number_of_processes_deals_the_kept_chains_out_anew_and_says_so(tmp_path):
    name = "vaebm, persistent, from its VAE on"
    train(0, 1, tmp_path, name, 7)
    kept = torch.load(tmp_path / "step=7.ckpt", weights_only=True)["replay"][0]["leaves"][0]
    ranks = two_processes(train, 2, str(tmp_path), name, 7, str(tmp_path / "step=7.ckpt"))
    shares = [rank["state"]["replay0"] for rank in ranks]
    assert sum(map(len, shares)) == len(kept) > 600
    rows = {tuple(row.tolist()) for row in torch.cat(shares)}
    assert rows == {tuple(row.tolist()) for row in kept}
    told = train(0, 1, tmp_path, name, 8, str(tmp_path / "step=7.ckpt"))["said"]
    assert not any("dealt out anew" in line for line in told)
    ranks = two_processes(train, 2, str(tmp_path), name, 8, str(tmp_path / "step=7.ckpt"))
    assert any(
        "written by 1 process(es), now there are 2: kept chains are dealt out anew" in w for w in ranks[0]["said"]
    )
    assert not torch.equal(ranks[0]["state"]["rng"], ranks[1]["state"]["rng"])


def distance(rank, world):
    images = (torch.rand(240, *SHAPE, generator=torch.Generator().manual_seed(0)) * 256).byte()
    data = (torch.rand(300, *SHAPE, generator=torch.Generator().manual_seed(1)).pow(2) * 256).byte()
    if world > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    measure = StreamingFID("digits")
    for real, rows in ((True, data), (False, images)):
        for batch in rows[rank::world].split(50):
            measure.update(batch.float() / 127.5 - 1 if not real else batch, real=real)
    return {"fid": measure.compute()}


def test_the_frechet_distance_of_two_processes_is_that_of_one():
    one = distance(0, 1)["fid"]
    for rank in two_processes(distance, 2):
        assert rank["fid"] == pytest.approx(one, rel=1e-9)
