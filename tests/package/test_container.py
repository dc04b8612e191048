"""The Dockerfile copies every tracked file, and `make setup` installs the lock."""

import re
from fnmatch import fnmatch
from pathlib import Path
from subprocess import check_output

ROOT = Path(__file__).parents[2]


def test_setup_installs_the_lock_by_its_hashes():
    [line] = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "uv pip sync" in line
    ]
    assert "--require-hashes requirements.lock" in line


def test_every_tracked_file_is_copied():
    assert re.findall(r"^COPY (.*)$", (ROOT / "Dockerfile").read_text(), re.M) == [". /opt/mgm"]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    tracked = check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    assert not [
        path
        for path in tracked
        for pattern in ignored
        if fnmatch(path, pattern.rstrip("/")) or fnmatch(path, f"{pattern}/*")
    ]
