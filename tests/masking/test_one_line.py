"""A mask is one file and one line: dropped into a copy of the package, it is everywhere that a mask is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
(FILE, LINE) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-mask.md").read_text(), re.DOTALL)[:2]

SEEN = """
import re, sys
from mgm.experiments.suite import make_registry
from mgm.experiments.scales import load_scale
from mgm.dag.study import CONFIG
from mgm.spec import Mask

registry = make_registry(load_scale(CONFIG / "smoke.yaml"))
table = registry.tables["4e"]
assert "Checkerboard" in table.rows, table.rows
runs = table.cell("Checkerboard", "SSv2").runs
parents = [registry.specs[run.parent] for run in runs]
assert [parent.mask.name for parent in parents] == ["checkerboard"] * 3
assert all(parent.run_id.startswith("pretrain-checkerboard-") for parent in parents)
assert "torch" not in sys.modules  # known without it

import torch
from mgm.masking import MASKS, Grid, make_boxes, make_mask

grid = Grid(8, 14, 14)
masked_BS = make_mask("checkerboard", grid, 0.75, torch.arange(4)).view(4, 8, 14, 14)
assert (masked_BS.sum((2, 3)) == int(0.75 * 196)).all()
assert make_boxes("checkerboard", grid, 0.75, torch.arange(4)) is None
row_H1, column_W = torch.arange(14)[:, None], torch.arange(14)
for clip in masked_BS:  # one colour is hidden whole
    assert any(clip[:, (row_H1 + column_W) % 2 == colour].all() for colour in (0, 1))
print("seen")
"""

MADE = """
import torch
from mgm.masking import Grid, make_mask
make_mask("checkerboard", Grid(8, 14, 14), 0.75, torch.arange(4))
"""


@pytest.fixture(scope="module")
def dropped_in(tmp_path_factory) -> dict[str, str]:
    """The environment of a copy of the package with one file and one line more."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "mgm", root / "mgm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "workflow", root / "workflow")
    for folder in ("masking", "helpers"):
        shutil.copytree(ROOT / "tests" / folder, root / "tests" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "mgm" / "masking" / "checkerboard.py").write_text(FILE)
    table = root / "mgm" / "masking" / "__init__.py"
    text = table.read_text()
    assert text.count('\n    "mgm": ') == 1
    table.write_text(text.replace('\n    "mgm": ', f'\n    {LINE.strip()}\n    "mgm": '))
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(root)}


def _python(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=environment["PYTHONPATH"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_file_and_a_line_are_a_mask_and_a_row_of_table_4e(dropped_in):
    assert len(FILE.strip().splitlines()) < 20
    assert len(LINE.strip().splitlines()) == 1
    assert _python(dropped_in, "-c", SEEN) == "seen\n"


def test_the_tests_of_masks_hold_it_to_their_properties(dropped_in):
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-v", "--import-mode=importlib", "tests/masking/test_masks.py", "-k"]
    told = _python(dropped_in, *words, "checkerboard or exact or batch")
    assert "test_seeds_matter_and_unguided_masks_ignore_motion[checkerboard] PASSED" in told
    assert "test_counts_are_exact PASSED" in told
    assert "test_a_clips_mask_ignores_its_batch PASSED" in told
