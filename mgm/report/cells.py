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
from types import MappingProxyType
from typing import Any

import pandas as pd

from mgm.results.frame import Frozen, first_start, read_csv
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

# Folds share training videos, so their intervals are wider.
CORRECTED = ", corrected (Nadeau-Bengio)"
CELL = ["study", "dataset", "row", "column"]
# Dataset seed and seed.
Unit = tuple[int, int]
# What all runs of a cell have.
SAME = [*CELL, "title", "control", "metric", "n_test", "epochs", "ratio", "steps"]
PLACE = ["study", "dataset", "title", "column", "metric"]
# The end of a row's name that its line in a chart does not have, as in "MGM, 400".
NUMBER = r"(,| at ratio) [\d.,]+( %| steps| epochs)?$"


def cells(frame: pd.DataFrame, studies: Mapping[str, Study] = MappingProxyType({})) -> pd.DataFrame:
    """Return a row per cell, finished or not, in the order of the frame.

    Args:
        studies: by name. Those with an `overlap` have wider intervals.

    Columns:
        study, dataset, title, row, column, control, metric; share: whether it is in per cent.
        mean, low, high: NaN without a number, infinite without an interval.
        n, unit: how many datasets, seeds or test videos the interval is over. wanted: how many
            runs the study asks for. n_test: videos of a test.
        chance: accuracy of guessing the largest class of the dataset's tests, NaN if not known.
        epochs, ratio, steps: of the pretraining, NaN without. line: the row without its number.
        status: finished, partial, failed, running or not run; why, in all but finished.
        run_ids, commit: joined by spaces.
    """
    # Plain records: a group of pandas costs a millisecond, and a suite has hundreds.
    rows, groups = [], dict[tuple[str, ...], list[dict[Any, Any]]]()
    for run in frame[frame.column != ""].to_dict("records"):
        groups.setdefault(tuple(run[name] for name in CELL), []).append(run)
    for runs in groups.values():
        first, done = runs[0], [run for run in runs if not isnan(run["value"])]
        overlap = studies[first["study"]].overlap if first["study"] in studies else 0.0
        one, unit = _of_cell(done, first["metric"] in SHARES, overlap)
        row = {name: first[name] for name in SAME} | one._asdict()
        row |= {"unit": unit, "wanted": len(runs)}
        row["status"] = "finished" if len(done) == len(runs) else "partial"
        if not done:
            known = {run["status"] for run in runs}
            row["status"] = next(s for s in ("failed", "running", "not run") if s in known)
        row |= {"why": _joined(runs, "why", "; "), "run_ids": _joined(runs, "run_id")}
        rows.append(row | {"commit": _joined(done, "commit")})
    names = [*SAME, *Estimate._fields, "unit", "wanted", "status", "why", "run_ids", "commit"]
    table = pd.DataFrame(rows, columns=names)
    chance = frame.groupby(["study", "dataset"]).chance.mean().rename("chance")
    table = table.join(chance, on=["study", "dataset"])
    line = table.row.str.replace(NUMBER, "", regex=True)
    return table.assign(line=line, share=table.metric.isin(SHARES))


def _joined(runs: Sequence[Mapping[Any, Any]], name: str, sign: str = " ") -> str:
    """Return the different texts of runs, without empty ones."""
    return sign.join(filter(None, dict.fromkeys(run[name] for run in runs)))


def _of_cell(
    runs: Sequence[Mapping[Any, Any]], share: bool, overlap: float
) -> tuple[Estimate, str]:
    if not runs:
        return Estimate(nan, n=0), ""
    values = [run["value"] for run in runs]
    if len(values) == 1 and share and runs[0]["n_test"] > 0:
        return binomial(values[0], int(runs[0]["n_test"])), "test videos"
    # From a mean of datasets others may be subtracted.
    limits = (-100.0 if runs[0]["derived"] or min(values) < 0 else 0.0, 100.0)
    unit = runs[0]["unit"] + CORRECTED * bool(overlap)
    return student(values, *(limits if share else (-inf, inf)), overlap), unit


class Numbers:
    """The numbers of one dataset and column of a study.

    Attributes:
        place: its study, dataset, title, column and metric.
        share: whether they are in per cent.
        unit: what an interval is over.
        units: dataset seed and seed of each, sorted.
        by_row: a row's numbers by unit.
    """

    def __init__(self, runs: pd.DataFrame, overlap: float = 0.0) -> None:
        done = runs[runs.value.notna()]
        self.place: dict[Any, Any] = runs.iloc[0][PLACE].to_dict()
        self.share = self.place["metric"] in SHARES
        self.overlap, self.unit = overlap, runs.unit.iloc[0] + CORRECTED * bool(overlap)
        self.n_test = 0 if done.empty else int(done.n_test.min())
        self._run_ids = [*zip(done.row, done.run_id)]
        self.by_row = dict[str, dict[Unit, float]]()
        self._wanted = dict[str, set[Unit]]()
        for row, *unit in zip(runs.row, runs.dataset_seed, runs.seed):
            self._wanted.setdefault(row, set()).add((unit[0], unit[1]))
        for row, *unit, value in zip(done.row, done.dataset_seed, done.seed, done.value):
            self.by_row.setdefault(row, {})[unit[0], unit[1]] = value
        self.units = sorted({unit for numbers in self.by_row.values() for unit in numbers})

    def run_ids(self, rows: Sequence[str]) -> str:
        """Return the runs that the numbers of rows are of, joined by spaces."""
        return " ".join(dict.fromkeys(run_id for row, run_id in self._run_ids if row in rows))

    def paired(self, rows: Sequence[str]) -> dict[Unit, float]:
        """Return the number of a row, of a row minus another, or of two such differences.

        Args:
            rows: one, two or four. Of four, it is first minus second minus (third minus fourth).

        Returns:
            Numbers by unit, of the units that have all of the rows.
        """
        found = {}
        for unit in self.units:
            numbers = [self._number(row, unit, len(rows) > 1) for row in rows]
            found[unit] = sum(sign * number for sign, number in zip((1, -1, -1, 1), numbers))
        return {unit: number for unit, number in found.items() if not isnan(number)}

    def _number(self, row: str, unit: Unit, compared: bool) -> float:
        numbers = self.by_row.get(row, {})
        if compared and row in CONTROL_ROWS:
            # A control is measured once per dataset, and stands for each of its seeds.
            same = [number for (seed, _), number in numbers.items() if seed == unit[0]]
            return sum(same) / len(same) if same else nan
        return numbers.get(unit, nan)

    def difference(self, rows: Sequence[str]) -> tuple[Estimate | None, str]:
        """Return the interval of what `paired` returns, and its unit; None if no unit has it."""
        units = self.paired(rows)
        if not units:
            return None, ""
        if len(units) == 1 and len(rows) == 2 and self.share and self.n_test > 0:
            [unit] = units
            one, other = (self._number(row, unit, True) for row in rows)
            if min(one, other) >= 0:
                return binomial_difference(one, other, self.n_test), "test videos"
        limit = 100.0 * max(1, len(rows) // 2) if self.share else inf
        return student([*units.values()], -limit, limit, self.overlap), self.unit

    def state(self, rows: Sequence[str], n: int) -> dict[str, Any]:
        """Return `wanted`, how many units the study asks for, and `status`: partial with fewer."""
        units = [self._wanted.get(row, set()) for row in rows if row not in CONTROL_ROWS]
        wanted = len(set.intersection(*units)) if units else 0
        return {"wanted": wanted, "status": "partial" if n < wanted else "finished"}


Places = Mapping[tuple[str, str], Numbers]


def by_place(frame: pd.DataFrame, study: Study) -> Places:
    """Return a study's numbers by dataset and column."""
    own = frame[(frame.study == study.study) & (frame.column != "")]
    groups: Any = own.groupby(["dataset", "column"], sort=False)
    return {place: Numbers(runs, study.overlap) for place, runs in groups}


def differences(
    places: Places, study: Study, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Return a row per paired difference of tests: the first row minus the second.

    Args:
        places: the study's numbers.
        pairs: by default those that the study compares.

    Columns: study, dataset, title, column, metric, row, minus, share, mean, low, high, n, unit,
    run_ids, wanted, status (`Numbers.state`). A difference without a unit that both rows have is
    left out. Measurements are not compared.
    """
    rows = []
    pairs = dict.fromkeys(study.compare if pairs is None else pairs)
    for (_, column), numbers in places.items():
        if study.columns[column].stage == "measure":
            continue
        for pair in pairs:
            one, unit = numbers.difference(pair)
            if one:
                two = {"row": pair[0], "minus": pair[1], "share": numbers.share}
                ends = one._asdict() | {"unit": unit, "run_ids": numbers.run_ids(pair)}
                rows.append(numbers.place | two | ends | numbers.state(pair, one.n))
    names = [*PLACE, "row", "minus", "share", *Estimate._fields, "unit", "run_ids"]
    names += ["wanted", "status"]
    return pd.DataFrame(rows, columns=names)


def verdicts(frame: pd.DataFrame, study: Study, frozen: Frozen | None = None) -> pd.DataFrame:
    """Return a row per prediction: those of the frozen study, then those that were added since.

    A prediction holds if the interval lies within what it allows, and is refuted if it lies
    outside. Otherwise, or with fewer than six units, it is open. Of predictions in order, those
    after one that does not hold are not tested. A frozen one is judged by the runs
    that the frozen study wanted.

    Columns: dataset, title, column, metric, share, says, mean, low, high, n, unit, wanted, status
    (`Numbers.state`), verdict, why, against (the number most against it, with its seed), note, and
    `row` and `minus` of the prediction, or neither if it has four rows.
    """
    old = frozen.studies.get(study.study) if frozen else None
    own = frame[frame.study == study.study]
    # A pretraining has no result that could be foreseen, so it may be another study's.
    began = first_start(own[own.column != ""])
    before = [*old.predictions] if frozen and old and frozen.date <= (began or "~") else []
    now, as_frozen = by_place(own, study), by_place(own[own.as_frozen], study)
    rows, so_far = list[dict[str, Any]](), True
    for one in dict.fromkeys((*before, *study.predictions)):
        late = bool(began) and one not in before
        # The first dataset and column are those of its time.
        then = old if old and one in before else study
        judged = _judged(as_frozen if one in before else now, then, one)
        if judged["verdict"] == "not run" and _judged(now, then, one)["verdict"] != "not run":
            judged["verdict"] = "not run as frozen"
        holds = judged["verdict"] == "holds"
        if study.in_order and not so_far and not judged["verdict"].startswith("not run"):
            judged |= {"verdict": "not tested", "why": "one before it does not hold"}
        so_far = so_far and holds
        rows.append(judged | {"note": "added after runs began" * late})
    return pd.DataFrame(rows)


def _judged(places: Places, study: Study, one: Prediction) -> dict[str, Any]:
    """Return a prediction's number and verdict."""
    dataset = one.dataset or next(iter(study.shown))
    column = one.column or next(iter(study.columns))
    metric = study.columns[column].metric
    rows = [row for row in (one.row, one.minus, *(one.than or ())) if row]
    low, high = one.bounds
    number, unit, against, state = None, "", "", {"wanted": 0, "status": "not run"}
    if numbers := places.get((dataset, column)):
        number, unit = numbers.difference(rows)
        state |= numbers.state(rows, number.n) if number else {}
        units = numbers.paired(rows)
        if len(units) > 1:
            worst = min(units, key=lambda unit: min(units[unit] - low, high - units[unit]))
            dataset_seed, seed = worst
            against = f"{units[worst]:.1f} ({seed if dataset_seed < 0 else dataset_seed})"
    verdict, why = "open", ""
    if number is None:
        verdict, number = "not run", Estimate(nan, n=0)
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
