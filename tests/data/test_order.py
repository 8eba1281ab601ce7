"""The order of batches is a function of (seed, epoch), in units and in a real Trainer."""

from __future__ import annotations

import gc
import os
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import Dataset

from ebmzoo.data import DataModule, EpochBatches, Examples, InMemory, Loader, OrderedBatches, Rows
from ebmzoo.data.order import flips

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

N, BATCH = 23, 4  # five whole batches


class Numbers(DataModule):
    """Row numbers as images: a batch shows which rows were read, and whether they were flipped."""

    def __init__(self, n: int = N, **kwargs):
        super().__init__(**kwargs)
        self.n, self.name, self.image_shape = n, "numbers", (1, 1, 2)

    def load(self, split: str) -> Examples:
        rows = torch.arange(self.n, dtype=torch.float32)
        return InMemory(torch.stack([rows, -rows - 1], dim=1).view(-1, 1, 1, 2))


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)
        self.seen: list[list[float]] = []

    def training_step(self, x: Tensor, i: int) -> Tensor:
        self.seen.append(x[:, 0, 0, 0].tolist())
        return self.net(x.flatten(1)).square().mean()

    def validation_step(self, x: Tensor, i: int) -> None:
        self.log("rows", float(len(x)))

    def predict_step(self, x: Tensor, i: int) -> Tensor:
        return x[:, 0, 0, 0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def trainer(path, **kwargs) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, **quiet, **kwargs}
    return Trainer(default_root_dir=path, **settings)


def rows(batches: EpochBatches) -> list[list[int]]:
    return [batch.numbers.tolist() for batch in batches]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only():
    def epoch(seed: int, number: int) -> list[list[int]]:
        batches = EpochBatches(24, BATCH, seed)
        batches.set_epoch(number)
        return rows(batches)

    first = epoch(0, 0)
    assert sorted(sum(first, [])) == list(range(24)) and sum(first, []) != list(range(24))
    torch.manual_seed(99)
    torch.rand(3)
    assert epoch(0, 0) == first
    assert len({str(epoch(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_the_global_generator_is_left_alone():
    data = Numbers(batch_size=BATCH, flip=0.5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert len(list(data.train_dataloader())) == 5
    assert torch.equal(torch.get_rng_state(), before)


def test_two_processes_cut_the_global_batch_contiguously():
    one = EpochBatches(50, 8, seed=3)
    two = [EpochBatches(50, 4, seed=3, rank=rank, world=2) for rank in range(2)]
    for batches in (one, *two):
        batches.set_epoch(5)
    assert [a + b for a, b in zip(*map(rows, two), strict=True)] == rows(one)
    assert len(one) == len(two[0]) == len(two[1]) == 6


@pytest.mark.parametrize("n", range(3, 40))
@pytest.mark.parametrize("world", [1, 2, 3])
def test_without_drop_last_every_row_is_read_once_and_no_batch_is_empty(n, world):
    ranks = [OrderedBatches(n, 4, rank=rank, world=world) for rank in range(world)]
    pieces = [rows(batches) for batches in ranks]
    assert len({len(piece) for piece in pieces}) == 1
    assert [len(piece) for piece in pieces] == [len(batches) for batches in ranks]
    assert all(batch for piece in pieces for batch in piece)
    joined = [sum(batches, []) for batches in zip(*pieces, strict=True)]
    assert sum(joined, []) == list(range(n))


def test_skip_leaves_out_what_was_consumed_once():
    batches = EpochBatches(N, BATCH, seed=1)
    whole = rows(batches)
    batches.skip = 2
    iterator = iter(batches)
    assert [batch.numbers.tolist() for batch in iterator] == whole[2:]
    assert len(batches) == 5
    assert rows(batches) == whole


def test_epoch_and_skip_are_read_at_the_first_batch():
    batches = EpochBatches(N, BATCH, seed=1)
    early = iter(batches)
    batches.set_epoch(4)
    batches.skip = 1
    late = [batch.numbers.tolist() for batch in early]
    assert late == rows(batches)[1:]


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"a batch of 8 on 2 process\(es\) needs 16 .* there are 10"):
        EpochBatches(10, 8, rank=0, world=2)
    with pytest.raises(ValueError, match="1 rows cannot be shared by 2"):
        OrderedBatches(1, 8, rank=0, world=2)
    for bad in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(ValueError, match="are needed"):
            EpochBatches(*bad)


def test_flips_are_a_function_of_seed_epoch_and_row():
    drawn = flips(10_000, 0.5, seed=0, epoch=1)
    assert torch.equal(drawn, flips(10_000, 0.5, seed=0, epoch=1))
    assert abs(drawn.float().mean() - 0.5) < 0.02  # four standard errors
    for other in (flips(10_000, 0.5, 0, 2), flips(10_000, 0.5, 1, 1)):
        assert 0.47 < (drawn == other).float().mean() < 0.53
    assert not flips(100, 0.0, 0, 0).any() and flips(100, 1.0, 0, 0).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flip_mirrors_the_row_that_was_drawn(workers):
    data = Numbers(flip=0.5, seed=2, num_workers=workers, batch_size=BATCH)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    expected = flips(N, 0.5, seed=2, epoch=3)
    mirrored = 0
    for x, batch in zip(loader, batches_of(3), strict=True):
        for pixels, row in zip(x, batch, strict=True):
            pair = [float(row), -float(row) - 1]
            assert pixels.flatten().tolist() == (pair[::-1] if expected[row] else pair)
            mirrored += bool(expected[row])
    assert 0 < mirrored < 20
    assert torch.equal(data.reference()[5], torch.tensor([[[5.0, -6.0]]]))  # the reference is never flipped


def batches_of(epoch: int) -> list[list[int]]:
    batches = EpochBatches(N, BATCH, seed=2)
    batches.set_epoch(epoch)
    return rows(batches)


def test_lightning_sets_the_epoch(tmp_path):
    model, data = Recorder(), Numbers(batch_size=BATCH, seed=2)
    trainer(tmp_path, max_epochs=3).fit(model, data)
    expected = [[float(row) for row in batch] for epoch in range(3) for batch in batches_of(epoch)]
    assert model.seen == expected


@pytest.mark.parametrize("limit", [1.0, 3])
def test_a_resumed_run_goes_on_with_the_batches_it_had_not_seen(tmp_path, limit):
    whole = Recorder()
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    settings = {"max_epochs": 3, "limit_train_batches": limit}
    data = {"batch_size": BATCH, "seed": 1, "flip": 0.5}
    trainer(tmp_path, enable_checkpointing=True, callbacks=[keep], **settings).fit(whole, Numbers(**data))
    total = 15 if limit == 1.0 else 9
    assert len(whole.seen) == total
    for step in range(1, total):
        resumed = Recorder()
        path = tmp_path / f"step={step}.ckpt"
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*dataloader is not resumable|.*training data changed")
            trainer(tmp_path, **settings).fit(resumed, Numbers(**data), ckpt_path=path, weights_only=True)
        assert resumed.seen == whole.seen[step:], f"resumed after step {step}"


def test_a_resumed_run_with_workers_starts_in_the_right_epoch(tmp_path):
    whole = Recorder()
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7)
    data = {"batch_size": BATCH, "seed": 1, "flip": 0.5}
    trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=[keep]).fit(whole, Numbers(**data))
    resumed = Recorder()
    path = tmp_path / "step=14.ckpt"
    trainer(tmp_path, max_epochs=4).fit(resumed, Numbers(num_workers=1, **data), ckpt_path=path)
    assert resumed.seen[:1] == whole.seen[14:] and len(resumed.seen) == 6
    again = Recorder()
    trainer(tmp_path, max_epochs=4).fit(again, Numbers(**data))
    assert again.seen[14:] == resumed.seen


def test_without_a_seed_of_its_own_the_order_is_that_of_the_run(tmp_path):
    def seen(run: int | None, **settings) -> list[list[float]]:
        if run is not None:
            seed_everything(run, verbose=False)
        model = Recorder()
        trainer(tmp_path, max_epochs=2).fit(model, Numbers(batch_size=BATCH, **settings))
        return model.seen

    by_seed = {seed: seen(7, seed=seed) for seed in range(4)}
    os.environ.pop("PL_GLOBAL_SEED")
    assert seen(None) == by_seed[0]
    assert [seen(run) for run in range(4)] == list(by_seed.values())
    assert len({str(order) for order in by_seed.values()}) == 4
    data = Numbers(flip=0.5, batch_size=BATCH)
    seed_everything(2, verbose=False)  # after the data were made, as scripts do
    flipped = [bool(x[0, 0, 0] < 0) for batch in data.train_dataloader() for x in batch]
    assert flipped == [bool(flips(N, 0.5, 2, 0)[row]) for batch in batches_of(0) for row in batch]


def test_a_resumed_run_keeps_its_order_whatever_the_run_is_seeded_with(tmp_path):
    seed_everything(2, verbose=False)
    whole = Recorder()
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7)
    trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=[keep]).fit(whole, Numbers(batch_size=BATCH))
    seed_everything(5, verbose=False)
    resumed, data = Recorder(), Numbers(batch_size=BATCH)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*training data changed")
        path = tmp_path / "step=14.ckpt"
        trainer(tmp_path, max_epochs=3).fit(resumed, data, ckpt_path=path, weights_only=True)
    assert resumed.seen == whole.seen[14:]
    fresh = Recorder()
    trainer(tmp_path, max_epochs=1).fit(fresh, data)
    batches = EpochBatches(N, BATCH, seed=5)
    assert fresh.seen == rows(batches)


def test_after_a_training_that_ended_within_an_epoch_the_loader_gives_whole_ones(tmp_path):
    """Whoever computes something over the training set then must see all of it."""
    data = Numbers(batch_size=BATCH, seed=2)
    trainer(tmp_path, max_steps=7).fit(Recorder(), data)
    for loader in (data.train_dataloader(), data.train_dataloader()):
        assert [x[:, 0, 0, 0].tolist() for x in loader] == batches_of(0)


def test_a_resume_with_other_data_says_that_the_rest_of_the_epoch_differs(tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3)
    trainer(tmp_path, max_steps=3, enable_checkpointing=True, callbacks=[keep]).fit(
        Recorder(), Numbers(batch_size=BATCH)
    )
    path = tmp_path / "step=3.ckpt"
    with pytest.warns(UserWarning, match="batch, seed of the training data changed"):
        trainer(tmp_path, max_steps=4).fit(Recorder(), Numbers(batch_size=2, seed=1), ckpt_path=path)


def test_overfitting_repeats_the_same_batches(tmp_path):
    model = Recorder()
    trainer(tmp_path, max_epochs=2, overfit_batches=2).fit(model, Numbers(batch_size=BATCH))
    assert model.seen == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_prediction_reads_every_row_once_in_order(tmp_path, workers):
    data = Numbers(batch_size=BATCH, num_workers=workers)
    batches = trainer(tmp_path).predict(Recorder(), data)
    assert torch.cat(batches).tolist() == [float(row) for row in range(N)]


class Broken(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, batch: Rows) -> Tensor:
        raise ValueError("photo.png cannot be read as an image: cut short")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_stays_one_line(workers, monkeypatch):
    # torch waits this long, 5 s, for a worker that has raised; here the shutdown is made part of this test.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1, raising=False)
    loader = Loader(Broken(), sampler=OrderedBatches(4, 2), num_workers=workers)
    with pytest.raises(ValueError) as caught:
        list(loader)
    assert str(caught.value) == "photo.png cannot be read as an image: cut short"
    del caught, loader
    gc.collect()


class Writer(Recorder):
    """Each process writes down what it saw."""

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def on_train_end(self) -> None:
        torch.save(self.seen, os.path.join(self.folder, f"{self.global_rank}.pt"))


def test_lightning_leaves_the_cut_to_the_sampler_under_ddp(tmp_path):
    """Even with use_distributed_sampler at its default, which would otherwise cut the batches again."""
    data = Numbers(n=50, batch_size=BATCH, seed=2)
    trainer(tmp_path, max_epochs=2, devices=2, strategy="ddp_fork").fit(Writer(str(tmp_path)), data)
    two = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    one = Recorder()
    trainer(tmp_path, max_epochs=2).fit(one, Numbers(n=50, batch_size=2 * BATCH, seed=2))
    assert len(one.seen) == 12
    assert [a + b for a, b in zip(*two, strict=True)] == one.seen
