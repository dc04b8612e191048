"""The wheel, installed into empty environments: the base, what training needs, and the suite."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mgm.errors import EXTRAS
from tests.helpers.tiny_study import DRAWN
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
assert not [name for name in ("snakemake", "mlflow", *GONE) if find_spec(name)]
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
        gone = ("MGM_CI", "PYTHONPATH", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in gone}
        environment["PATH"] = f"{self.folder / 'env' / 'bin'}:{environment['PATH']}"
        how = {"cwd": cwd or self.folder, "env": environment, "timeout": 500}
        done = subprocess.run(words, capture_output=True, text=True, check=False, **how)
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
def test_the_base_looks_at_videos_and_prepares_them_without_torch(wheel, tmp_path):
    environment = Environment(tmp_path / "base", wheel)
    environment.install()
    environment.run("python", "-c", "GONE = ('torch',)" + ABSENT)
    (tmp_path / "videos" / "train" / "right").mkdir(parents=True)
    video = tmp_path / "videos" / "train" / "right" / "one.mp4"
    write_video(video, moving_square(40, 240, 320, (6, 2), side=96), gop=12)
    shutil.copytree(tmp_path / "videos" / "train", tmp_path / "videos" / "test")
    environment.run("mgm", "show", str(video), "--out", "show.gif", cwd=tmp_path)
    assert (tmp_path / "show.gif").read_bytes()[:3] == b"GIF"
    words = "prepare folder --source videos --out data --processes 1"
    environment.run("mgm", *words.split(), cwd=tmp_path)
    assert (tmp_path / "data" / "index.json").exists()
    for folder in ("videos", "data"):
        table = environment.run("mgm", "motion", folder, cwd=tmp_path).stdout.splitlines()
        assert len(table) == 3
    environment.run("mgm", "show", "data", cwd=tmp_path)
    [line] = environment.run("mgm", "plan", cwd=tmp_path, code=2).stderr.splitlines()
    assert "pip install '.[report]'" in line


@pytest.mark.slow
def test_train_pretrains_finetunes_by_the_papers_recipe_and_probes(library, tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(DRAWN))
    words = "prepare drawn --params params.json --out data --processes 1"
    library.run("mgm", *words.split(), cwd=tmp_path)
    model = {"backbone": "toy", "width": 24, "depth": 1, "heads": 2, "patch": 8}
    clips = {"frames": 8, "size": 48, "stride": 2, "crop": "centre"}
    optim = {"steps": 2, "batch": 2, "precision": "float32"}
    data = {"dataset": "drawn"}
    pretrain = {"data": data, "clips": clips, "model": model, "optim": optim}
    pretrain |= {"decoder": {"width": 16, "depth": 1, "heads": 2}}
    # RandAugment, erasing, mixup and repeats are the recipe's. Windows fit short videos.
    tested = {"data": data, "model": model, "clips": clips | {"sampling": "stride"}}
    for stage, fields in (
        ("pretrain", pretrain),
        ("finetune", tested | {"optim": optim | {"batch": 4}}),
        ("probe", tested),
    ):
        (tmp_path / "spec.json").write_text(json.dumps({"stage": stage, **fields}))
        words = "run spec.json --data drawn=data --out results --workers 0"
        library.run("mgm", *words.split(), cwd=tmp_path)
    assert len([*tmp_path.glob("results/*/result.json")]) == 3


@pytest.mark.slow
def test_the_library_needs_no_extra_and_what_does_says_which(library, tmp_path):
    missing = json.loads(library.run("python", "-c", IMPORT_ALL).stdout)
    assert set(missing.values()) <= {module for modules in EXTRAS.values() for module in modules}
    assert not [module for module in missing if module.split(".")[1] in LIBRARY]
    [line] = library.run("mgm", "report", cwd=tmp_path, code=2).stderr.splitlines()
    assert "pip install '.[report]'" in line


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
