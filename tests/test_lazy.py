"""Rooms load what is used: a training imports its own method, and names lead where they always led."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import yaml

import ebmzoo
from ebmzoo.lazy import names

ROOT = Path(ebmzoo.__file__).parent.parent
ROOMS = ["callbacks", "checkpoints", "data", "mcmc", "methods", "metrics", "networks", "tasks"]
#: modules of this package at the first training step of an EC-VAE; whoever can make it smaller does so
MODULES = 95


def python(code, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


LOADED = "import sys, json; loaded = lambda: sorted(m for m in sys.modules if m.partition('.')[0] == 'ebmzoo')\n"


def test_the_package_and_its_rooms_cost_nothing():
    rooms = ", ".join(f"ebmzoo.{room}" for room in ROOMS)
    found = python(f"{LOADED}import {rooms}\nprint(json.dumps([loaded(), 'torch' in sys.modules]))")
    assert found == [sorted(["ebmzoo", "ebmzoo.lazy", *(f"ebmzoo.{room}" for room in ROOMS)]), False]


def test_a_name_loads_its_own_file():
    found = python(f"{LOADED}from ebmzoo.methods import VAE\nprint(json.dumps(loaded()))")
    assert "ebmzoo.methods.vae" in found and "ebmzoo.methods.ecvae" not in found


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_is_there_and_no_other(room):
    module = getattr(__import__(f"ebmzoo.{room}"), room)
    assert names(room) == module.__all__ and len(names(room)) > 10
    for name in names(room):
        assert getattr(module, name) is not None and name in dir(module)
    with pytest.raises(AttributeError, match=f"module 'ebmzoo.{room}' has no attribute 'Nothing'"):
        _ = module.Nothing


def test_the_packages_own_names_are_its_rooms():
    assert {"ECVAE", "VAEBM", "Langevin", "Digits", "EMA", "load", "export"} <= set(ebmzoo.__all__) <= set(dir(ebmzoo))
    for name in set(ebmzoo.__all__) - {"load", "export", "Study", "study"}:
        (room,) = [room for room in ("callbacks", "data", "mcmc", "methods") if name in names(room)]
        assert getattr(ebmzoo, name) is getattr(getattr(ebmzoo, room), name)
    assert ebmzoo.load is ebmzoo.checkpoints.load
    with pytest.raises(AttributeError, match="module 'ebmzoo' has no attribute 'Nothing'"):
        _ = ebmzoo.Nothing


@pytest.mark.parametrize("first", ["the file", pytest.param("the function", marks=pytest.mark.thorough)])
def test_a_function_that_bears_its_files_name_is_the_function(first):
    lines = ["import ebmzoo.data.digits", "from ebmzoo.data import digits, mnist"]
    lines = "\n".join(lines if first == "the file" else lines[::-1])
    more = "from ebmzoo.data import digits, mnist\nimport ebmzoo\n"
    kinds = "[type(one).__name__ for one in (digits, mnist, ebmzoo.data.digits)]"
    assert python(f"import json\n{lines}\n{more}print(json.dumps({kinds}))") == [FunctionType.__name__] * 3


FIT = f"""{LOADED}
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as Loop
advance, seen = Loop.advance, []
def first(self, *rest):
    seen[:] = seen or loaded()
    return advance(self, *rest)
Loop.advance = first
from ebmzoo.cli.main import main
assert main(["fit", "--config", sys.argv[1], "--run_dir", sys.argv[2]]) == 0
print(json.dumps(seen))
"""


@pytest.mark.thorough
def test_a_training_imports_what_it_needs(tmp_path):
    rows = np.random.RandomState(0).randint(0, 256, (8, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps({"data": rows}))
    config = yaml.safe_load((ROOT / "configs" / "ecvae_cifar.yaml").read_text())
    few = {"max_steps": 1, "accelerator": "cpu", "limit_val_batches": 0, "val_check_interval": None}
    config["trainer"] |= few
    callbacks = {one["class_path"]: one["init_args"] for one in config["trainer"]["callbacks"]}
    callbacks["Evaluate"]["extractor"] = None
    callbacks["ModelCheckpoint"].clear()
    model = config["model"]["init_args"]
    networks = {**model["vae"]["init_args"], **model["energy"]["init_args"]}
    for part in ("encoder", "decoder", "network"):
        networks[part]["init_args"]["width"] = 8
    model["sampler"]["init_args"]["steps"] = 1
    config["data"]["init_args"] = {"root": str(tmp_path), "batch_size": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    found = python(FIT, tmp_path / "small.yaml", tmp_path / "run")
    others = {"methods.vaebm", "methods.wgan", "networks.flow", "networks.perceptual", "data.folders", "report"}
    assert not {f"ebmzoo.{name}" for name in others} & set(found)
    assert len(found) <= MODULES, found
