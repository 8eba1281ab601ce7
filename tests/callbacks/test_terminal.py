"""The table of an evaluation, as the terminal shows it."""

import pytest

from ebmzoo.callbacks.terminal import show
from ebmzoo.metrics import Protocol, Results

ABOUT = {"method": "ECVAE", "weights": "raw", "skipped": ["AIS: it has no [density]"]}
NONE = dict.fromkeys(("sampler", "steps", "step_size", "temperature", "seed"))


@pytest.mark.parametrize(
    ("sampler", "title"),
    [(("Langevin", 15), "15 steps of Langevin"), (("none", 0), "one-step samples"), ((None, 0), "samples")],
)
def test_a_line_for_each_number_and_each_part_that_is_left_out(tmp_path, capsys, monkeypatch, sampler, title):
    monkeypatch.setenv("COLUMNS", "100")
    results = Results(tmp_path / "results.json")
    own = Protocol(n=5000, ema=False, **NONE)
    against = Protocol(n=5000, ema=False, reference="digits train", n_reference=1500, extractor="digits", **NONE)
    for name, value, protocol in (
        ("fid", 4.68123, against),
        ("elbo_nats", float("nan"), own),
        ("class_share_3", 0.1, own),
        ("class_share_min", 0.05, own),
    ):
        results.add(name, value, protocol)
    show(results, ABOUT, dict(zip(("sampler", "steps"), sampler, strict=True)), [1, 4], tmp_path / "results.json")
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert cells == [
        ["fid", "4.681", "5,000", "digits train (1,500), digits"],
        ["elbo_nats", "not finite", "5,000", ""],
        ["class_share_min", "0.05", "5,000", ""],
    ]
    assert said.splitlines()[0].strip() == f"ECVAE, raw weights, {title}"
    assert f"skipped AIS: it has no [density]\neach number with its protocol: {tmp_path}/results.json\n" in said
