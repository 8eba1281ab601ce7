"""The verb that times chains: what it writes, and what it refuses."""

import json

import pytest

from ebmzoo.cli.main import main
from ebmzoo.report import speed

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
