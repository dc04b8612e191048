"""The paper's claims that are differences of cells, against its own tables and against our runs.

`mgm/study/paper/claims.csv` has a line per claim: the words (`quote`) and their section (`place`),
a printed table with its column, two of its rows, and what the text `says` of the first minus the
second. A row is named by its first printed column, or by the row that we run for it. `minus` may be
of another table, as TABLE/COLUMN/ROW.
"""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mgm.report.cells import NOTHING, Numbers, Places, printed
from mgm.results.frame import read_csv
from mgm.study.scales import PAPER
from mgm.study.schema import Study

SAYS = re.compile(r"(is|above|below|at least) (-?[\d.]+)")


def claims(places: Mapping[str, Places], studies: Mapping[str, Study]) -> pd.DataFrame:
    """Return a row per claim.

    Args:
        places: the numbers of each study.

    Columns: those of claims.csv; paper, the difference of the printed numbers, and agrees, whether
    it is as the text says; metric, share, mean, low, high, n, unit of ours, NaN without runs;
    run_ids; status: finished, not run, or not rerun.
    """
    rows = []
    for claim in read_csv(PAPER / "claims.csv").to_dict("records"):
        first = claim["table"], claim["column"], claim["row"]
        second = (*first[:2], claim["minus"])
        if claim["minus"].count("/") == 2:
            second = tuple(claim["minus"].split("/"))
        (one, own), (other, its) = number_of(*first), number_of(*second)
        paper = round(one - other, 6)
        ours, unit, ids, status = NOTHING, "", "", "not rerun"
        if own and its:
            # The study that has the table.
            homes = [
                next((one.study for one in studies.values() if table in one.views), "")
                for table in (first[0], second[0])
            ]
            both = [_runs(places.get(home, {}), cell) for home, cell in zip(homes, (own, its))]
            # A cell that these studies do not want is not rerun.
            if all(both):
                pair = "first", "second"
                runs = [run | {"row": row} for row, part in zip(pair, both) for run in part]
                numbers = Numbers(runs)
                ours, unit = numbers.estimate(pair)
                status = "finished" if ours.n else "not run"
                ids = numbers.about(pair)["run_ids"] if ours.n else ""
        about = {"metric": "top1", "share": True, "unit": unit, "run_ids": ids, "status": status}
        judged = {"paper": paper, "agrees": holds(claim["says"], paper)}
        rows.append(claim | judged | ours._asdict() | about)
    return pd.DataFrame(rows)


def holds(says: str, value: float) -> bool:
    """Return whether a printed difference is as the text says."""
    word, bound = SAYS.fullmatch(says).groups()  # type: ignore[union-attr]
    away = round(value - float(bound), 6)
    return {"is": away == 0, "above": away > 0, "below": away < 0, "at least": away >= 0}[word]


def number_of(table: str, column: str, row: str) -> tuple[float, str]:
    """Return a printed number, and the cell that we run for it, as DATASET/ROW/COLUMN."""
    cells = printed(table)
    lines = [*zip(cells.iloc[:, 0], cells[column], cells[f"{column}: ours"])]
    for named in (
        [line for line in lines if line[2].split("/", 1)[-1].rpartition("/")[0] == row],
        [line for line in lines if line[0] == row],
    ):
        if len(named) == 1:
            return float(named[0][1]), named[0][2]
    raise ValueError(f"{table}.csv: {len(named)} rows are called {row}")


def _runs(places: Places, cell: str) -> list[dict[Any, Any]]:
    """Return the runs of a cell, named as DATASET/ROW/COLUMN."""
    dataset, _, rest = cell.partition("/")
    row, _, column = rest.rpartition("/")
    numbers = places.get((dataset, column))
    return numbers.runs.get(row, []) if numbers else []
