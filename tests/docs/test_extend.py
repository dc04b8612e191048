"""Apply every block of docs/extend.md to a copy of the project, and check what it adds.

- `<!-- file: PATH -->` is above a block with the content of a new file.
- `<!-- above: TEXT in PATH -->` is above a block for insertion before the line that starts with
  TEXT.
- `<!-- package: PATH -->` is above a file of a package, which is installed.
- A `diff` block names its file. Its lines with `-` are removed, and its lines with `+` inserted
  after the line before them. Each other line stands in the file once.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.videos import moving_square, write_video

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (file|above|package): (.+?)(?: in (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S
)
EFFECTS = """
from types import SimpleNamespace
from pathlib import Path
import pytest
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.dag.workflow import Workflow
from mgm.spec import Data, Model, Pretrain, Probe

suite = Workflow({"scale": "smoke"}).plan
masks = {run.mask.name for run in suite.runs_of("table4e") if run.stage == "pretrain"}
assert "checkerboard" in masks
tubes = {run.mask.ratio for run in suite.runs_of("table4e") if run.run_id.startswith("pretrain-tube")}
assert tubes == {0.75, 0.9}
assert "bit-rate" in {run.name for run in suite.runs_of("measured") if run.stage == "measure"}

import numpy as np
from mgm.report.build import build_report
from tests.helpers.fake_results import finish, suite
known = suite()
for spec in known.runs_of("figure4e"):
    finish(Path("results/drawn"), spec)
known.write(Path("results/drawn"))
picture = build_report(Path("results/drawn"), Path("reports/drawn"), only="figure4e")
assert picture.read_text().count("<path") > 20

import torch
from mgm.masking import Grid, make_mask
masked_BSHW = make_mask("checkerboard", Grid(8, 14, 14), None, np.arange(4)).reshape(4, 8, 14, 14)
row_H1, column_W = np.arange(14)[:, None], np.arange(14)
for clip in masked_BSHW:
    assert any(clip[:, (row_H1 + column_W) % 2 == colour].all() for colour in (0, 1))

from mgm.models import build_mae
build_mae(Pretrain(data=Data(dataset="ssv2"), model=Model(backbone="vit-ti")))

from mgm.stages.features import Split
from mgm.stages.probe_kinds import KINDS
x_ND, label_N = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
train = SimpleNamespace(x_ND=x_ND, label_N=label_N)
spec = Probe(data=Data(dataset="ssv2"), kind="centroid")
logits_NC, _ = KINDS["centroid"](train, Split(x_ND, label_N), 3, spec)
assert (logits_NC.argmax(1) == label_N).all()

import csv
from typer.testing import CliRunner
from mgm.cli import app
from mgm.data.index import read_index
drawn = generate(Synthetic(classes=2, train_per_class=1, test_per_class=2, size=32), Path("drawn"))
with open("drawn/clips.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["name", "label", "split"])
    rows.writerows(
        [Path(video.path).stem, drawn.classes[video.label], video.split] for video in drawn.videos
    )
done = CliRunner().invoke(app, ["prepare", "clips", "--source", "drawn", "--out", "data/clips", "--processes", "1"])
assert done.exit_code == 0, done.output
assert len(read_index(Path("data/clips")).videos) == 6

from mgm.stages.measure.bit_rate import measure
metrics = measure(SimpleNamespace(index=drawn, spec=SimpleNamespace(videos=0)))
rates = [8e-6 * Path(v.path).stat().st_size / (v.frames / v.fps) for v in drawn.test]
assert metrics["mbit_s"] == pytest.approx(sum(rates) / len(rates))
raise SystemExit(pytest.main(["-x", "-q", "-k", "checkerboard", "tests/masking/test_masks.py"]))
"""


def put(text: str, target: Path) -> None:
    """Apply a diff of the kind that the page shows."""
    lines, at = target.read_text().splitlines(), None
    for line in text.splitlines()[1:]:
        if line.startswith("+"):
            assert at is not None
            lines.insert(at, line[1:])
            at += 1
        else:
            assert lines.count(line[1:]) == 1, f"{target}: {line[1:]!r}"
            at = lines.index(line[1:]) + 1
            if line.startswith("-"):
                del lines[(at := at - 1)]
    target.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_each_block_of_the_page_adds_what_it_says(tmp_path):
    for name in ("mgm", "workflow", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "studies"):
        (tmp_path / name).symlink_to(ROOT / name)
    applied = 0
    for kind, what, path, language, code in BLOCK.findall((ROOT / "docs/extend.md").read_text()):
        if kind == "file":
            (tmp_path / what).write_text(code)
        elif kind == "above":
            target = tmp_path / path
            lines = target.read_text().splitlines(keepends=True)
            (at,) = [at for at, line in enumerate(lines) if line.lstrip().startswith(what)]
            indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
            lines.insert(at, indent + code)
            target.write_text("".join(lines))
        elif kind == "package":
            continue
        elif language == "diff":
            put(code, tmp_path / code.splitlines()[0].removeprefix("--- "))
        else:
            continue
        applied += 1
    assert applied >= 10
    (tmp_path / "effects.py").write_text(EFFECTS)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "effects.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


USES = """
import sys
from pathlib import Path
import numpy as np
import mgm
from mgm.data.index import read_index
from mgm.spec import MASKS
from typer.testing import CliRunner
from mgm.cli import app

masked_SHW = mgm.masks(mgm.read("videos/a1.mp4"), "stripes", ratio=0.5)
assert (masked_SHW == masked_SHW[0, 0]).all() and masked_SHW[0, 0].sum() == 7
assert list(MASKS)[-1] == "stripes" and not MASKS["stripes"].guided
done = CliRunner().invoke(app, ["prepare", "initials", "--source", "videos", "--out", "data/mine"])
assert done.exit_code == 0, done.output
assert read_index(Path("data/mine")).classes == ("a", "b")
"""


def test_an_installed_package_brings_a_mask_and_a_dataset(tmp_path):
    package, place = tmp_path / "package", tmp_path / "installed"
    package.mkdir()
    for kind, what, _, _, code in BLOCK.findall((ROOT / "docs/extend.md").read_text()):
        if kind == "package":
            (package / what).write_text(code)
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([sys.executable, "-m", "uv", *install, place, package], check=True)
    (tmp_path / "videos").mkdir()
    for name in ("a1", "a2", "b1", "b2"):
        write_video(tmp_path / "videos" / f"{name}.mp4", moving_square(8, 64, 64))
    done = subprocess.run(
        [sys.executable, "-c", USES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
