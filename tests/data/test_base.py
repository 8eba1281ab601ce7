"""Every data module as users reach it: by class name from a command line, and by its names and splits."""

from __future__ import annotations

import inspect

import pytest
from jsonargparse import ArgumentError, ArgumentParser

import ebmzoo.data
from ebmzoo.data import DataModule
from ebmzoo.lazy import names

CLASSES = {name: value for name in names("data") if inspect.isclass(value := getattr(ebmzoo.data, name))}
MODULES = [name for name, value in CLASSES.items() if issubclass(value, DataModule) and value is not DataModule]
NEEDED = {"ImageFolder": ["--data.size=32"]}
BUILT_IN = ("Digits", "Gaussians25", "Glyphs", "StackedDigits", "Toy2D")


def parse(*arguments: str):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    return parser.instantiate(parser.parse_args(list(arguments))).data


def test_the_list_is_complete():
    assert {"CIFAR10", "CelebA", "CelebAHQ", "ImageFolder", "MNIST", "StackedMNIST", "SVHN"} <= set(MODULES)
    assert set(BUILT_IN) <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_reached_by_its_name_with_the_shared_settings(name, tmp_path):
    own = NEEDED.get(name, [])
    if "root" in inspect.signature(getattr(ebmzoo.data, name)).parameters:
        own = [f"--data.root={tmp_path}", *own]
    data = parse(f"--data={name}", *own, "--data.batch_size=7", "--data.num_workers=2", "--data.seed=3")
    assert type(data).__name__ == name
    assert (data.batch_size, data.num_workers, data.seed) == (7, 2, 3)
    assert data.name and data.name == data.name.lower() and " " not in data.name
    assert data.kind == ("points" if data.image_shape == (2,) else "images")
    assert data.image_shape[0] in (1, 3) or data.kind == "points"
    assert data.reference_name("train") == f"{data.name} train"
    for wrong in ("--data.batch_size=many", "--data.batchsize=7"):
        with pytest.raises(ArgumentError):
            parse(f"--data={name}", *own, wrong)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in BUILT_IN])
def test_missing_files_are_one_line_that_names_the_place(name, tmp_path):
    place = tmp_path / "nowhere"
    data = parse(f"--data={name}", f"--data.root={place}", *NEEDED.get(name, []))
    data.prepare_data()  # downloads nothing unless asked
    with pytest.raises(FileNotFoundError) as caught:
        data.setup("fit")
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)
    assert not place.exists()


@pytest.mark.parametrize("name", [name for name in MODULES if name not in BUILT_IN])
def test_a_file_in_the_place_of_the_folder_is_called_one(name, tmp_path):
    place = tmp_path / "images.zip"
    place.write_bytes(b"PK")
    needed = [f"--data={name}", f"--data.root={place}", *NEEDED.get(name, [])]
    for split in ("train", "test"):
        with pytest.raises(FileNotFoundError, match=f"{place} is a file, a folder is needed") as caught:
            parse(*needed).reference(split)
        assert "\n" not in str(caught.value)
    if "download" in inspect.signature(getattr(ebmzoo.data, name)).parameters:
        with pytest.raises(FileNotFoundError, match=f"{place}: it is a file, a folder is needed"):
            parse(*needed, "--data.download=true").prepare_data()


def test_a_crop_comes_from_the_command_line(tmp_path):
    data = parse("--data=CelebA", f"--data.root={tmp_path}", "--data.crop=[9, 29, 169, 189]")
    assert data.crop == (9, 29, 169, 189)
