"""`make setup` installs the lock, which pins what pyproject.toml asks for; so does the image."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from subprocess import check_output

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_every_requirement_is_pinned_within_its_range_with_hashes():
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[\w.-]+==)", lock)
    versions = {
        entry.partition("==")[0].lower(): entry.split("==")[1].split()[0] for entry in entries
    }
    assert all("--hash=sha256:" in entry for entry in entries)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    for requirement in map(Requirement, wanted):
        version = versions[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_image_has_every_tracked_file():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line.rstrip("/") for line in lines if line and line[0] != "#"]
    for path in check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        assert not any(fnmatch(path, name) or fnmatch(path, f"{name}/*") for name in ignored)


def test_without_a_network_it_says_what_to_do(tmp_path):
    """At a path with a space."""
    clone = tmp_path / "a clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    uv = clone / ".venv" / "bin" / "uv"
    for text, code, says in (
        ("echo 'error: Failed to fetch' >&2; exit 1", 2, "run make setup again"),
        ("exit 0", 0, "activate"),
    ):
        uv.write_text(f"#!/bin/sh\n{text}\n")
        uv.chmod(0o755)
        words = ["make", "--no-print-directory", "setup", f"PYTHON={sys.executable}"]
        done = subprocess.run(words, cwd=clone, env=os.environ, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert says in done.stdout.splitlines()[-1]
