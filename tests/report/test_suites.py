"""Suites are found by the names of their configs, and brought to one budget."""

import json
from pathlib import Path

import pytest
import yaml

from ebmzoo.report import suites
from ebmzoo.report.commands import Commands
from ebmzoo.report.suites import find, plan, same_networks, scaled, small

CONFIGS = Path(__file__).parents[2] / "configs"
FIVE = {"ecvae", "vaebm", "denoising_ebm", "dual_mcmc", "bidvl"}


@pytest.fixture
def counted(monkeypatch):
    """An iteration costs 10 evaluations and 0.5 s, whatever the method."""
    asked = []
    monkeypatch.setattr(suites, "_doctor", lambda config, commands: asked.append(config) or 10.0)
    monkeypatch.setattr(suites, "_seconds", lambda config, commands: 0.5)
    return asked


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_suite_has_the_five_methods_with_one_config_each(suite):
    found = find(suite, None, CONFIGS)
    assert set(found) >= FIVE
    classes = [yaml.safe_load(path.read_text())["model"]["class_path"] for path in found.values()]
    assert len(set(classes)) == len(classes)


def test_a_sixth_method_appears_by_its_config_alone_and_variants_by_their_name(tmp_path):
    for name in ("vae", "ecvae", "ecvae_prior"):
        (tmp_path / f"{name}_digits.yaml").write_text((CONFIGS / f"{name}_digits.yaml").read_text())
    text = (CONFIGS / "vae_digits.yaml").read_text().replace("class_path: VAE", "class_path: mine.Sixth")
    (tmp_path / "sixth_digits.yaml").write_text(text)
    (tmp_path / "vae_stacked_digits.yaml").write_text(text.replace("class_path: Digits", "class_path: StackedDigits"))
    assert list(find("digits", None, tmp_path)) == ["ecvae", "sixth", "vae"]
    assert list(find("digits", ["ecvae_prior"], tmp_path)) == ["ecvae_prior"]
    with pytest.raises(ValueError, match=r"no method 'sixht' in suite digits: did you mean sixth\?"):
        find("digits", ["sixht"], tmp_path)
    with pytest.raises(ValueError, match=r"no configs \*_cifar.yaml in"):
        find("cifar10", None, tmp_path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*_digits.yaml")), ids=lambda path: path.stem)
def test_a_stretched_config_stretches_all_that_counts_iterations_and_nothing_else(path):
    config = yaml.safe_load(path.read_text())
    steps = config["trainer"]["max_steps"]
    assert scaled(config, steps) == config
    half = scaled(config, steps // 2)

    def differ(a, b, where=()):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            return [one for key in a for one in differ(a[key], b[key], (*where, key))]
        if isinstance(a, list):
            return [one for x, y in zip(a, b, strict=True) for one in differ(x, y, where)]
        return [] if a == b else [(where[-1], a, b)]

    changed = differ(config, half)
    assert ("max_steps", steps, steps // 2) in changed
    assert all(b == max(1, round(a / 2)) for _, a, b in changed)
    assert {name for name, *_ in changed} <= suites._ITERATIONS | {"max_steps"}


def test_the_same_networks_are_the_references_and_a_methods_need_stays():
    ours, theirs = (yaml.safe_load((CONFIGS / f"{name}_digits.yaml").read_text()) for name in ("bidvl", "ecvae"))
    theirs["model"]["init_args"]["vae"]["init_args"]["latent_dim"] = 5
    theirs["data"]["init_args"]["batch_size"] = 7
    found = same_networks(ours, theirs)
    model = found["model"]["init_args"]
    reference = theirs["model"]["init_args"]["vae"]["init_args"]
    assert model["encoder"]["init_args"]["depth"] == reference["encoder"]["init_args"]["depth"] == 3
    assert ours["model"]["init_args"]["encoder"]["init_args"]["depth"] == 2  # the original is left alone
    assert model["energy"]["init_args"]["network"]["init_args"]["spectral_norm"] is True
    assert (model["latent_dim"], found["data"]["init_args"]["batch_size"]) == (5, 7)
    nested = same_networks(yaml.safe_load((CONFIGS / "vaebm_digits.yaml").read_text()), theirs)
    assert nested["model"]["init_args"]["vae"]["init_args"]["latent_dim"] == 5


@pytest.mark.parametrize(
    ("budget", "amount", "expected"),
    [
        (None, None, 8000),
        ("iterations", 300, 300),
        ("iterations", None, 4000),
        ("network-evaluations", 5000, 500),
        ("network-evaluations", None, 4000),
        ("seconds", 60, 120),
    ],
)
def test_a_budget_becomes_iterations(tmp_path, counted, budget, amount, expected):
    configs = {"vae": CONFIGS / "vae_digits.yaml"}
    found = plan("digits", configs, tmp_path, budget, amount, "paper", Commands())["vae"]
    assert (found.iterations, found.evaluations) == (expected, expected * 10)
    used = yaml.safe_load(Path(found.config).read_text())
    assert used["trainer"]["max_steps"] == expected
    assert used["model"]["init_args"]["schedule"]["init_args"]["T_max"] == expected
    assert (found.config == str(configs["vae"])) == (budget is None)


def test_stages_count_by_their_share_of_the_training(tmp_path, counted):
    vaebm = yaml.safe_load((CONFIGS / "vaebm_digits.yaml").read_text())  # 8,000 of 11,000 are the VAE, at 4
    assert suites._cost(vaebm, Commands()) == pytest.approx((8 * 4 + 3 * 10) / 11)


def test_chains_of_some_iterations_count_by_their_share(monkeypatch):
    config = yaml.safe_load(
        (CONFIGS / "denoising_ebm_digits.yaml").read_text()
    )  # 3,360 with chains in a third from 3,000
    monkeypatch.setattr(
        suites,
        "_doctor",
        lambda config, commands: 106.0 if config["model"]["init_args"]["contrast_every"] == 1 else 6.0,
    )
    assert suites._cost(config, Commands()) == pytest.approx(6 + 100 * 360 / 3360 / 3)


def test_a_plan_is_made_once(tmp_path, counted):
    configs = {"vae": CONFIGS / "vae_digits.yaml"}
    first = plan("digits", configs, tmp_path, "seconds", 60, "same", Commands())
    counted.clear()
    assert plan("digits", configs, tmp_path, "seconds", 60, "same", Commands()) == first and not counted
    assert json.loads((tmp_path / "plan.json").read_text())["amount"] == 60
    with pytest.raises(ValueError, match=r"has runs under asked 60, not asked 70: choose another folder with --out"):
        plan("digits", configs, tmp_path, "seconds", 70, "same", Commands())


def test_a_plan_is_of_one_suite_and_one_folder_of_configs(tmp_path, counted):
    out, toy = tmp_path / "out", {"vae": CONFIGS / "vae_gaussians25.yaml"}
    plan("digits", {"vae": CONFIGS / "vae_digits.yaml"}, out, "iterations", 30, "paper", Commands())
    with pytest.raises(ValueError, match="has runs under suite digits, not suite toy: choose"):
        plan("toy", toy, out, "iterations", 30, "paper", Commands())
    (tmp_path / "vae_digits.yaml").write_text((CONFIGS / "vae_digits.yaml").read_text())
    with pytest.raises(ValueError, match=f"has runs under configs {CONFIGS}, not configs {tmp_path}: choose"):
        plan("digits", {"vae": tmp_path / "vae_digits.yaml"}, out, "iterations", 30, "paper", Commands())


def test_a_plan_that_was_cut_off_is_named_with_what_to_do(tmp_path, counted):
    configs = {"vae": CONFIGS / "vae_digits.yaml"}
    (tmp_path / "plan.json").write_text('{"vae": {"config"')
    with pytest.raises(ValueError, match=r"plan.json is cut off or not ours: delete it, and give the same command"):
        plan("digits", configs, tmp_path, None, None, "paper", Commands())


def test_the_reference_is_needed_only_by_a_plan_that_takes_something_of_it(tmp_path, counted):
    (tmp_path / "vae_digits.yaml").write_text((CONFIGS / "vae_digits.yaml").read_text())
    configs = {"vae": tmp_path / "vae_digits.yaml"}
    assert plan("digits", configs, tmp_path / "a", "iterations", 7, "paper", Commands())["vae"].iterations == 7
    with pytest.raises(ValueError, match="no method 'ecvae' in suite digits"):
        plan("digits", configs, tmp_path / "b", "iterations", 7, "same", Commands())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*digits.yaml")), ids=lambda path: path.stem)
def test_a_quick_config_measures_few_and_monitors_what_it_measures(path):
    config = yaml.safe_load(path.read_text())
    callbacks = {one["class_path"]: one["init_args"] for one in small(config, 500)["trainer"]["callbacks"]}
    evaluate = callbacks["Evaluate"]
    assert (evaluate["n_test"], evaluate["batch_size"]) == (500, 500)
    assert evaluate["figures"] == {name: {"n": 500} for name in ("bounds", "ood", "energies")}
    assert evaluate["n_val"] == (0 if path.stem == "denoising_ebm_digits" else 500)
    assert callbacks.get("ModelCheckpoint", {"monitor": "val/fid_500"})["monitor"] == "val/fid_500"
    assert config == yaml.safe_load(path.read_text())  # the original is left alone


def test_quick_runs_and_full_ones_are_never_mixed(tmp_path, counted):
    configs = {"vae": CONFIGS / "vae_digits.yaml"}
    quick = plan("digits", configs, tmp_path, "iterations", 300, "paper", Commands(), quick=True)
    used = yaml.safe_load(Path(quick["vae"].config).read_text())
    assert used["trainer"]["max_steps"] == 300
    assert (
        used["trainer"]["callbacks"][1]["init_args"] | {"n_test": 500} == used["trainer"]["callbacks"][1]["init_args"]
    )
    assert [one.name for one in suites.experiments(quick, "digits", [0], quick=True)] == ["vae_digits_quick"]
    with pytest.raises(ValueError, match="has runs under quick True, not quick False: choose another folder"):
        plan("digits", configs, tmp_path, "iterations", 300, "paper", Commands())


def test_a_configs_data_take_the_place_of_the_suites(tmp_path, counted):
    (tmp_path / "mine.yaml").write_text("data: {class_path: ImageFolder, init_args: {root: mine, size: 32, flip: 0.0}}")
    configs, mine = {"vae": CONFIGS / "vae_cifar_small.yaml"}, tmp_path / "mine.yaml"
    found = plan("images32", configs, tmp_path / "out", None, None, "paper", Commands(), data=mine)["vae"]
    used, own = (yaml.safe_load(Path(path).read_text()) for path in (found.config, configs["vae"]))
    data = {"class_path": "ImageFolder", "init_args": {"root": "mine", "size": 32, "flip": 0.5, "batch_size": 32}}
    assert used == {**own, "data": data}
    with pytest.raises(ValueError, match=r"has runs under data .*mine.yaml, not data None: choose another folder"):
        plan("images32", configs, tmp_path / "out", None, None, "paper", Commands())
    (tmp_path / "none.yaml").write_text("trainer: {}")
    with pytest.raises(ValueError, match="none.yaml has no data"):
        suites.on_data(own, tmp_path / "none.yaml")
