"""Apply every block of docs/extend.md to a copy of the project, and check what it adds.

- `<!-- file: PATH -->` is above a block with the content of a new file.
- `<!-- end of: PATH -->` is above a block that is appended.
- `<!-- before: TEXT in PATH -->` is above a block for insertion before the line that starts so.
- A `diff` block names its file. Its lines with `+` come after the line before them, and those with
  `-` go. Each line that is not new stands in the file once.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT, run

BLOCK = re.compile(
    r"(?:^<!-- (file|end of|before): (.+?)(?: in (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S
)
EFFECTS = """
import csv, subprocess, sys
from pathlib import Path
import numpy as np
import mgm
from mgm.dag.workflow import Workflow
from mgm.data.published import list_published
from mgm.masking import Grid, make_mask
from mgm.models import build_mae
from mgm.spec import Data, Model, Pretrain
from mgm.stages.run import run_specs
from mgm.study.expand import expand, with_parents
from mgm.study.scales import load_suite
from tests.helpers.videos import moving_square, write_video

write_video("video.mp4", moving_square(16, 64, 64))
# A clip of 64 pixels has a grid of 4 x 4, and cells of 8 x 8.
clip = mgm.read("video.mp4")
masked_SHW = mgm.masks(clip, "stripes:stripes", ratio=0.5)
assert (masked_SHW == masked_SHW[0, 0]).all() and masked_SHW[0, 0].sum() == 2
masked_SHW = mgm.masks(clip, "calm:calm", ratio=0.5)
moving_SHW = clip.motion.magnitude(2).reshape(-1, 4, 2, 4, 2).max((2, 4)) > 0
assert moving_SHW.any() and (moving_SHW.sum((1, 2)) <= 8).all()
assert not (masked_SHW & moving_SHW).any()

masked_BSHW = make_mask("checkerboard", Grid(8, 14, 14), None, np.arange(4)).reshape(4, 8, 14, 14)
row_H1, column_W = np.arange(14)[:, None], np.arange(14)
for clip in masked_BSHW:
    assert any(clip[:, (row_H1 + column_W) % 2 == colour].all() for colour in (0, 1))

smoke = load_suite("smoke")
suite = expand(smoke.studies, smoke.scale)
runs = with_parents(suite.specs, suite.targets["figure4e"])
runs = [run for run in runs if run.stage == "pretrain"]
assert {"checkerboard", "mgm"} <= {run.mask.name for run in runs}
assert {run.mask.ratio for run in runs if run.mask.name == "tube"} == {0.75, 0.9}

build_mae(Pretrain(data=Data(dataset="ssv2"), model=Model(backbone="vit-ti")))

Path("clips").mkdir()
with open("clips/clips.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["name", "label", "split"])
    rows.writerows([f"{n}", "ab"[n % 2], ("train", "test")[n // 2]] for n in range(4))
for n in range(4):
    write_video(f"clips/{n}.mp4", moving_square(8, 64, 64, seed=n))
assert list_published("clips", Path("clips")).classes == ("a", "b")

# Train and probe with each of them, at scale smoke.
words = "-m mgm prepare clips --source clips --out data/clips".split()
subprocess.run([sys.executable, *words], check=True)
Path("mine.yaml").write_text(STUDY)
workflow = Workflow({"study": "mine.yaml"})
runs = [run for run in workflow.specs.values() if run.stage in ("pretrain", "probe")]
run_specs(runs, {"clips": [Path("data/clips")]}, Path("results"))
assert {run.mask.name for run in runs if run.stage == "pretrain"} == {
    "stripes:stripes", "calm:calm", "checkerboard", "mgm"}
assert {run.model.width for run in runs} == {48, 12}
assert {run.pool for run in runs if run.stage == "probe"} == {"max"}
"""
STUDY = """
study: mine
question: Does it train?
scale: smoke
seeds: 0
settings: {pretrain: {optim.steps: 2}}
datasets: {clips: {title: Clips, root: data/clips}}
rows:
  Stripes: {mask: "stripes:stripes"}
  Calm: {mask: "calm:calm"}
  Checkerboard: {mask: checkerboard}
  MGM (ViT-Ti): {backbone: vit-ti}
columns:
  Linear probe, largest: {pool: max, data.labels_per_class: 0}
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
            at = lines.index(line[1:])
            if line.startswith("-"):
                del lines[at]
            else:
                at += 1
    target.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_each_block_of_the_page_adds_what_it_says(tmp_path):
    for name in ("mgm", "workflow", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "studies", "results"):
        (tmp_path / name).symlink_to(ROOT / name)
    for kind, what, path, language, code in BLOCK.findall((ROOT / "docs/extend.md").read_text()):
        if kind == "file":
            (tmp_path / what).write_text(code)
        elif kind == "end of":
            with (tmp_path / what).open("a") as file:
                file.write(code)
        elif kind == "before":
            text = (tmp_path / path).read_text()
            (tmp_path / path).write_text(text.replace(f"\n{what}", f"\n{code}\n\n{what}", 1))
        elif language == "diff":
            put(code, tmp_path / code.splitlines()[0].removeprefix("--- "))
    (tmp_path / "effects.py").write_text(EFFECTS.replace("STUDY", repr(STUDY)))
    done = run([sys.executable, "effects.py"], tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
