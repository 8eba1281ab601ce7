"""The files that install and check the package agree with each other."""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import ebmzoo

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]
PINS = {
    canonicalize_name(line.partition("==")[0]): line.strip().partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def test_version():
    assert PROJECT["version"] == ebmzoo.__version__


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_requirement_has_a_pin_within_its_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier
    assert str(requirement.specifier)


def test_what_the_requirements_require_is_pinned_too():
    """Only what torch requires for one platform is left to torch."""
    seen, waiting = set(), [requirement for requirement in REQUIREMENTS]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add((name, *requirement.extras))
        assert name in PINS, f"{name} is not pinned"
        try:
            lines = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:  # of an extra that `make venv` leaves out
            continue
        for line in lines:
            inner = Requirement(line)
            extras = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    assert len(seen) > 50


def test_torch_and_torchvision_are_pinned_as_a_pair():
    """Their minor versions go up together, 15 apart: another torch beside it and torchvision does not import."""
    torch_minor, torchvision_minor = (int(PINS[name].split(".")[1]) for name in ("torch", "torchvision"))
    assert torchvision_minor - torch_minor == 15


def test_no_absolute_paths_and_no_registry_addresses():
    files = ["pyproject.toml", "constraints.txt", "Makefile", ".gitignore", ".ci/run", "README.md"]
    files += [path.relative_to(ROOT) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    for name in files:
        text = (ROOT / name).read_text()
        assert not re.search(r"(?<![\w.}/])/(home|root|work|opt|usr/local|tmp|Users)/", text), name
        assert not re.search(r"index-url|find-links|https?://\S*(pypi|simple)", text), name


def test_ci_runs_the_tests_from_any_folder(tmp_path):
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    # A make that says what it was asked for, and where.
    (tmp_path / "make").write_text('#!/bin/sh\necho "$PWD: make $@"\n')
    (tmp_path / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{ROOT}: make test test-thorough\n"


def test_what_a_package_index_shows_leads_nowhere_else():
    """There the repository's links and pictures are dead, and its code has been run as the README's."""
    text, readme = (ROOT / PROJECT["readme"]).read_text(), (ROOT / "README.md").read_text()
    assert not re.search(r"\]\(|]:|<\w|://|docs/|\.md\b", text)
    blocks = re.findall(r"```(?:sh|python)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    assert {line for block in blocks for line in block.splitlines()} <= set(readme.splitlines())


def test_classifiers_say_what_is_so():
    classifiers = PROJECT["classifiers"]
    assert len(set(classifiers)) == len(classifiers)
    versions = [line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert versions and all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)
    assert ("Typing :: Typed" in classifiers) == (ROOT / "ebmzoo" / "py.typed").is_file()


def test_the_classifiers_ship():
    names = sorted((ROOT / "ebmzoo" / "metrics" / "weights").glob("*.safetensors"))
    assert [name.stem for name in names] == ["cifar10", "digits"]
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert all(any(name.match(pattern) for pattern in package_data["ebmzoo.metrics"]) for name in names)


def test_what_is_cited_is_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == PROJECT["version"] and cited["license"] == PROJECT["license"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_contributors_are_told_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:ebmzoo|tests|docs)/[\w/.]+)`|\]\(([\w/.]+)\)", text)
    paths = [one or other for one, other in named if "NAME" not in one + other]
    assert len(paths) >= 10 and [path for path in paths if not (ROOT / path).exists()] == []
    targets = re.findall(r"^make ([\w-]+)", text, re.MULTILINE)
    rules = (ROOT / "Makefile").read_text()
    assert len(targets) == 4 and all(f"\n{target}: " in rules for target in targets)
