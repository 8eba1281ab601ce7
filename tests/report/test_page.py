"""The page: everything inside it, and what it does in a real browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from ebmzoo.report.compare import compare
from ebmzoo.report.page import _curve, _roc_of, _rows, page
from ebmzoo.report.results import load

from .test_compare import finished

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ["Comparison", "Samples", "Quality and cost", "Training", "Energies", "Out-of-distribution data", "Chains"]
SECTIONS += ["Chains that run on", "Landscapes", "Protocols", "The runs"]


@pytest.fixture
def made(tmp_path):
    """The page of three runs that left all there is to draw; a's chains have 5 steps, b's none."""
    rng = np.random.default_rng(0)
    fids = {"a": 3.0, "b": 1.0, "c": 2.0}
    for name, fid in fids.items():
        folder = finished(
            tmp_path / name, name.upper(), fid=fid, recall=fid / 10, seconds_50_samples=fid, network_evaluations=16.0
        )
        head = "epoch,step,val/fid_2k,train/energy_gap,train/network_evaluations,time/steps_per_second"
        (folder / "metrics.csv").write_text(f"{head}\n0,10,5,,9000,\n0,15,,0.1,13500,4\n0,20,4,0.1,18000,2\n")
        for picture in ("samples", "chain", "long_run_curves"):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{picture}.png")
        places = rng.normal(size=(8, 8))
        states = np.linspace(0, 1, 6 if name == "a" else 1)[:, None, None] * np.ones((1, 4, 2))
        arrays = {"energy/test": rng.normal(size=50), "energy/samples": rng.normal(size=50)}
        arrays |= {
            "score/test": rng.normal(size=50),
            "score/train": rng.normal(size=50),
            "score/noise": rng.normal(size=50),
        }
        arrays |= {"plane/box": np.array([[0.0, 0.0], [1.0, 1.0]]), "plane/data": rng.uniform(size=(4, 2))}
        arrays |= {"plane/truth": places, "plane/model": places, "plane/chain": states}
        np.savez(folder / "arrays.npz", **arrays, **{"plane/steps": np.arange(len(states))})
    return page(compare(load([tmp_path])), "ebmzoo compare <runs>")


def test_the_page_has_all_sections_and_asks_nothing_of_a_network(made):
    assert re.findall("<h2>(.*?)</h2>", made) == SECTIONS
    assert "{{" not in made and len(made) < 5e6
    links = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']*)|url\(([^)]*)|@import""", made)
    assert links == [] and set(re.findall(r"https?://[^\"' ]*", made)) == {"http://www.w3.org/2000/svg"}
    assert "ebmzoo compare &lt;runs&gt;" in made


def test_every_figure_has_a_command_and_every_picture_a_text(made):
    figures = re.findall("<figure.*?</figure>", made, re.DOTALL)
    assert len(figures) == 3 + 1 + 4 + 3 + 1 + 3 + 3 + 4
    assert all("<pre>ebmzoo" in figure and "<figcaption>" in figure for figure in figures)
    assert all(' alt="' in image for image in re.findall("<img.*?>", made))
    assert all("aria-" in svg for svg in re.findall("<svg.*?>", made))


def test_the_distance_is_drawn_over_iterations_and_over_what_they_cost(made):
    drawn = re.findall('aria-label="([^"]*)"', made)
    what = ("iteration", "seconds of training", "network evaluations")
    over = [f"val/fid_2k (digits) (log scale) over {x}: a, b, c" for x in what]
    assert [one for one in drawn if one.startswith("val/fid_2k")] == over
    assert _curve([{"x": 1.0, "y": 5.0}, {"y": 3.0}, {"x": 2.0, "y": 4.0}], "x", "y") == ([1.0, 2.0], [5.0, 4.0])
    assert _curve([{"x": 1.0}], "x", "y") is None


def test_costs_are_set_against_the_quality_that_most_rows_share(tmp_path):
    for k, (name, n) in enumerate({"a": 500, "b": 500, "c": 200}.items()):
        made = finished(tmp_path / name, name.upper(), fid=3.0, fid_1k=7.0, network_evaluations=2.0 + k)
        path = made / "results.json"
        found = json.loads(path.read_text())
        found["results"][0]["protocol"] |= {"n": n}
        path.write_text(json.dumps(found))
    drawn = re.findall('aria-label="([^"]*)"', page(compare(load([tmp_path]), separate=True), "again"))
    assert "FID of 1,000 (digits) over network evaluations for a sample (log scale): a, b, c" in drawn


def test_sections_without_material_are_left_out(tmp_path):
    finished(tmp_path / "a", fid=1.0)
    assert re.findall("<h2>(.*?)</h2>", page(compare(load([tmp_path])), "again")) == [
        "Comparison",
        "Protocols",
        "The runs",
    ]


def test_names_of_runs_are_text_and_no_markup(tmp_path):
    finished(tmp_path / "<b>&amp;", fid=1.0)
    text = page(compare(load([tmp_path])), "again")
    assert html.escape("<b>&amp;") in text and "<b>&amp;</" not in text


def test_a_roc_curve_starts_and_ends_in_its_corners_and_parts_what_is_apart():
    false, true = _roc_of(np.arange(10.0, 20.0), np.arange(0.0, 10.0))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert max(t for f, t in zip(false, true, strict=True) if f == 0) == 1.0


def test_what_is_looked_for_first_stands_first_and_a_collapsed_row_has_its_mark(tmp_path):
    finished(tmp_path / "a", fid=2.0, kid=0.5, precision=1.0, recall=0.0, seconds_50_samples=0.000339)
    finished(tmp_path / "b", "ECVAE", fid=3.0, kid=0.6, precision=0.5, recall=0.5, seconds_50_samples=0.5)
    text = page(compare(load([tmp_path])), "again")
    first, further = re.findall("<table.*?</table>", text, re.DOTALL)
    names = [re.findall("<button[^>]*>(.*?)</button>", one) for one in (first, further)]
    assert names[0][:3] == ["run", "FID (digits) ↓", "precision ↑"]
    assert names[0][3:] == ["recall ↑", "time for 50 samples ↓", "seeds", "iterations", "sampler"]
    assert names[1] == ["run", "KID (digits) ↓"] and "<summary>1 further column</summary>" in text
    assert ">a <small>collapsed</small></th>" in first and ">0.339 ms</td>" in first and ">500 ms</td>" in first
    assert 'class="best"' not in first  # nothing to compare b with
    assert text.index("<h2>Comparison") < text.index("<h2>Protocols")


# What the page does, reported by a script in it to the page around it, which is as wide as a phone.
_WATCH = """<script>
const wrong = [];
addEventListener("error", event => wrong.push(String(event.message)));
console.error = (...words) => wrong.push(words.join(" "));
</script>"""


_TRY = """<script>
addEventListener("load", () => {
  const rows = () => [...document.querySelector("table.sorts").tBodies[0].rows].map(row => row.cells[0].textContent);
  const dots = () => [...document.querySelectorAll('[data-chain="a"] circle')].map(dot => dot.getAttribute("cx"));
  const fid = [...document.querySelectorAll("th button")].find(button => button.textContent.startsWith("FID"));
  const slider = document.getElementById("along"), seen = { orders: [rows()], dots: [dots()], sorts: [] };
  for (const _ of [0, 1]) {
    fid.click();
    seen.orders.push(rows());
    seen.sorts.push(fid.parentElement.getAttribute("aria-sort"));
  }
  slider.value = 0;
  slider.dispatchEvent(new Event("input"));
  seen.dots.push(dots());
  seen.step = document.querySelector('[data-chain="a"]').parentElement.querySelector(".step").textContent;
  seen.wide = document.documentElement.scrollWidth;
  seen.broken = [...document.images].filter(image => image.complete && !image.naturalWidth).length;
  seen.empty = [...document.querySelectorAll("svg")].filter(svg => !svg.children.length).length;
  parent.postMessage(JSON.stringify({ ...seen, wrong }), "*");
});
</script></body>"""


_AROUND = """<iframe src="inner.html" width="390" height="800"></iframe><pre id="said"></pre>
<script>addEventListener("message", event => { document.getElementById("said").textContent = event.data; });</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_in_a_browser_it_loads_sorts_slides_and_fits_a_phone(made, tmp_path):
    inner = made.replace("<head>", "<head>" + _WATCH).replace("</body>", _TRY)
    (tmp_path / "inner.html").write_text(inner)
    (tmp_path / "around.html").write_text(_AROUND)
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    command = [CHROMIUM, "--headless", "--no-sandbox", *quiet.split(), "--disable-sync", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", (tmp_path / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search('<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    seen = json.loads(html.unescape(said[1]))
    assert seen["wrong"] == [] and seen["broken"] == 0 and seen["empty"] == 0
    assert seen["orders"] == [["a", "b", "c"], ["b", "c", "a"], ["a", "c", "b"]]
    assert seen["sorts"] == ["ascending", "descending"]
    assert seen["dots"] == [["1000"] * 4, ["0"] * 4] and seen["step"] == "step 0 of 5"
    assert seen["wide"] <= 390


def test_curves_of_a_file_that_was_cut_short(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,a\n0,10,0.5\n0,20,\n0,30,2.0e-\n1\n0,40,0.25,7\n1,11")
    assert [{name: row[name] for name in row if name} for row in _rows(path)] == [
        {"epoch": 0, "step": 10, "a": 0.5},
        {"epoch": 0, "step": 20},
        {"epoch": 0, "step": 30},
        {"epoch": 1},
        {"epoch": 0, "step": 40, "a": 0.25},
    ]


def test_seconds_are_those_of_the_iterations_without_validations(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,val/fid_2k,time/steps_per_second\n9,,5\n14,7,\n19,,2\n19,6,\n29,5,\n")
    # ten iterations at 5 a second, ten at 2; what came after the last speed took no known time
    assert _curve(_rows(path), "seconds", "val/fid_2k") == ([4.5, 7.0, 7.0], [7.0, 6.0, 5.0])
