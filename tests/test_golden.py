"""Guards: run ids of all scales and studies, and every cell of the archived results.

A change that moves a line must be meant. To write the files again, run this module:
`python -m tests.test_golden`.
"""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from mgm.dag.workflow import Workflow
from mgm.report.estimates import read_results
from mgm.results.archive import is_packed
from mgm.study import STUDIES

ROOT = Path(__file__).parents[1]
IDS = ROOT / "tests" / "golden" / "run_ids.txt"
CELLS = ROOT / "results" / "cells.csv"
# Scale `day` has only its study.
SCALES = ("mini", "paper", "smoke")
RAN = sorted(
    path.stem for path in STUDIES.glob("*.yaml") if is_packed(ROOT / "results" / path.stem)
)
KEY = ["study", "dataset", "column", "row"]


def run_ids(results: Path) -> str:
    """Return a line per run of every scale and study: its name and the run id."""
    lines = []
    for name in SCALES:
        specs = Workflow({"scale": name}, results=results).plan.specs
        lines += [f"{name} {run_id}" for run_id in specs]
    for path in STUDIES.glob("*.yaml"):
        specs = Workflow({"study": path.stem}, results=results).plan.specs
        lines += [f"{path.stem} {run_id}" for run_id in specs]
    return "".join(f"{line}\n" for line in sorted(lines))


def cells(names: list[str]) -> str:
    """Return a line per cell of the archived results of these studies and scales."""
    tables = []
    for name in names:
        for study, found in read_results(ROOT / "results" / name).items():
            cells = found.cells[found.cells["mean"].notna()]
            where = name if study == name else f"{name}/{study}"
            tables.append(cells.assign(study=where)[[*KEY, "mean", "low", "high", "n"]])
    table = pd.concat(tables).sort_values(KEY, kind="stable")
    return table.round(4).to_csv(index=False, lineterminator="\n")


def test_run_ids_are_the_golden_ones(tmp_path):
    assert run_ids(tmp_path).splitlines() == IDS.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RAN, "mini"])
def test_cells_of_archives_are_the_committed_ones(name):
    committed = pd.read_csv(CELLS)
    committed = committed[committed.study.str.split("/").str[0] == name].reset_index(drop=True)
    now = pd.read_csv(StringIO(cells([name])))
    pd.testing.assert_frame_equal(now, committed, check_dtype=False, atol=1e-4)


if __name__ == "__main__":
    import tempfile

    IDS.write_text(run_ids(Path(tempfile.mkdtemp())))
    CELLS.write_text(cells(sorted([*RAN, "mini"])))
