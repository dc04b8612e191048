"""Dockerfile and apptainer.def agree and install the lock.

They are parsed, not built: a build needs a registry of images and six gigabytes.
"""

import re
from fnmatch import fnmatch
from pathlib import Path
from subprocess import check_output

ROOT = Path(__file__).parents[2]
DOCKER, APPTAINER = (ROOT / "Dockerfile").read_text(), (ROOT / "apptainer.def").read_text()


def only_match(pattern: str, text: str) -> str:
    (match,) = re.findall(pattern, text, re.MULTILINE)
    return match


def test_both_start_from_one_base_and_install_the_same():
    assert only_match(r"^FROM (\S+)$", DOCKER) == only_match(r"^From: (\S+)$", APPTAINER)
    for pattern in (
        r"apt-get install (.*?)(?: \\)?$",
        r"(git config .* && make setup && .*)$",
        r"PATH=(\S+)",
    ):
        assert only_match(pattern, DOCKER) == only_match(pattern, APPTAINER)


def test_setup_installs_the_lock_by_its_hashes():
    [line] = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "uv pip sync" in line
    ]
    assert "--require-hashes requirements.lock" in line


def test_every_tracked_file_is_copied_and_the_image_is_the_one_that_jobs_ask_for():
    assert only_match(r"^COPY (.*)$", DOCKER) == ". /opt/mgm"
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    tracked = check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    assert not [
        path
        for path in tracked
        for pattern in ignored
        if fnmatch(path, pattern.rstrip("/")) or fnmatch(path, f"{pattern}/*")
    ]
    image = only_match(r'^container: "(\S+)"', (ROOT / "workflow" / "Snakefile").read_text())
    assert f"apptainer build {image} apptainer.def" in APPTAINER
