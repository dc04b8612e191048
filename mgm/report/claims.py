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

from mgm.report.cells import NOTHING, Numbers, Places, Run, records
from mgm.report.tables import quotes
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

    def runs_of(table: str, number: Mapping[str, Any]) -> list[Run]:
        """Return the runs of a printed number; none if these studies do not want it."""
        home = next((one.study for one in studies.values() if table in one.views), "")
        numbers = places.get(home, {}).get((number["dataset"], number["column"]))
        return numbers.runs.get(number["row"], []) if numbers else []

    rows = []
    for claim in read_csv(PAPER / "claims.csv").to_dict("records"):
        first = claim["table"], claim["column"], claim["row"]
        second = (*first[:2], claim["minus"])
        if claim["minus"].count("/") == 2:
            second = tuple(claim["minus"].split("/"))
        one, other = number_of(*first), number_of(*second)
        paper = round(one["paper"] - other["paper"], 6)
        ours, unit, ids, status = NOTHING, "", "", "not rerun"
        both = runs_of(first[0], one), runs_of(second[0], other)
        if all(both):
            pair = "first", "second"
            numbers = Numbers(run | {"row": row} for row, part in zip(pair, both) for run in part)
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


def number_of(table: str, column: str, row: str) -> dict[str, Any]:
    """Return a printed number as `quotes` does, by our row or by the printed one."""
    found = [one for one in records(quotes(table)) if one["name"] == column]
    for key in ("row", "line"):
        named = [one for one in found if one[key] == row]
        if len(named) == 1:
            return named[0]
    raise ValueError(f"{table}.csv: {len(named)} rows are called {row}")
