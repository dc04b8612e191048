"""The Dockerfile copies every tracked file, and its steps make a working environment."""

import json
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from subprocess import check_output

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = (ROOT / "Dockerfile").read_text().replace("\\\n", "")


def test_setup_installs_the_lock_by_its_hashes():
    [line] = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "uv pip sync" in line
    ]
    assert "--require-hashes requirements.lock" in line


def test_every_tracked_file_is_copied():
    assert re.findall(r"^COPY (.*)$", DOCKER, re.M) == [". /opt/mgm"]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    tracked = check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    assert not [
        path
        for path in tracked
        for pattern in ignored
        if fnmatch(path, pattern.rstrip("/")) or fnmatch(path, f"{pattern}/*")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_images_steps_run_as_a_script(tmp_path):
    """A folder is in place of the image. Debian's packages are those of this machine."""
    image, home = tmp_path / "image", tmp_path / "home"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(image)], check=True)
    home.mkdir()
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")
    } | {"HOME": str(home), "UV_CACHE_DIR": cache, "GIT_CONFIG_SYSTEM": str(home / "gitconfig")}
    packages, setup = re.findall(r"^RUN (.*)$", DOCKER, re.M)
    assert "apt-get install" in packages
    (path,) = re.findall(r"^ENV PATH=(.*)$", DOCKER, re.M)
    (command,) = re.findall(r"^CMD (.*)$", DOCKER, re.M)

    def run(script: str) -> str:
        script = script.replace("/opt/mgm", str(image)).replace("/root", str(home))
        done = subprocess.run(
            ["sh", "-c", script], cwd=image, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(setup)
    assert "reproduce" in run(f"PATH={path}; {' '.join(json.loads(command))}")
    assert run(f"PATH={path}; mgm --version").startswith("mgm ")
