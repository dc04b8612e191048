"""Cells, paired differences and verdicts, from the frame of `mgm.results.frame`.

A unit is what an interval is over: worlds, folds or datasets (one run each), seeds of a dataset,
or, with a single run, the videos of its test.

The paper's tables stand in `mgm/study/paper/KEY.csv`, as printed: the printed columns in their
order, and after a column C of printed numbers a column "C: ours". It names the cell that we run for
each number, as DATASET/ROW/COLUMN of the study whose views have the key; empty: it is quoted alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import inf, isnan, nan
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.results.frame import Results, read_csv
from mgm.results.statistics import (
    ENOUGH,
    EQUAL,
    Estimate,
    binomial,
    binomial_difference,
    student,
)
from mgm.study.scales import PAPER
from mgm.study.schema import CONTROL_ROWS, SHARES, Prediction, Study

# What a cell without a number shows of its runs: the first of these.
UNFINISHED = ("failed", "damaged", "running", "unknown", "stopped", "not run")
# Folds share training videos, so their intervals are wider.
CORRECTED = ", corrected (Nadeau-Bengio)"
# Dataset seed and seed.
Unit = tuple[int, int]
# A row of the frame.
Run = dict[Any, Any]
# What all numbers of a dataset and a column have.
SAME = ["study", "dataset", "title", "column", "metric"]
# What all runs of a cell have.
OF_CELL = [
    *("study", "dataset", "row", "column", "title", "control", "metric"),
    *("n_test", "epochs", "ratio", "steps"),
]
NOTHING = Estimate(nan, n=0)
# The end of a row's name that its line in a chart does not have, as in "MGM, 400".
ENDING = r"(,| at ratio) [\d.,]+( %| steps| epochs)?$"


class Numbers:
    """The numbers of one dataset and column of a study.

    Attributes:
        same: its study, dataset, title, column and metric.
        share: whether the numbers are in per cent.
        runs: the runs of each row, finished or not.
        by_row: the numbers of each row by unit.
    """

    def __init__(self, runs: Iterable[Run], overlap: float = 0.0) -> None:
        self.runs = dict[str, list[Run]]()
        for run in runs:
            self.runs.setdefault(run["row"], []).append(run)
        first = next(iter(self.runs.values()))[0]
        self.same = {name: first[name] for name in SAME}
        self.share = first["metric"] in SHARES
        self.derived = first["derived"]
        self.overlap, self.unit = overlap, first["unit"] + CORRECTED * bool(overlap)
        self.by_row = dict[str, dict[Unit, float]]()
        for row, own in self.runs.items():
            if len({run["run_id"] for run in own}) < len(own):
                where = " / ".join(map(str, (*self.same.values(), row)))
                raise UserError(f"{where}: two of its units are one run, {own[0]['run_id']}")
            self.by_row[row] = {_unit(run): run["value"] for run in own if not isnan(run["value"])}

    def of(self, rows: Sequence[str]) -> list[Run]:
        """Return the finished runs of rows, in the order of the frame."""
        runs = [run for row in rows for run in self.runs.get(row, ()) if not isnan(run["value"])]
        return sorted(runs, key=lambda run: run["at"])

    def paired(self, rows: Sequence[str]) -> dict[Unit, float]:
        """Return the number of a row, of a row minus another, or of two such differences.

        Args:
            rows: one, two or four. Of four, it is first minus second minus (third minus fourth).

        Returns:
            Numbers by unit, of the units that have all of the rows, sorted.
        """
        found = dict[Unit, float]()
        for unit in sorted({unit for row in rows for unit in self.by_row.get(row, ())}):
            numbers = [self._number(row, unit) for row in rows]
            found[unit] = sum(sign * number for sign, number in zip((1, -1, -1, 1), numbers))
        return {unit: number for unit, number in found.items() if not isnan(number)}

    def _number(self, row: str, unit: Unit) -> float:
        numbers = self.by_row.get(row, {})
        if row in CONTROL_ROWS:
            # A control is measured once per dataset, and stands for each of its seeds.
            same = [number for (seed, _), number in numbers.items() if seed == unit[0]]
            return sum(same) / len(same) if same else nan
        return numbers.get(unit, nan)

    def estimate(self, rows: Sequence[str]) -> tuple[Estimate, str]:
        """Return the mean of what `paired` returns with its interval, and what that is over."""
        units = self.paired(rows)
        if not units:
            return NOTHING, ""
        # A difference needs the videos of all tests here, which older controls do not count.
        tests = self.of(rows if len(rows) == 1 else [*self.runs])
        n_test = min(int(run["n_test"]) for run in tests)
        if len(units) == 1 and len(rows) < 3 and self.share and n_test > 0:
            [unit] = units
            numbers = [self._number(row, unit) for row in rows]
            interval: Any = binomial_difference if len(rows) == 2 else binomial
            return interval(*numbers, n_test), "test videos"
        if not self.share:
            limits = -inf, inf
        elif len(rows) > 1:
            limits = -50.0 * len(rows), 50.0 * len(rows)
        else:
            # From a mean of datasets others may be subtracted.
            limits = -100.0 if self.derived or min(units.values()) < 0 else 0.0, 100.0
        return student([*units.values()], *limits, self.overlap), self.unit

    def about(self, rows: Sequence[str]) -> dict[str, Any]:
        """Return the estimate of rows as fields of a table: `SAME`, and the columns of `cells`."""
        one, unit = self.estimate(rows)
        units = [{*map(_unit, self.runs.get(row, ()))} for row in rows if row not in CONTROL_ROWS]
        wanted = len(set.intersection(*units)) if units else 0
        return {
            **self.same,
            **{"share": self.share, **one._asdict(), "unit": unit, "wanted": wanted},
            **{"status": "partial" if one.n < wanted else "finished"},
            "run_ids": _joined(self.of(rows), "run_id"),
        }

    def cell(self, row: str) -> dict[str, Any]:
        """Return a cell as fields of a table, finished or not."""
        runs, done = self.runs[row], self.of([row])
        known = {run["status"] for run in runs}
        state = "finished" if len(done) == len(runs) else "partial"
        if not done:
            state = next(state for state in UNFINISHED if state in known)
        return {
            **self.about([row]),
            **{name: runs[0][name] for name in OF_CELL},
            **{"wanted": len(runs), "status": state, "why": _joined(runs, "why", "; ")},
            **{"run_ids": _joined(runs, "run_id"), "commit": _joined(done, "commit")},
            "as_frozen": all(run["as_frozen"] for run in runs),
        }


def _unit(run: Run) -> Unit:
    return run["dataset_seed"], run["seed"]


def _joined(runs: Sequence[Run], name: str, sign: str = " ") -> str:
    """Return the different texts of runs, without empty ones."""
    return sign.join(filter(None, dict.fromkeys(run[name] for run in runs)))


Places = Mapping[tuple[str, str], Numbers]


def records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table as dicts. pandas needs five times as long."""
    return [dict(zip(frame.columns, row)) for row in frame.to_numpy(object).tolist()]


def by_place(frame: pd.DataFrame, overlap: float = 0.0) -> Places:
    """Return the numbers of one study by dataset and column."""
    # Plain records: a group of pandas costs a millisecond, and a suite has hundreds.
    runs = dict[tuple[str, str], list[Run]]()
    for run in records(frame[frame.column != ""].reset_index(names="at")):
        runs.setdefault((run["dataset"], run["column"]), []).append(run)
    return {place: Numbers(own, overlap) for place, own in runs.items()}


def places_of(results: Results) -> dict[str, Places]:
    """Return the numbers of each study by dataset and column."""
    frame = results.frame
    return {
        name: by_place(frame[frame.study == name], study.overlap)
        for name, study in results.studies.items()
    }


def cells(places: Places) -> pd.DataFrame:
    """Return a row per cell of a study, finished or not, in the order of the frame.

    Columns:
        study, dataset, title, row, column, control, metric; share: whether it is in per cent.
        mean, low, high: NaN without a number, infinite without an interval.
        n, unit: how many datasets, seeds or test videos the interval is over. wanted: how many
            runs the study asks for. n_test: videos of a test.
        chance: accuracy of guessing the largest class of the dataset's tests, NaN if not known.
        epochs, ratio, steps: of the pretraining, NaN without. line: the row without its number.
        status: finished, partial, failed, running or not run; why, in all but finished.
        run_ids, commit: joined by spaces. as_frozen: whether it was wanted when the study was
            frozen.
    """
    found, chances = list[tuple[int, dict[str, Any]]](), dict[str, list[float]]()
    for (dataset, _), numbers in places.items():
        found += [(own[0]["at"], numbers.cell(row)) for row, own in numbers.runs.items()]
        known = [run["chance"] for own in numbers.runs.values() for run in own]
        chances.setdefault(dataset, []).extend(one for one in known if not isnan(one))
    names = [*OF_CELL, *Estimate._fields, "unit", "wanted", "status", "why", "run_ids", "commit"]
    rows = [row for _, row in sorted(found, key=lambda pair: pair[0])]
    table = pd.DataFrame(rows, columns=[*names, "share", "as_frozen"])
    chance = {dataset: sum(own) / len(own) for dataset, own in chances.items() if own}
    line = table.row.str.replace(ENDING, "", regex=True)
    return table.assign(chance=table.dataset.map(chance).astype(float), line=line)


def differences(
    places: Places, study: Study, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Return a row per paired difference of tests: the first row minus the second.

    Args:
        places: the study's numbers.
        pairs: by default those that the study compares.

    Columns: study, dataset, title, column, metric, row, minus, share, mean, low, high, n, unit,
    run_ids, wanted, status: partial with fewer units than wanted. A difference without a unit that
    both rows have is left out. Measurements are not compared.
    """
    pairs = [*dict.fromkeys(study.compare if pairs is None else pairs)]
    rows = [
        numbers.about(pair) | {"row": pair[0], "minus": pair[1]}
        for (_, column), numbers in places.items()
        if study.columns[column].stage != "measure"
        for pair in pairs
    ]
    names = [*SAME, "row", "minus", "share", *Estimate._fields, "unit", "run_ids"]
    table = pd.DataFrame(rows, columns=[*names, "wanted", "status"])
    return table[table.n > 0].reset_index(drop=True)


def verdicts(results: Results, name: str) -> pd.DataFrame:
    """Return a row per prediction: those of the frozen study, then those that were added since.

    A prediction holds if the interval lies within what it allows, and is refuted if it lies
    outside. Otherwise, or with fewer than six units, it is open. Of predictions in order, those
    after one that does not hold are not tested. A frozen one is judged by the frozen study alone:
    its order, its overlap, and the runs that it wanted.

    Columns: dataset, title, column, metric, share, says, mean, low, high, n, unit, wanted, status,
    verdict, why, against (the number most against it, with its seed), note, and `row` and `minus`
    of the prediction, or neither if it has four rows.
    """
    study, old = results.studies[name], results.frozen and results.frozen.studies.get(name)
    frame, parts = results.frame, list[tuple[Study, pd.DataFrame, Sequence[Prediction], str]]()
    own = frame[(frame.study == name) & (frame.column != "")]
    known = old.predictions if old and not results.began_before(name) else ()
    if old and known:
        parts.append((old, results.as_frozen(name), known, ""))
    late = "added after runs began" * bool((own.started != "").any())
    added = [one for one in dict.fromkeys(study.predictions) if one not in known]
    rows, failed = list[dict[str, Any]](), 0
    for asked, runs, predictions, note in (*parts, (study, own, added, late)):
        places = by_place(runs, asked.overlap) if predictions else {}
        for one in dict.fromkeys(predictions):
            judged = _judged(places, asked, one)
            holds = judged["verdict"] == "holds"
            if asked.in_order and failed and judged["verdict"] != "not run":
                judged |= {"verdict": "not tested", "why": f"prediction {failed} does not hold"}
            rows.append(judged | {"note": note})
            if not holds and not failed:
                failed = len(rows)
    return pd.DataFrame(rows)


def _judged(places: Places, study: Study, one: Prediction) -> dict[str, Any]:
    """Return a prediction's number and verdict."""
    dataset = one.dataset or next(iter(study.shown))
    column = one.column or next(iter(study.columns))
    metric = study.columns[column].metric
    rows = [row for row in (one.row, one.minus, *(one.than or ())) if row]
    (low, high), numbers = one.bounds, places.get((dataset, column))
    number, unit, against, state = NOTHING, "", "", {"wanted": 0, "status": "not run"}
    if numbers and (units := numbers.paired(rows)):
        number, unit = numbers.estimate(rows)
        state = {name: numbers.about(rows)[name] for name in state}
        if len(units) > 1:
            worst = min(units, key=lambda unit: min(units[unit] - low, high - units[unit]))
            dataset_seed, seed = worst
            against = f"{units[worst]:.1f} ({seed if dataset_seed < 0 else dataset_seed})"
    verdict, why = "open", ""
    if number.n == 0:
        verdict = "not run"
    elif number.n < ENOUGH or unit == "test videos":
        why = f"{number.n} {unit}; a verdict needs {ENOUGH} units of training"
    elif low - EQUAL <= number.low and number.high <= high + EQUAL and number.has_interval:
        verdict = "holds"
    elif number.high < low - EQUAL or number.low > high + EQUAL:
        verdict = "refuted"
    return {
        **{"dataset": dataset, "title": study.shown.get(dataset, dataset), "column": column},
        **{"metric": metric, "share": metric in SHARES, "says": one.says, **number._asdict()},
        **{"unit": unit, **state, "verdict": verdict, "why": why, "against": against},
        **({"row": "", "minus": ""} if one.than else {"row": one.row, "minus": one.minus}),
    }


@cache
def printed(key: str) -> pd.DataFrame:
    """Return a table of the paper as text, with its columns "C: ours"."""
    return read_csv(PAPER / f"{key}.csv")
