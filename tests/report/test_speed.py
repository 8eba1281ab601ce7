"""The speed report: its loops are the kernel's chain, its figures add up, its verb writes them."""

import json
from functools import partial

import pytest
import torch

from benchmarks.plainly import plainly
from ebmzoo.cli.main import main
from ebmzoo.mcmc import HMC, MALA, Langevin
from ebmzoo.networks import VAEBMEnergy
from ebmzoo.report import speed
from ebmzoo.report.speed_others import as_written, loop

SMALL = speed.Case(
    partial(VAEBMEnergy, (1, 8, 8), column="stacked_mnist", width=4), (1, 8, 8), 3, Langevin(steps=3, step_size=0.1)
)


def test_as_written_is_the_same_function_convolved_before_it_is_pooled():
    net = SMALL.energy().double()
    x = torch.randn(3, 1, 8, 8).double()
    written = as_written(net)
    torch.testing.assert_close(written(x), net(x), rtol=1e-12, atol=1e-12)

    def strides(net):
        with speed._Products() as products:
            net(x)
        return [call.args[3] for call in products.calls if call.func is torch.ops.aten.convolution.default]

    assert [2, 2] in strides(net) and set(map(tuple, strides(written))) == {(1, 1)}


@pytest.mark.parametrize("backward", [True, False])
def test_the_plain_loops_are_the_kernels_chain_to_the_last_bit(backward):
    net, x = as_written(SMALL.energy()), torch.randn(3, 1, 8, 8)
    chain = Langevin(steps=3, step_size=0.1, backend="trace")(net, x, noise=0)
    assert torch.equal(loop(net, x, SMALL.sampler, backward), chain.x)


def test_plainly_a_chain_runs_as_the_plain_loop_does_and_afterwards_as_before():
    net, x = SMALL.energy(), torch.randn(3, 1, 8, 8)
    before = SMALL.sampler(net, x, noise=0).x
    required = []
    hook = net.register_forward_pre_hook(
        lambda module, _: required.append(all(p.requires_grad and not module.training for p in module.parameters()))
    )
    with plainly(net), speed._Products() as products:
        plain = SMALL.sampler(net, x, noise=0).x
    hook.remove()
    strides = {tuple(call.args[3]) for call in products.calls if call.func is torch.ops.aten.convolution.default}
    assert required == [True] * 3 and strides == {(1, 1)} and net.training
    assert torch.equal(plain, loop(as_written(net), x, SMALL.sampler, backward=False))
    assert torch.equal(SMALL.sampler(net, x, noise=0).x, before)


@pytest.mark.thorough
def test_every_way_is_measured_against_the_others():
    rows = {row.way: row for row in speed.measure("small", SMALL, rounds=2)}
    assert {"reference", "naive", "exact", "eager", "kernel", "bf16"} <= set(rows)
    for way in ("reference", "naive", "exact"):
        assert rows[way].bitwise
    for way in ("reference", "naive", "exact", "eager", "kernel"):
        assert rows[way].error < 1e-5
    assert not rows["bf16"].bitwise and 1e-4 < rows["bf16"].error < 0.1
    row = rows["kernel"]
    assert row.image_steps == pytest.approx(3 / row.seconds)
    assert set(row.against) >= {"reference", "naive"} and "naive" not in rows["naive"].against
    lines = speed.table(list(rows.values())).splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("sampler", [MALA(2, 1e-3), HMC(2, 1e-3)], ids=["mala", "hmc"])
def test_metropolis_samplers_are_measured_against_eager(sampler):
    case = speed.Case(speed._mlp, (2,), 4, sampler)
    rows = {row.way: row for row in speed.measure("points", case, rounds=1)}
    row = rows["kernel"]
    assert row.bitwise and "naive" not in rows and "bf16" not in rows
    products = 2 * 128 + 128 * 128 + 128  # of one forward: two FLOPs each, and a gradient costs another forward
    gradients = 5 if isinstance(sampler, HMC) else 1
    assert row.gflops * row.seconds * 1e9 == pytest.approx(2 * 2 * 4 * products * gradients)


POINTS = """\
model: {class_path: ECVAE, init_args: {energy: {class_path: MLPEnergy, init_args: {width: 4}},
                                       sampler: {class_path: Langevin, init_args: {steps: 2}}}}
data: {class_path: Gaussians25, init_args: {batch_size: 5}}
"""


@pytest.mark.parametrize(
    "written",
    [
        POINTS,
        pytest.param(
            POINTS.replace("{class_path: MLPEnergy, init_args: {width: 4}}", "MLPEnergy"), marks=pytest.mark.thorough
        ),
    ],
)
def test_the_verb_prints_a_table_and_writes_the_figures(tmp_path, capsys, written):
    out = tmp_path / "new" / "speed.json"
    config = tmp_path / "points.yaml"
    config.write_text(written)
    assert main(["speed", "--config", str(config), "--rounds", "1", "--out", str(out)]) == 0
    assert "| points | kernel |" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["settings"]["threads"] == 1
    assert {row["case"] for row in found["rows"]} == {"points"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--cases", "table8"], "no case 'table8': there are table7 c128 b8"),
        (["--rounds", "0"], "must be positive"),
        (["--batch_size", "0"], "must be positive"),
        (["--round", "1"], "no option --round: did you mean rounds?"),
        (["--rounds", "x"], "argument --rounds: invalid int value: 'x'"),
        (["--config", "nowhere.yaml"], "no config at nowhere.yaml"),
        (["--config", "torn.yaml"], "torn.yaml, line 1: not yaml"),
        (["--config", "none.yaml"], "none.yaml has no energy with a chain"),
        (["--config", "typo.yaml"], "MLPEnergy has no setting 'widht': did you mean width?"),
        (["--config", "none.yaml", "--cases", "mlp b32"], "give one of the two"),
        (["--cases", "mlp b32", "--out", "none.yaml/speed.json"], "none.yaml is a file"),
        (["--cases", "mlp b32", "--out", "."], "--out . is a folder"),
    ],
)
def test_bad_words_are_one_line_before_anything_is_measured(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "measure", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.yaml").write_text("model: {")
    (tmp_path / "none.yaml").write_text("model: {class_path: VAE}\ndata: Digits\n")
    (tmp_path / "typo.yaml").write_text(POINTS.replace("width", "widht"))
    assert main(["speed", *words]) == 2
    said = capsys.readouterr().err
    assert line in said and said.startswith("ebmzoo: error: ") and said.count("\n") == 1


def test_a_training_iteration_is_the_plainly_written_one():
    """Folded kernels, constants baked and one joint forward change the loss and its gradient by rounding alone."""
    net, data = SMALL.energy().double(), torch.rand(3, 1, 8, 8).double()
    net.initialise(data)
    start = torch.randn(3, 1, 8, 8).double()
    plain = as_written(net)
    negatives = loop(plain, start, SMALL.sampler, backward=False)
    loss = plain(data).mean() - plain(negatives).mean()
    state = SMALL.sampler(net, start, noise=0).x
    energies = net(torch.cat([data, state])).chunk(2)
    own = energies[0].mean() - energies[1].mean()
    torch.testing.assert_close(own, loss, rtol=1e-10, atol=1e-12)
    loss.backward()
    own.backward()
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)
