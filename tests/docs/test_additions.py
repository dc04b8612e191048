"""Apply all `add-a-*` pages to one copy of the project, and check the effect of each.

Then the tests of the changed code pass in that copy, and so after each page alone. On a page,

- `<!-- file: PATH -->` is above a block with the content of a new file;
- `<!-- above: TEXT in PATH -->` is above a block for insertion before the line starting with TEXT;
- a `diff` block names its file. Lines with `-` are removed, and lines with `+` are inserted after
  the previous line of the block. Each line with `-` or a space is in the file exactly once.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (file|above): (.+?)(?: in (\S+))? -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S
)

# Page: code that checks the addition. One process runs all of it, in this order.
PAGES = {
    "mask": """
import sys
from mgm.dag.study import Workflow
registry = Workflow({"scale": "smoke"}).registry
runs = registry.tables["4e"].cell("Checkerboard", "SSv2").runs
parents = [registry.specs[run.parent] for run in runs]
assert [parent.mask.name for parent in parents] == ["checkerboard"] * 3
assert all(parent.run_id.startswith("pretrain-checkerboard-") for parent in parents)
assert "torch" not in sys.modules  # known without it
import torch
from mgm.masking import Grid, make_boxes, make_mask
grid = Grid(8, 14, 14)
masked_BS = make_mask("checkerboard", grid, None, torch.arange(4)).view(4, 8, 14, 14)
assert make_boxes("checkerboard", grid, None, torch.arange(4)) is None
row_H1, column_W = torch.arange(14)[:, None], torch.arange(14)
for clip in masked_BS:  # one colour is hidden whole
    assert any(clip[:, (row_H1 + column_W) % 2 == colour].all() for colour in (0, 1))
""",
    "dataset": """
import csv
from pathlib import Path
from typer.testing import CliRunner
from mgm.cli import app
from mgm.dag.setting import PREPARED
from mgm.data.index import read_index
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
drawn = generate(Synthetic(classes=2, train_per_class=1, test_per_class=2, size=32), Path("drawn"))
with open("drawn/clips.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["name", "label", "split"])
    for video in drawn.videos:
        rows.writerow([Path(video.path).stem, drawn.classes[video.label], video.split])
words = ["prepare", "clips", "--source", "drawn", "--out", "data/clips"]
done = CliRunner().invoke(app, words)
assert done.exit_code == 0, done.exception
assert len(read_index(Path("data/clips")).videos) == 6
assert "clips" in PREPARED
""",
    "table-row": "assert len(registry.runs_of('table4_ratio')) == 6",
    "figure": """
import numpy as np
from types import SimpleNamespace
from mgm.report.figures.draw import DRAW
from mgm.stages.measure.middle_frames import measure
assert {"4_probe", "frames"} <= set(registry.figure_names)
spec = registry.figures["frames"].run
assert spec.name == "middle-frames"
assert measure(SimpleNamespace(index=drawn, spec=spec, folder=Path())) == {"videos": 4}
arrays = np.load("arrays.npz")
assert arrays["frames_NHWC"].shape == (4, 32, 32, 3)
assert len(DRAW["frames"](arrays, "note").axes) == 4
""",
    "measurement": """
(run,) = registry.tables["measured"].cell("Bit rate", "Mbit/s").runs
assert run.name == "bit-rate"
from mgm.stages.measure.bit_rate import measure
metrics = measure(SimpleNamespace(index=drawn, spec=run.model_copy(update={"videos": 0})))
rates = [8e-6 * Path(v.path).stat().st_size / (v.frames / v.fps) for v in drawn.test]
assert abs(metrics["mbit_s"] - sum(rates) / len(rates)) < 1e-9
""",
    "backbone": """
from mgm.models import build_mae
from mgm.spec import Data, Model, Pretrain
spec = Pretrain(data=Data(dataset="ssv2"), model=Model(backbone="vit-ti"))
assert (spec.model.width, spec.decoder.depth) == (192, 4)
build_mae(spec)
""",
    "probe-kind": """
from mgm.spec import Probe
from mgm.stages.probe_kinds import KINDS, Split
x_ND, label_N = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
train = SimpleNamespace(pooled=x_ND, label_N=label_N)
spec = Probe(data=Data(dataset="ssv2"), kind="centroid")
logits_NC, _ = KINDS["centroid"](train, Split(x_ND, label_N), 3, spec)
assert (logits_NC.argmax(1) == label_N).all()
""",
    "run-option": """
import os
from mgm.spec import RunOptions
from mgm.stages.job import Workplace
from mgm.stages.runner import run_all
before = os.nice(0)
run_all([], None, Workplace(Path(), {}, RunOptions(nice=3)))
assert os.nice(0) > before
assert "--nice" in CliRunner().invoke(app, ["pretrain", "--help"]).output
""",
}
# Then the copy's own tests of registries, docs and pages, and those of masks with the new
# one.
TESTS = [
    "tests/docs/test_methods.py",
    "tests/masking/test_masks.py",
    "tests/study/test_recipes.py",
    "tests/study/test_registry.py",
    "tests/study/test_scales.py",
    "tests/report/test_overview.py",
    "tests/test_cluster.py",
    "tests/test_options.py",
    "tests/test_spec.py",
]
RUN = f"""
import sys
import pytest
chosen = ["-m", "not slow", "-k", "checkerboard or not test_masks"]
sys.exit(pytest.main(["-x", *chosen, *{TESTS!r}]))
"""


def put(text: str, target: Path) -> None:
    """Apply a diff of the kind that the pages show."""
    lines, at = target.read_text().splitlines(), None
    for line in text.splitlines()[1:]:
        mark, content = line[:1], line[1:]
        if mark == "+":
            assert at is not None
            lines.insert(at, content)
            at += 1
            continue
        assert lines.count(content) == 1, f"{target}: {lines.count(content)} times {content!r}"
        at = lines.index(content) + 1
        if mark == "-":
            del lines[(at := at - 1)]
    target.write_text("\n".join(lines) + "\n")


def applied(page: str, copy: Path) -> None:
    """Put a page's files and lines into a copy of the project.

    If two blocks of a page change the same file, the second changes the result of the first.
    """
    text = (ROOT / "docs" / f"add-a-{page}.md").read_text()
    applied_blocks = 0
    for kind, what, where, language, code in BLOCK.findall(text):
        if kind == "file":
            (copy / what).write_text(code)
        elif kind == "above":
            target = copy / where
            lines = target.read_text().splitlines(keepends=True)
            (at,) = [at for at, line in enumerate(lines) if line.lstrip().startswith(what)]
            indent = " " * (len(lines[at]) - len(lines[at].lstrip()))
            lines.insert(at, "".join(indent + line for line in code.splitlines(keepends=True)))
            target.write_text("".join(lines))
        elif language == "diff":
            put(code, copy / code.splitlines()[0].removeprefix("--- "))
        else:
            continue
        applied_blocks += 1
    assert applied_blocks >= 1


def test_every_page_is_executed():
    pages = {path.stem.removeprefix("add-a-") for path in (ROOT / "docs").glob("add-a-*.md")}
    assert pages == set(PAGES)


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(list(PAGES), id="together"),
        *(pytest.param([page], id=page, marks=pytest.mark.slow) for page in PAGES),
    ],
)
def test_the_pages_add_what_they_say_and_the_tests_pass(pages, tmp_path):
    for name in ("mgm", "workflow", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "docs", "Makefile", "studies", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    for page in pages:
        applied(page, tmp_path)
    # The code of a page reads what the pages before it have made.
    shown = "".join(PAGES.values()) if pages == list(PAGES) else ""
    (tmp_path / "shown.py").write_text(shown + RUN)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "shown.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
