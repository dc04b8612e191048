"""The lock, pyproject.toml and the conda environment name the same versions."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pinned() -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.M):
        versions.setdefault(name.lower().replace("_", "-"), set()).add(version)
    return versions


def test_every_requirement_is_pinned_within_its_range():
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    for text in wanted:
        requirement = Requirement(text)
        versions = pinned()[requirement.name.lower().replace("_", "-")]
        assert all(
            requirement.specifier.contains(version, prereleases=True) for version in versions
        ), text


def test_every_pin_has_hashes_and_no_address():
    assert "://" not in LOCK
    entries = re.split(r"\n(?=[\w.-]+==)", LOCK)
    assert len(entries) > 150
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_conda_installs_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, *rest = environment["dependencies"]
    assert rest == [
        {"pip": ["--require-hashes", "-r requirements.lock"]}
    ]  # the lock itself, so no version can differ
    assert pip == "pip"
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(
        python.removeprefix("python=") + ".0"
    )
