import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image

from ebmzoo.callbacks import EMA, Diverged, Guard, Pictures
from ebmzoo.callbacks.eval_mode import eval_mode
from ebmzoo.data import Gaussians25
from ebmzoo.figures.plots import histograms
from ebmzoo.images import grid, strips
from ebmzoo.mcmc import State, as_noise

from .fakes import Images, Tiny, model, same, trainer, weights


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def test_all_pictures_in_their_places(tmp_path):
    tiny = model(chain=True)
    run = trainer(tmp_path, [EMA(0.5), Pictures(n=9, every_n_steps=4, n_chain=2, frames=4)])
    run.fit(tiny, Images())
    kept = {path.name for path in (tmp_path / "pictures").iterdir()}
    names = ("samples", "reconstructions", "chain")
    assert kept == {f"{name}_step{step:08d}.png" for name in names for step in (4, 8, 10)}
    # The newest are of the averaged weights at the end, drawn from the noise of seed 0.
    with eval_mode(run, tiny) as ema:
        assert ema
        samples = tiny.sample(9, noise=0)
        reconstructed = tiny.reconstruct(Images().reference("val")[:4])
        frames = []
        last = tiny.sample(2, steps=6, noise=0, watch=lambda step, state: frames.append(state.x))
    assert torch.equal(pixels(tmp_path / "samples.png"), grid(samples))
    titles = [f"step {k}" for k in (0, 2, 4, 6)]
    chain = strips([frames[0], frames[2], frames[4], last], titles=titles)
    assert torch.equal(pixels(tmp_path / "chain.png"), chain)
    pairs = [part[k, None] for k in range(4) for part in (Images().reference("val"), reconstructed)]
    assert torch.equal(pixels(tmp_path / "reconstructions.png"), strips(pairs, titles=["data", "recon."] * 4))


def test_reconstructions_fill_their_last_row_with_white(tmp_path):
    tiny = model()
    trainer(tmp_path, [Pictures(n=12)]).test(tiny, Images(), verbose=False)
    x = Images().reference("val")[:6]
    with torch.no_grad():
        again = tiny.eval().reconstruct(x)
    second = [part[k, None] if k < 6 else torch.ones(1, 1, 8, 8) for k in range(4, 8) for part in (x, again)]
    found = pixels(tmp_path / "reconstructions.png")
    assert torch.equal(found[:, -72:], strips(second)[:, -72:])


def test_the_noise_is_the_same_every_time(tmp_path):
    tiny = model()
    run = trainer(tmp_path, [Pictures(n=4, every_n_steps=1)], max_steps=2)
    # Rates of 0, and batch statistics that do not move: the model stays as it is.
    tiny.configure_optimizers = lambda: [
        torch.optim.SGD(tiny.decoder.parameters(), 0.0),
        torch.optim.SGD(tiny.critic.parameters(), 0.0),
    ]
    tiny.decoder[1].momentum = 0.0
    run.fit(tiny, Images())
    first, second = (pixels(tmp_path / "pictures" / f"samples_step0000000{k}.png") for k in (1, 2))
    assert torch.equal(first, second) and first.float().std() > 0


@pytest.mark.parametrize("chain", [False, True])
def test_training_is_the_same_with_and_without(tmp_path, chain):
    runs = []
    for callbacks in ([], [Pictures(n=4, every_n_steps=1)], [EMA(0.5), Pictures(n=4, every_n_steps=3)]):
        tiny = model(chain=chain)
        torch.manual_seed(5)
        trainer(tmp_path, callbacks).fit(tiny, Images())
        runs.append({**weights(tiny), **dict(tiny.named_buffers())})
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])


def test_at_test_the_newest_pictures_are_drawn(tmp_path):
    tiny = model()
    trainer(tmp_path, [Pictures(n=4)]).test(tiny, Images(), verbose=False)
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "reconstructions.png"}
    assert torch.equal(pixels(tmp_path / "samples.png"), grid(tiny.eval().sample(4, noise=0)))


def test_states_that_are_no_images_are_not_drawn(tmp_path):
    class Latent(Tiny):
        def sample(self, n, *, steps=None, noise=None, watch=None):
            for step in range(steps or 0):
                watch(step, State(torch.zeros(n, 9), torch.zeros(n), torch.zeros(n, 9)))
            return super().sample(n, noise=noise)

    trainer(tmp_path, [Pictures(n=4)]).test(Latent(chain=True), Images(), verbose=False)
    assert not (tmp_path / "chain.png").exists() and (tmp_path / "samples.png").exists()


class Board(DummyLogger):
    """Takes images as TensorBoard's logger does."""

    def __init__(self):
        super().__init__()
        self.shown = []

    @property
    def experiment(self):
        return self

    def __getattr__(self, name):
        raise AttributeError(name)

    def add_image(self, tag, picture, step):
        self.shown.append((tag, picture.shape, step))


class WandB(Board):
    """Takes images as the W&B logger does."""

    def log_image(self, key, images, step=None, **options):
        self.shown.append((key, images[0].size, options["caption"], step))


def test_loggers_get_the_pictures(tmp_path):
    board, wandb = Board(), WandB()
    run = trainer(tmp_path, [Pictures(n=4, every_n_steps=5)], max_epochs=1, logger=[board, wandb])
    run.fit(model(), Images())
    width, height = Image.open(tmp_path / "samples.png").size
    # At the place of the fifth iteration's losses: Lightning counts from 0.
    assert board.shown[0] == ("pictures/samples", (3, height, width), 4)
    assert wandb.shown[0] == ("pictures/samples", (width, height), ["samples, after 5 iterations"], 4)
    names = [shown[0] for shown in board.shown]
    assert names == ["pictures/samples", "pictures/reconstructions"]
    # They have them: a test draws them into the folder alone.
    (tmp_path / "samples.png").unlink()
    run.test(run.model, Images(), verbose=False)
    assert (tmp_path / "samples.png").exists() and [shown[0] for shown in board.shown] == names


class Energetic(Tiny):
    """Has the mean pixel as its energy, but for what it has no finite energy of."""

    finite = True

    def energy(self, x):
        return x.flatten(1).mean(1) if self.finite else torch.full((len(x),), torch.nan)


def test_energies_of_data_and_of_samples_share_their_bins(tmp_path):
    data, tiny = Images(), Energetic()
    trainer(tmp_path, [Pictures(n=8)]).test(tiny, data, verbose=False)
    groups = {"validation data": data.reference("val")[:8], "samples": tiny.eval().sample(8, noise=0)}
    energies = {name: tiny.energy(x).detach() for name, x in groups.items()}
    expected = histograms(energies, "E(x) (low: likely)", "energies of Energetic")
    assert torch.equal(pixels(tmp_path / "energy_histogram.png"), expected)


def test_energies_that_are_not_finite_are_not_drawn(tmp_path):
    tiny = Energetic()
    tiny.finite = False
    trainer(tmp_path, [Pictures(n=4)]).test(tiny, Images(), verbose=False)
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "reconstructions.png"}


def test_points_are_scattered_beside_the_data(tmp_path):
    class Points(Tiny):
        image_shape = (2,)

        def sample(self, n, *, steps=None, noise=None, watch=None):
            return Gaussians25().density.sample(n, as_noise(noise))

    data = Gaussians25(n_train=500, n_test=300, batch_size=100)
    trainer(tmp_path, [Pictures(n_points=300)]).test(Points(), data, verbose=False)
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png"}
    wide, high = Image.open(tmp_path / "samples.png").size
    assert 1.7 < wide / high < 2  # two square panels and their titles


@pytest.mark.parametrize("options", [{"n": 0}, {"every_n_steps": 0}, {"frames": 1}, {"n_chain": 0}])
def test_what_a_user_can_get_wrong(options):
    with pytest.raises(ValueError, match="Pictures needs"):
        Pictures(**options)


class Broken(Tiny):
    """From its third step on one value of the second sample is infinite."""

    def sample(self, n, **call):
        x = super().sample(n, **call)
        if self.trainer.global_step >= 3 or self.trainer.testing:
            x[1, 0, 0, 0] = -torch.inf
        return x


def test_samples_that_are_not_finite_stop_a_training_as_diverged(tmp_path):
    with pytest.raises(Diverged) as caught:
        trainer(tmp_path, [Pictures(n=4, every_n_steps=2)]).fit(Broken(), Images())
    assert str(caught.value) == "training diverged at step 4: 1 of 256 values of the samples are not finite"
    assert caught.value.step == 4 and not caught.value.again
    assert [path.name for path in (tmp_path / "pictures").glob("samples*")] == ["samples_step00000002.png"]


def test_a_diverged_model_that_is_tested_has_no_pictures_and_one_line_says_why(tmp_path):
    with pytest.raises(ValueError, match="^no pictures: 1 of 256 values of the samples are not finite; the training"):
        trainer(tmp_path, [Pictures(n=4)]).test(Broken(), Images(), verbose=False)


def test_a_guard_has_the_first_word_and_the_end_of_training_the_last(tmp_path):
    class Blind(Guard):
        def on_train_start(self, *_):
            pass

        on_train_batch_start = on_train_batch_end = on_train_start

    with pytest.raises(Diverged, match="at step 10: 1 of 256"):
        trainer(tmp_path, [Pictures(n=4, every_n_steps=2), Blind()]).fit(Broken(), Images())
