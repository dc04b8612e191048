"""The notebook runs from top to bottom, and its saved outputs have the same types."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.notebook import code_cells, run_cells

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first-look.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_is_kept_with_its_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run_cells(NOTEBOOK)
    kept = [cell["outputs"] for cell in code_cells(json.loads(NOTEBOOK.read_text()))]
    assert [[output["output_type"] for output in cell] for cell in made] == [
        [output["output_type"] for output in cell] for cell in kept
    ]
    assert "probe" in "".join(kept[4][0]["text"])
    # The pretraining ends below the loss of predicting zeros, here and in the kept outputs.
    for cell in (made[-1], kept[-1]):
        assert float(re.search(r"mean: ([\d.]+)", "".join(cell[0]["text"]))[1]) < 1
    assert NOTEBOOK.stat().st_size < 300_000
