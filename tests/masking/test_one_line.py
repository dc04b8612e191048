"""A mask is one file and one line:

dropped into a copy of the package, it is everywhere that a mask is.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
(FILE, LINE) = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "add-a-mask.md").read_text(), re.DOTALL
)[:2]

SEEN = """
import re, sys
from mgm.paper.suite import make_registry
from mgm.paper.scales import load_scale
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
masked_BS = make_mask("checkerboard", grid, None, torch.arange(4)).view(4, 8, 14, 14)
assert (masked_BS.sum((2, 3)) == int(0.75 * 196)).all()
assert make_boxes("checkerboard", grid, None, torch.arange(4)) is None
row_H1, column_W = torch.arange(14)[:, None], torch.arange(14)
for clip in masked_BS:  # one colour is hidden whole
    assert any(clip[:, (row_H1 + column_W) % 2 == colour].all() for colour in (0, 1))
print("seen")
"""


def test_a_file_and_a_line_are_a_mask_and_a_row_of_table_4e(tmp_path):
    """Run in a copy of the package with one file and one line more."""
    assert len(FILE.strip().splitlines()) < 20
    assert len(LINE.strip().splitlines()) == 1
    shutil.copytree(ROOT / "mgm", tmp_path / "mgm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    (tmp_path / "mgm" / "masking" / "checkerboard.py").write_text(FILE)
    table = tmp_path / "mgm" / "masking" / "__init__.py"
    text = table.read_text()
    assert text.count('\n    "mgm": ') == 1
    table.write_text(text.replace('\n    "mgm": ', f'\n    {LINE.strip()}\n    "mgm": '))
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SEEN],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
