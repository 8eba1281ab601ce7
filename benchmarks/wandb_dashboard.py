"""A Weights & Biases workspace of the panels that all methods share: runs grouped by method, seeds averaged.

    python benchmarks/wandb_dashboard.py --entity ENTITY      # saves it into the project, and prints its address
    python benchmarks/wandb_dashboard.py --dry_run            # prints its panels: no account, no network
    python benchmarks/wandb_dashboard.py --draw FILE RUN...   # draws its curves from the metrics.csv of runs

It needs `pip install 'ebmzoo[wandb]'` and, to save, an account (`wandb login`). The same of runs on the disk, without
W&B: `ebmzoo compare RUN... --out FOLDER`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

SPENT, STEP = "train/network_evaluations", "trainer/global_step"

#: section to its curves: title, horizontal axis, keys; FID is the streaming one's key
CURVES: dict[str, list[tuple[str, str, list[str]]]] = {
    "Quality in training": [
        ("FID over network evaluations", SPENT, ["FID"]),
        ("FID over iterations", STEP, ["FID"]),
        ("Reconstruction error of validation data", STEP, ["val/mse"]),
    ],
    "Energies": [
        ("Energy gap, data against model", STEP, ["train/energy_gap"]),
        ("Energies of data and model", STEP, ["train/energy_data", "train/energy_model"]),
        ("Calibration weight λ", STEP, ["train/lambda"]),
    ],
    "Chain health": [
        ("How far chains go", STEP, ["mcmc/displacement"]),
        ("Gradient at their end", STEP, ["mcmc/grad_norm"]),
        ("Share of values at the border", STEP, ["mcmc/saturation"]),
    ],
}
RESULTS = ["test/fid", "test/network_evaluations", "test/seconds_50_samples"]
PICTURES = ["pictures/samples", "pictures/reconstructions", "pictures/chain", "pictures/energy_histogram"]


def workspace(entity: str, project: str, name: str, data: str | None, fid: str) -> Any:
    """The workspace, not saved yet.

    Args:
        entity: user or team.
        project: where the runs are.
        name: of the workspace.
        data: only runs with this tag, such as "Digits"; None takes all.
        fid: key of the streaming FID, which carries `Evaluate`'s ``n_val``.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    seeds: dict[str, Any] = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    panels = {
        heading: [
            wr.LinePlot(title=title, x=x, y=[fid if key == "FID" else key for key in keys], **seeds)
            for title, x, keys in curves
        ]
        for heading, curves in CURVES.items()
    }
    panels["Results of ebmzoo test"] = [wr.BarPlot(title=key, metrics=[key], **seeds) for key in RESULTS]
    panels["Pictures"] = [wr.MediaBrowser(title=key, media_keys=[key], num_columns=4) for key in PICTURES]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[ws.Section(name=heading, panels=found, is_open=True) for heading, found in panels.items()],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group")],
            filters=ws.And(ws.Tags().isin([data])) if data else "",
            pinned_columns=["run:displayName", "summary:test/fid", f"summary:{fid}.min", f"summary:{SPENT}"],
        ),
        auto_generate_panels=True,  # whatever else a method logs
    )


def curve(runs: Sequence[Path], x: str, key: str) -> dict[str, list[tuple[float, float, float, float]]]:
    """A panel's lines by method: place, and mean, least and largest value of its runs there.

    Args:
        runs: run folders, with config.yaml and metrics.csv, whose columns are W&B's keys.
        x: key of the horizontal axis.
        key: key of the vertical one.
    """
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        method = yaml.safe_load((run / "config.yaml").read_text())["model"]["class_path"].rpartition(".")[2]
        with (run / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                place, value = row.get("step" if x == STEP else x), row.get(key)
                if place and value:
                    found[method][float(place)].append(float(value))
    return {
        method: [(at, sum(values) / len(values), min(values), max(values)) for at, values in sorted(places.items())]
        for method, places in sorted(found.items())
    }


def draw(path: Path, runs: Sequence[Path], fid: str) -> None:
    """Write a picture of the workspace's curves, those that the runs have, drawn here and not by W&B."""
    from matplotlib.figure import Figure

    panels = []
    for title, x, keys in (panel for section in CURVES.values() for panel in section):
        lines = {key: curve(runs, x, fid if key == "FID" else key) for key in keys}
        if any(lines.values()):
            panels.append((title, x, lines))
    figure = Figure(figsize=(11, 2.6 * -(-len(panels) // 3)), dpi=80, layout="constrained")
    figure.suptitle(f"Curves of {len(runs)} runs on the disk, grouped by method: mean and range (not W&B's own page)")
    colours: dict[str, str] = {}
    for number, (title, x, lines) in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // 3), 3, number + 1)
        for style, (key, methods) in zip(("-", "--"), lines.items(), strict=False):
            for method, points in methods.items():
                at, mean, low, high = zip(*points, strict=True)
                colour = colours.setdefault(method, f"C{len(colours)}")
                label = f"{method} {key.rpartition('_')[2]}" if len(lines) > 1 else method
                axes.plot(at, mean, style, color=colour, label=label)
                axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(title, fontsize="small")
        axes.set_xlabel(x, fontsize="x-small")
        axes.tick_params(labelsize="x-small")
        axes.legend(fontsize="x-small")
    figure.savefig(path, format="png")
    with Image.open(path) as picture:  # with a palette it has a third of the size
        picture.convert("RGB").quantize(64).save(path, format="png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the workspace; save it, or say what it holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--entity", help="user or team that owns the project")
    parser.add_argument("--project", default="ebmzoo", help="where the runs are (%(default)s)")
    parser.add_argument("--name", default="ebmzoo: methods side by side", help="of the workspace (%(default)s)")
    parser.add_argument("--data", help="only runs on these data, by their class: Digits")
    parser.add_argument("--fid", default="val/fid_2k", help="key of the FID in validation (%(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="print the panels and save nothing: needs no account")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the curves of RUN... into a .png: no account")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders on the disk, for --draw")
    options = parser.parse_args(arguments)
    if bool(options.draw) != bool(options.runs):
        return refuse("--draw FILE and RUN... go together (--dry_run needs neither)")
    if options.draw:
        if missing := [run for run in options.runs if not (run / "metrics.csv").is_file()]:
            return refuse(f"{missing[0]} is no run of ebmzoo: it has no metrics.csv")
        draw(options.draw, options.runs, options.fid)
        return 0
    if not options.entity and not options.dry_run:
        return refuse("--entity is missing: the user or team that owns the project (--dry_run needs none)")
    try:
        import wandb

        made = workspace(options.entity or "ENTITY", options.project, options.name, options.data, options.fid)
    except ModuleNotFoundError as error:
        return refuse(f"{error.name} is missing: pip install 'ebmzoo[wandb]'")
    if options.dry_run:
        print(f"{made.name}, of {made.entity}/{made.project}, {options.data or 'all data'}, runs grouped by method")
        for section in made.sections:
            print(section.name)
            for panel in section.panels:
                print(f"  {described(panel)}")
        return 0
    try:
        made.save()
    except wandb.Error as error:
        return refuse(f"not saved: {error} (it needs an account and the network; --dry_run needs neither)")
    return 0


def described(panel: Any) -> str:
    """A panel in words: its title, and of a curve its keys."""
    return f"{panel.title}: {', '.join(panel.y)} over {panel.x}" if hasattr(panel, "y") else str(panel.title)


def refuse(why: str) -> int:
    """Say why nothing was done; the exit code of a user's mistake."""
    print(f"wandb_dashboard: error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
