"""The wheel, installed into empty environments: the base, what training needs, and the suite."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import mgm
from mgm.errors import EXTRAS
from mgm.video.vectors import write_vectors
from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[2]
LIBRARY = ("data", "masking", "models", "training", "video")
IMPORT_ALL = """
import importlib, json, pkgutil, mgm
missing = {}
for module in pkgutil.walk_packages(mgm.__path__, "mgm."):
    try:
        module.name.endswith("__main__") or importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing[module.name] = error.name.partition(".")[0]
print(json.dumps(missing))
"""
ABSENT = """
import time
start = time.process_time()
import mgm
assert time.process_time() - start < 0.1
from importlib.util import find_spec
assert "site-packages" in mgm.__file__
assert not [name for name in ("snakemake", "mlflow", "timm", "seaborn", *GONE) if find_spec(name)]
"""


class Environment:
    """Virtual environment with only the packages of `install`, at the lock's versions."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder, self.wheel = folder, wheel
        folder.mkdir(exist_ok=True)
        self.run(sys.executable, "-m", "uv", "venv", "--quiet", str(folder / "env"))

    def install(self, extra: str = "", *others: str) -> None:
        lock = str(ROOT / "requirements.lock")
        where = ("--python", str(self.folder / "env"), "--constraint", lock)
        wanted = (f"{self.wheel}{extra}", *others)
        self.run(sys.executable, "-m", "uv", "pip", "install", "--quiet", *where, *wanted)

    def run(
        self, *words: str, cwd: Path | None = None, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("MGM_CI", "PYTHONPATH", "VIRTUAL_ENV")
        }
        environment["PATH"] = f"{self.folder / 'env' / 'bin'}:{environment['PATH']}"
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("mgm_video-*.whl")
    return wheel


@pytest.fixture(scope="module")
def library(wheel, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("library"), wheel)
    environment.install("[train]")
    return environment


@pytest.mark.slow
def test_the_base_reads_vectors_and_draws_masks_without_torch(wheel, tmp_path):
    environment = Environment(tmp_path / "base", wheel)
    environment.install()
    write_video(tmp_path / "video.mp4", moving_square(40, 240, 320, (6, 2), side=96), gop=12)
    for words in (
        "inspect video.mp4",
        f"inspect {tmp_path}",
        "vectors video.mp4 --out vectors.npz",
    ):
        environment.run("mgm", *words.split(), cwd=tmp_path)
    write_vectors(tmp_path / "video.mp4", tmp_path / "ours.npz")
    with np.load(tmp_path / "vectors.npz") as theirs, np.load(tmp_path / "ours.npz") as ours:
        assert set(theirs) == set(ours)
        for name in theirs:
            np.testing.assert_array_equal(theirs[name], ours[name])
    masks = "import mgm, numpy as np; np.save('x', mgm.masks(mgm.track('video.mp4')[:16], seed=3))"
    environment.run("python", "-c", masks, cwd=tmp_path)
    known_SHW = mgm.masks(mgm.track(tmp_path / "video.mp4")[:16], seed=3)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), known_SHW)
    page = (ROOT / "docs" / "motion-vectors.md").read_text()
    examples = "".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    # README's lines, up to the model.
    examples += (ROOT / "README.md").read_text().split("```python\n")[1].split("model = ")[0]
    environment.run("python", "-c", "GONE = 'torch', 'cv2'" + ABSENT + examples, cwd=tmp_path)
    [line] = environment.run(
        "mgm", "show", "video.mp4", "--out", "x.gif", cwd=tmp_path, code=2
    ).stderr.splitlines()
    assert line.endswith("run pip install 'mgm-video[train]'")


@pytest.mark.slow
def test_the_readmes_example_runs_with_the_library_alone(library, tmp_path):
    [example] = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    write_video(tmp_path / "video.mp4", moving_square(40, 240, 320, (6, 2), side=96), gop=12)
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    end = "\nassert feature_D.shape == (48,) and (masked_SHW.sum((1, 2)) == 27).all()"
    library.run("python", "-c", "GONE = ()" + ABSENT + example + end, cwd=tmp_path)
    assert "h264" in library.run("mgm", "inspect", "video.mp4", cwd=tmp_path).stdout


@pytest.mark.slow
def test_the_library_needs_no_extra_and_what_does_says_which(library, tmp_path):
    missing = json.loads(library.run("python", "-c", IMPORT_ALL).stdout)
    assert set(missing.values()) <= {module for modules in EXTRAS.values() for module in modules}
    assert not [module for module in missing if module.split(".")[1] in LIBRARY]
    [line] = library.run("mgm", "report", cwd=tmp_path, code=2).stderr.splitlines()
    assert line.endswith("run pip install 'mgm-video[report]'")


def test_each_extra_names_the_modules_it_brings():
    """EXTRAS lists a module of each distribution of an extra.

    It may also list modules of other distributions that the extra needs.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = {
        module: {name.lower() for name in names}
        for module, names in packages_distributions().items()
    }
    for extra, requirements in project["optional-dependencies"].items():
        brought = {Requirement(text).name.lower() for text in requirements} - {
            "mgm-video",
            "snakemake-executor-plugin-slurm",
        }
        assert brought <= {name for module in EXTRAS[extra] for name in distributions[module]}
