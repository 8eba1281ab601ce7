from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from ebmzoo.callbacks import EMA, averaged_weights

from .fakes import Images, Tiny, model, same, trainer, weights

NETWORKS = ("encoder", "decoder", "critic")


def closed_form(start, history, decays):
    """Average of a history of weights, each with its own weight, added up in float64."""
    total = {name: value.double() for name, value in start.items()}
    factor = 1.0
    for decay in decays:
        factor *= decay
    total = {name: factor * value for name, value in total.items()}
    for k, then in enumerate(history):
        share = 1 - decays[k]
        for decay in decays[k + 1 :]:
            share *= decay
        total = {name: total[name] + share * then[name].double() for name in total}
    return total


def assert_equal(averages, expected, names):
    assert averages.keys() == names
    for name in names:
        torch.testing.assert_close(averages[name].double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_its_closed_form(tmp_path, warmup):
    tiny, ema = model(), EMA(0.7, warmup=warmup)
    start = weights(tiny)
    trainer(tmp_path, [ema]).fit(tiny, Images())
    assert len(tiny.raw) == 10 and ema.updates == 10  # once a batch, though two optimisers step
    decays = [min(0.7, (1 + t) / (10 + t)) if warmup else 0.7 for t in range(10)]
    assert_equal(ema.averages, closed_form(start, tiny.raw, decays), start.keys())
    assert all(value.dtype == torch.float32 for value in ema.averages.values())
    assert not same(ema.averages, weights(tiny))


def test_it_begins_at_its_start_step(tmp_path):
    tiny, ema = model(), EMA(0.7, start_step=4)
    trainer(tmp_path, [ema]).fit(tiny, Images())
    assert ema.updates == 6
    assert_equal(ema.averages, closed_form(tiny.raw[3], tiny.raw[4:], [0.7] * 6), ema.averages.keys())


def test_only_the_named_networks_are_averaged(tmp_path):
    tiny, ema = model(), EMA(0.7, networks=["decoder.0", "critic"])
    trainer(tmp_path, [ema]).fit(tiny, Images())
    assert set(ema.averages) == {"decoder.0.weight", "decoder.0.bias", "critic.weight", "critic.bias"}
    raw = weights(tiny)
    with averaged_weights(trainer(tmp_path, [ema]), tiny) as active:
        assert active
        looked = weights(tiny)
    for name in raw:
        assert torch.equal(looked[name], ema.averages.get(name, raw[name]))
    assert same(weights(tiny), raw)


def test_players_may_hold_parameters_and_plain_lists(tmp_path):
    class Learned(Tiny):
        def __init__(self):
            super().__init__()
            self.log_sigma = nn.Parameter(torch.zeros(()))

        def players(self):
            return {"vae": [self.encoder, self.log_sigma]}

    ema = EMA()
    ema.on_fit_start(trainer(tmp_path), Learned())
    assert set(ema.averages) == {"encoder.weight", "encoder.bias", "log_sigma"}


def test_averages_are_in_for_validation_and_raw_weights_back_after(tmp_path):
    tiny, ema = model(), EMA(0.7)
    trainer(tmp_path, [ema], max_epochs=1, num_sanity_val_steps=1).fit(tiny, Images())
    (sane, _), *looks = tiny.seen
    assert len(looks) == 2
    for look, active in looks:
        assert active and same(look, ema.averages)
    assert not tiny.ema_active and same(weights(tiny), tiny.raw[-1])
    assert not same(sane, looks[0][0])


def test_test_and_predict_look_at_averages_too(tmp_path):
    tiny, ema = model(), EMA(0.7)
    run = trainer(tmp_path, [ema], limit_val_batches=0)
    run.fit(tiny, Images())
    raw = weights(tiny)
    run.test(tiny, Images(), verbose=False)
    run.predict(tiny, Images())
    assert len(tiny.seen) == 4
    assert all(active and same(look, ema.averages) for look, active in tiny.seen)
    assert same(weights(tiny), raw) and not tiny.ema_active


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("verb", ["fit", "test"])
def test_raw_weights_are_back_after_an_exception(tmp_path, error, verb):
    class Broken(Tiny):
        broken = False

        def validation_step(self, x, index):
            super().validation_step(x, index)
            if self.broken:
                raise error("stop")

        test_step = validation_step

    tiny, ema = Broken(), EMA(0.7)
    run = trainer(tmp_path, [ema], limit_val_batches=0 if verb == "test" else 1.0)
    if verb == "test":
        run.fit(tiny, Images())
    tiny.broken = True
    with pytest.raises((error, SystemExit)):
        getattr(run, verb)(tiny, Images())
    assert tiny.seen[-1][1]
    assert same(weights(tiny), tiny.raw[-1]) and not tiny.ema_active
    assert same(tiny.raw[-1], {n: v for n, v in tiny.state_dict().items() if n in tiny.raw[-1]})


def test_a_context_gives_the_weights_back_after_an_exception(tmp_path):
    tiny, ema = model(), EMA(0.7)
    run = trainer(tmp_path, [ema], limit_val_batches=0)
    run.fit(tiny, Images())
    raw = weights(tiny)
    with pytest.raises(ZeroDivisionError), averaged_weights(run, tiny), averaged_weights(run, tiny) as inner:
        assert inner and same(weights(tiny), ema.averages)
        1 / 0  # noqa: B018 - the point of it
    assert same(weights(tiny), raw)


class SaveInValidation(L.Callback):
    def __init__(self, path, only):
        self.path, self.only = path, only

    def on_validation_epoch_end(self, trainer, pl_module):
        assert pl_module.ema_active
        trainer.save_checkpoint(self.path / "x.ckpt", weights_only=self.only)


@pytest.mark.parametrize("only", [False, True])
def test_a_checkpoint_written_while_averages_are_in_holds_both(tmp_path, only):
    tiny, ema = model(), EMA(0.7)
    run = trainer(tmp_path, [ema, SaveInValidation(tmp_path, only)], max_epochs=1)
    run.fit(tiny, Images())
    held = torch.load(tmp_path / "x.ckpt", weights_only=True)
    raw = tiny.raw[-1]
    assert same({name: held["state_dict"][name] for name in raw}, raw)
    assert set(held["state_dict"]) == set(tiny.state_dict())
    if not only:  # Lightning asks no callback for a file of weights alone
        assert same(held["ema"], ema.averages)


def test_tied_weights_are_held_under_each_of_their_names(tmp_path):
    class Tied(Tiny):
        def __init__(self):
            super().__init__()
            self.again = self.encoder

    tiny, ema = Tied(), EMA(0.7)
    run = trainer(tmp_path, [ema, SaveInValidation(tmp_path, False)], max_epochs=1)
    run.fit(tiny, Images())
    held = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert torch.equal(held["ema"]["again.weight"], held["ema"]["encoder.weight"])
    assert torch.equal(held["state_dict"]["again.weight"], tiny.raw[-1]["encoder.weight"])
    assert not torch.equal(held["ema"]["again.weight"], held["state_dict"]["again.weight"])
    fresh = Tied()
    trainer(tmp_path, [EMA(0.7)]).fit(fresh, Images(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("warmup", [False, True])
def test_a_resumed_average_is_exact(tmp_path, warmup):
    class Quiet(Tiny):
        def training_step(self, x, index):
            torch.manual_seed(self.global_step)  # this fake keeps no random state in its checkpoints
            super().training_step(x, index)

    def run(epochs, ckpt_path=None):
        torch.manual_seed(0)
        tiny, ema = Quiet(), EMA(0.7, warmup=warmup, start_step=2)
        fitting = trainer(tmp_path, [ema], max_epochs=epochs, limit_val_batches=0)
        fitting.fit(tiny, Images(), ckpt_path=ckpt_path, weights_only=True)
        fitting.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return ema, weights(tiny)

    whole, raw = run(4)
    run(2)
    resumed, again = run(4, tmp_path / "2.ckpt")
    assert same(raw, again)
    assert same(whole.averages, resumed.averages) and whole.updates == resumed.updates == 18


def test_a_plain_trainer_takes_the_averages_of_a_checkpoint_for_a_test(tmp_path):
    tiny, ema = model(), EMA(0.7)
    run = trainer(tmp_path, [ema], limit_val_batches=0)
    run.fit(tiny, Images())
    run.save_checkpoint(tmp_path / "x.ckpt")
    fresh = model(1)
    options = {"ckpt_path": tmp_path / "x.ckpt", "weights_only": True, "verbose": False}
    trainer(tmp_path, [EMA(0.7)]).test(fresh, Images(), **options)
    assert all(active and same(look, ema.averages) for look, active in fresh.seen)
    assert same(weights(fresh), weights(tiny))


def test_a_model_that_comes_with_averages_is_left_as_it_is(tmp_path):
    tiny, ema = model(), EMA(0.7)
    run = trainer(tmp_path, [ema], limit_val_batches=0)
    run.fit(tiny, Images())
    loaded = model(1)
    loaded.ema_active = True
    own = weights(loaded)
    run.test(loaded, Images(), verbose=False)
    assert all(active and same(look, own) for look, active in loaded.seen)
    assert loaded.ema_active
    run = trainer(tmp_path, [EMA(0.7)], max_epochs=1)
    run.fit(loaded, Images())
    assert not loaded.ema_active  # what is trained is raw


def test_without_averages_nothing_is_swapped(tmp_path):
    tiny = model()
    trainer(tmp_path, [EMA()]).test(tiny, Images(), verbose=False)
    assert not any(active for _, active in tiny.seen)


def test_training_is_the_same_with_and_without(tmp_path):
    runs = []
    for callbacks in ([], [EMA(0.7)]):
        tiny = model()
        torch.manual_seed(5)
        trainer(tmp_path, callbacks).fit(tiny, Images())
        runs.append(weights(tiny))
    assert same(*runs)


def test_half_precision_is_averaged_in_float32():
    class Half(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

    half, ema = Half(), EMA(0.999)
    run = SimpleNamespace(global_step=1)
    ema.on_fit_start(run, half)
    half.weight.data.fill_(2)
    ema.on_train_batch_end(run, half, None, None, 0)
    # In bfloat16 the average would stay at 1.
    assert ema.averages["weight"].item() == pytest.approx(1.001, rel=1e-6)


def test_what_a_user_can_get_wrong(tmp_path):
    for options in ({"decay": 1.0}, {"decay": -0.1}, {"start_step": -1}):
        with pytest.raises(ValueError, match="0 <= decay < 1"):
            EMA(**options)
    with pytest.raises(ValueError, match="no network 'encode'; it has encoder, decoder, critic"):
        trainer(tmp_path, [EMA(networks=["encode"])]).fit(model(), Images())
    run = trainer(tmp_path, [EMA(networks=["critic"])], limit_val_batches=0)
    run.fit(model(), Images())
    run.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="give EMA the networks that it had"):
        trainer(tmp_path, [EMA()]).fit(model(), Images(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
