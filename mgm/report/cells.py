"""Cells, paired differences and verdicts, from the frame of `mgm.results.frame`.

A unit is what an interval is over: worlds, folds or datasets (one run each), seeds of a dataset,
or, with a single run, the videos of its test.

The paper's tables stand in `mgm/study/paper/KEY.csv`, as printed: the printed columns in their
order, and after a column C of printed numbers a column "C: ours". It names the cell that we run for
each number, as DATASET/ROW/COLUMN of the study whose views have the key; empty: it is quoted alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import inf, nan
from types import MappingProxyType
from typing import Any

import pandas as pd

from mgm.results.frame import Frozen, read_csv
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
UNIT = ["dataset_seed", "seed"]
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
    rows = []
    for _, runs in frame[frame.column != ""].groupby(CELL, sort=False):
        first, done = runs.iloc[0], runs[runs.value.notna()]
        overlap = studies[first.study].overlap if first.study in studies else 0.0
        one, unit = _of_cell(done, first.metric in SHARES, overlap)
        row = first[SAME].to_dict() | one._asdict() | {"unit": unit, "wanted": len(runs)}
        row["status"] = "finished" if len(done) == len(runs) else "partial"
        if done.empty:
            states = ("failed", "running", "not run")
            row["status"] = next(state for state in states if state in {*runs.status})
        for name, source in (("why", runs.why), ("run_ids", runs.run_id), ("commit", done.commit)):
            row[name] = ("; " if name == "why" else " ").join(filter(None, source.unique()))
        rows.append(row)
    names = [*SAME, *Estimate._fields, "unit", "wanted", "status", "why", "run_ids", "commit"]
    table = pd.DataFrame(rows, columns=names)
    chance = frame.groupby(["study", "dataset"]).chance.mean().rename("chance")
    table = table.join(chance, on=["study", "dataset"])
    line = table.row.str.replace(NUMBER, "", regex=True)
    return table.assign(line=line, share=table.metric.isin(SHARES))


def _of_cell(runs: pd.DataFrame, share: bool, overlap: float) -> tuple[Estimate, str]:
    if runs.empty:
        return Estimate(nan, n=0), ""
    values = runs.value.tolist()
    if len(values) == 1 and share and runs.n_test.iloc[0] > 0:
        return binomial(values[0], int(runs.n_test.iloc[0])), "test videos"
    # From a mean of datasets others may be subtracted.
    limits = (-100.0 if runs.derived.iloc[0] or min(values) < 0 else 0.0, 100.0)
    unit = runs.unit.iloc[0] + CORRECTED * bool(overlap)
    return student(values, *(limits if share else (-inf, inf)), overlap), unit


def differences(
    frame: pd.DataFrame, study: Study, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Return a row per paired difference of tests: the first row minus the second.

    Args:
        pairs: by default those that the study compares.

    Columns: study, dataset, title, column, metric, row, minus, share, mean, low, high, n, unit,
    run_ids. A difference without a unit that both rows have is left out. Measurements are not
    compared.
    """
    rows = []
    pairs = dict.fromkeys(study.compare if pairs is None else pairs)
    tests = [name for name, column in study.columns.items() if column.stage != "measure"]
    own = frame[(frame.study == study.study) & frame.column.isin(tests)]
    for _, runs in own.groupby(["dataset", "column"], sort=False):
        wide, place = by_unit(runs), runs.iloc[0][PLACE].to_dict()
        for row, minus in pairs:
            one, unit = difference(wide, (row, minus), runs, study.overlap)
            if one:
                ids = runs[runs.row.isin((row, minus)) & runs.value.notna()].run_id.unique()
                two = {"row": row, "minus": minus, "share": place["metric"] in SHARES}
                rows.append(place | two | one._asdict() | {"unit": unit, "run_ids": " ".join(ids)})
    names = [*PLACE, "row", "minus", "share", *Estimate._fields, "unit", "run_ids"]
    return pd.DataFrame(rows, columns=names)


def by_unit(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of one dataset and column: a line per unit, a column per row."""
    return runs.drop_duplicates([*UNIT, "row"]).set_index([*UNIT, "row"]).value.unstack()


def paired(wide: pd.DataFrame, rows: Sequence[str]) -> pd.Series:
    """Return each unit's number of a row, of a row minus another, or of two such differences.

    Args:
        wide: of `by_unit`.
        rows: one, two or four. Of four, it is first minus second minus (third minus fourth).
    """
    wide = wide.reindex(columns=[*dict.fromkeys(rows)])
    units = pd.Series(0.0, wide.index)
    for sign, row in zip((1, -1, -1, 1), rows):
        numbers = wide[row]
        # A control is measured once per dataset, and stands for each of its seeds.
        if row in CONTROL_ROWS and len(rows) > 1:
            numbers = numbers.groupby(level="dataset_seed").transform("mean")
        units += sign * numbers
    return units.dropna()


def difference(
    wide: pd.DataFrame, rows: Sequence[str], runs: pd.DataFrame, overlap: float = 0.0
) -> tuple[Estimate | None, str]:
    """Return the interval of what `paired` returns, and its unit; None if no unit has all rows.

    Args:
        wide: of `by_unit`.
        runs: the numbers that `wide` has.
        overlap: of the study.
    """
    units = paired(wide, rows)
    if units.empty:
        return None, ""
    share, n_test = runs.metric.iloc[0] in SHARES, runs.n_test.max()
    unit = runs.unit.iloc[0] + CORRECTED * bool(overlap)
    if len(units) == 1 and len(rows) == 2 and share and n_test > 0:
        one, other = (float(wide[row][units.index[0]]) for row in rows)
        if min(one, other) >= 0:
            return binomial_difference(one, other, int(n_test)), "test videos"
    limit = 100.0 * max(1, len(rows) // 2) if share else inf
    return student(units.tolist(), -limit, limit, overlap), unit


def verdicts(frame: pd.DataFrame, study: Study, frozen: Frozen | None = None) -> pd.DataFrame:
    """Return a row per prediction: those of the frozen study, then those that were added since.

    A prediction holds if the interval lies within what it allows, and is refuted if it lies
    outside. Otherwise, or with fewer than six units, it is open. Of predictions in order, those
    after one that does not hold are not tested. A frozen one is judged by the runs
    that the frozen study wanted.

    Columns: dataset, title, column, metric, share, says, mean, low, high, n, unit, verdict, why,
    against (the number that contradicts most, with its seed), note, and `row` and `minus` of the
    prediction, or neither if it has four rows.
    """
    old = frozen.studies.get(study.study) if frozen else None
    own = frame[frame.study == study.study]
    began = min(filter(None, own.started), default="")
    before = [*old.predictions] if frozen and old and frozen.date <= (began or "~") else []
    rows, so_far = list[dict[str, Any]](), True
    for one in dict.fromkeys((*before, *study.predictions)):
        late = bool(began) and one not in before
        # The first dataset and column are those of its time.
        then = old if old and one in before else study
        then = then.model_copy(update={"overlap": study.overlap})
        judged = _judged(own[own.as_frozen] if one in before else own, then, one)
        if judged["verdict"] == "not run" and _judged(own, then, one)["verdict"] != "not run":
            judged["verdict"] = "not run as frozen"
        holds = judged["verdict"] == "holds"
        if study.in_order and not so_far and not judged["verdict"].startswith("not run"):
            judged |= {"verdict": "not tested", "why": "one before it does not hold"}
        so_far = so_far and holds
        rows.append(judged | {"note": "added after runs began" * late})
    return pd.DataFrame(rows)


def _judged(frame: pd.DataFrame, study: Study, one: Prediction) -> dict[str, Any]:
    """Return a prediction's number and verdict, by the numbers of a frame."""
    dataset = one.dataset or next(iter(study.shown))
    column = one.column or next(iter(study.columns))
    metric = study.columns[column].metric
    runs = frame[(frame.dataset == dataset) & (frame.column == column)]
    rows = [row for row in (one.row, one.minus, *(one.than or ())) if row]
    wide, (low, high) = by_unit(runs), one.bounds
    number, unit = difference(wide, rows, runs, study.overlap)
    units, against = paired(wide, rows), ""
    if len(units) > 1:
        worst = int(pd.concat([units - low, high - units], axis=1).min(axis=1).argmin())
        dataset_seed, seed = units.index[worst]
        against = f"{units.iloc[worst]:.1f} ({seed if dataset_seed < 0 else dataset_seed})"
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
        **{"unit": unit, "verdict": verdict, "why": why, "against": against},
        **({"row": "", "minus": ""} if one.than else {"row": one.row, "minus": one.minus}),
    }


@cache
def printed(key: str) -> pd.DataFrame:
    """Return a table of the paper as text, with its columns "C: ours"."""
    return read_csv(PAPER / f"{key}.csv")
