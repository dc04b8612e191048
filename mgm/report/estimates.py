"""Estimates of a study's numbers: per cell, per difference and per prediction, as frames."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.report.judge import judge
from mgm.report.people import by_person, over_people
from mgm.results.frame import NUMBERS, WORDS, examine_all, frame_of
from mgm.results.plan import RunPlan, read_plan
from mgm.results.result import LAST, RunStatus, log_lines
from mgm.results.statistics import (
    ENOUGH,
    Estimate,
    holm,
    over_seeds,
    p_value,
)
from mgm.spec import Augment, Finetune, Pretrain, Spec
from mgm.spec.compute import multiply_adds
from mgm.study.formula import QUOTED, Formula, Term, parse_formula
from mgm.study.load import lacking, read_studies
from mgm.study.quoted import Quote, quotes
from mgm.study.schema import CONTROLS, SHARES, Study, View
from mgm.study.selection import EVERY, Selection

AT = ["dataset", "dataset_seed", "seed", "column", "row"]
CELL = ["dataset", "column", "row"]
NOTHING = pd.Series(
    [], pd.MultiIndex.from_arrays([[], []], names=["dataset_seed", "seed"]), dtype="float64"
)
NO_NUMBER = Estimate(nan, n=0)
# The columns of `cells_of`, with what a cell has that no run fills.
EMPTY: dict[str, Any] = {
    **dict.fromkeys(CELL, ""),
    "control": False,
    **NO_NUMBER._asdict(),
    "wanted": 0,
    "status": "finished",
    "why": "",
    "paper": nan,
    **dict.fromkeys(("note", "run_ids", "pretraining", "commit", "metric", "line", *WORDS), ""),
    **dict.fromkeys(NUMBERS, nan),
    "values": NOTHING,
    "fits": nan,
    "videos": nan,
}
FLOATS = {name: "float64" for name, value in EMPTY.items() if isinstance(value, float)}
OVER_PEOPLE = ", over seeds and people"


@dataclass(frozen=True)
class StudyResults:
    """A study with its runs, and the frames of what they came to.

    Attributes:
        plan: the cells and runs of the folder of results, which studies may share.
        frame: all numbers of the folder (`mgm.results.frame.read_frame`).
        statuses: the status of each run of the plan.
        folder: the folder of the runs.
        alone: whether no other study shares the folder.
        lacking: what the study's file has, and the plan lacks.
    """

    plan: RunPlan
    frame: pd.DataFrame
    study: Study
    statuses: Mapping[str, RunStatus]
    folder: Path
    alone: bool = True
    lacking: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The study's rows of the frame."""
        return self.frame[self.frame.study == self.study.study].reset_index(drop=True)

    @cached_property
    def values(self) -> pd.DataFrame:
        return values_of(self.runs, self.study.complete)

    @cached_property
    def by_cell(self) -> dict[tuple[str, str, str], pd.Series]:
        """Map dataset, column and row to the values, per dataset seed and seed."""
        values = self.values.set_index(["dataset_seed", "seed"])
        return {place: cell.value for place, cell in values.groupby(CELL, sort=False)}  # type: ignore[misc]

    @cached_property
    def cells(self) -> pd.DataFrame:
        return cells_of(self)

    @cached_property
    def differences(self) -> pd.DataFrame:
        return differences_of(self)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return predictions_of(self)


def read_results(folder: Path, weights: bool = False) -> dict[str, StudyResults]:
    """Read the studies of a results folder, by their names.

    Args:
        weights: verify the weights too.
    """
    plan = read_plan(folder)
    studies = read_studies(folder, plan)
    statuses = examine_all(folder, plan.specs, weights=weights)
    frame, lacks = frame_of(plan, statuses), tuple(lacking(folder, plan))
    return {
        name: StudyResults(plan, frame, study, statuses, folder, len(studies) == 1, lacks)
        for name, study in studies.items()
    }


def unit_of(study: Study) -> str:
    """Return the name of a study's sampling unit."""
    if not study.dataset_seeds:
        return "seed"
    return "dataset" if study.unit == "datasets" else "run"


def values_of(runs: pd.DataFrame, complete: bool) -> pd.DataFrame:
    """Return the runs whose numbers count, as `AT`, `value`, `control` and `run_id`.

    Args:
        complete: leave out a column of a dataset seed until all its rows are done.
    """
    if complete:
        absent = runs.value.isna() & ~runs.control
        incomplete = absent.groupby([runs[name] for name in AT[:4]]).transform("any")
        runs = runs[runs.control | ~incomplete]
    return runs[runs.value.notna()][[*AT, "value", "control", "run_id"]]


def estimate(
    found: StudyResults,
    dataset: str,
    formula: str | Formula,
    column: str = "",
    seeds: Selection = EVERY,
) -> Estimate | None:
    """Return a mean "A" or a paired difference "A minus B", with its interval over units.

    Args:
        dataset: or an effect.
        column: the column of rows without their own; by default the study's first.
        seeds: use the seeds that it selects.

    Returns:
        The estimate; None without a result.
    """
    if isinstance(formula, str):
        formula = parse_formula(formula)
    column = column or found.study.first_column
    units = units_of(found, dataset, formula, column, seeds)
    if not len(units):
        return None
    shares = (is_share(found.study, term.row, term.column or column) for term in formula.terms)
    if formula.is_ratio or not all(shares):
        return over_seeds(units.tolist())
    return over_seeds(units.tolist()).within(0 if len(formula.terms) == 1 else -100, 100)


def units_of(
    found: StudyResults, dataset: str, formula: Formula, column: str, seeds: Selection = EVERY
) -> pd.Series:
    """Return a formula's number per sampling unit (`per_unit`).

    An effect's number is the mean over its high datasets minus the mean over its low ones.
    """
    if effect := found.study.effects.get(dataset):
        high, low = (
            pd.concat([units_of(found, name, formula, column, seeds) for name in names], axis=1)
            for names in (effect.high, effect.low)
        )
        return (high.mean(axis=1, skipna=False) - low.mean(axis=1, skipna=False)).dropna()
    parts = [
        found.by_cell.get((dataset, term.column or column, term.row), NOTHING)
        for term in formula.terms
    ]
    series = combined(formula, parts, [term.row in CONTROLS for term in formula.terms])
    chosen = [seeds.has_seeds(*pair) for pair in series.index]
    return per_unit(series[chosen], found.study.unit)


def is_share(study: Study, row: str, column: str) -> bool:
    """Return whether a cell's number is a share (%)."""
    return row in CONTROLS or (column in study.columns and study.columns[column].metric in SHARES)


def cells_of(found: StudyResults) -> pd.DataFrame:
    """Return a row per dataset, column and row, finished or not; quotes without runs are last.

    Columns: `dataset`, `column`, `row`, `control`; `mean`, `low`, `high`, `n` (units) and `unknown`
    of our runs, empty without a number; `wanted` (runs), `status` (finished, partial, quoted,
    altered, failed, running or not run), `why`, `paper` and `note` (the quoted number), `run_ids`,
    `pretraining` (its runs), `commit` and `metric`; the runs' own fields; `line`, the row's in
    figures; `values`, the numbers per dataset seed and seed; `fits`, the top-1 on training clips
    (%); `videos`, how many test videos, or groups of them, there are. The paper's suite has neither
    of the last two.
    """
    study, printed, rows = found.study, quotes(found.study.study), list[dict[str, Any]]()
    fits = fitted(found)
    for place, runs in found.runs.groupby(CELL, sort=False):
        dataset, column, row = map(str, place)
        status = status_of(runs.state)
        believed = status in ("finished", "partial")
        one = estimate(found, dataset, Formula((Term(row),), (1,)), column) if believed else None
        own, quote = runs.iloc[0], printed.pop((dataset, row, column), Quote(nan, ""))
        rows.append(
            EMPTY
            | {name: own[name] for name in (*CELL, "control", "metric", *WORDS, *NUMBERS)}
            | (one or NO_NUMBER)._asdict()
            | {
                "wanted": len(runs),
                "status": status,
                "why": "; ".join(runs.why[runs.state != "finished"].drop_duplicates()),
                "paper": quote.value,
                "note": quote.note,
                "run_ids": " ".join(runs.run_id),
                "pretraining": " ".join(filter(None, runs.pretraining.unique())),
                "commit": " ".join(runs.commit[runs.value.notna()].drop_duplicates()),
                "line": study.rows[row].line or row if row in study.rows else row,
                "values": found.by_cell.get((dataset, column, row), NOTHING),
                "fits": fits.get((dataset, column, row), nan),
                "videos": runs.groups.min() if found.alone else nan,
            }
        )
    for (dataset, row, column), quote in printed.items():
        if dataset in study.shown:
            ours = _computed(found, dataset, row, column)
            rows.append(
                EMPTY
                | {"dataset": dataset, "column": column, "row": row}
                | ({"status": "quoted"} if ours is None else Estimate(ours)._asdict())
                | {"paper": quote.value, "note": quote.note}
                | {"metric": study.columns[column].metric if column in study.columns else column}
                | {"line": quote.line, "epochs": quote.epochs}
            )
    return pd.DataFrame(rows, columns=[*EMPTY]).astype(FLOATS | {"control": bool})


def _computed(found: StudyResults, dataset: str, row: str, column: str) -> float | None:
    """Return what the paper prints beside its results, for a row that is run here.

    The columns are GFLOPs, of a view, and Samples, the videos of pretraining.
    """
    runs = found.runs[(found.runs.dataset == dataset) & (found.runs.row == row)]
    runs = runs[runs.value.notna()]
    if not len(runs):
        return None
    spec = found.plan.specs[runs.run_id.iloc[0]]
    start = found.statuses.get(runs.pretraining.iloc[0])
    if column == "GFLOPs" and isinstance(spec, Finetune):
        return multiply_adds(spec) / 1e9
    if column == "Samples" and start and start.result:
        return float(start.result["data"]["train"])
    return None


def fitted(found: StudyResults) -> dict[tuple[str, str, str], float]:
    """Map dataset, column and row of a fine-tuned cell to how much of its training it fits.

    It is the top-1 on training clips (%) at the end: the mean of the last `LAST` lines of the runs'
    logs. Runs that mix clips or change them at random have none, since no model fits those. The
    paper's tables have none either.
    """
    ends: dict[tuple[str, str, str], list[float]] = {}
    if not found.alone:
        return {}
    done = found.runs[(found.runs.stage == "finetune") & (found.runs.state == "finished")]
    for value in done.itertuples():
        run = found.plan.specs[str(value.run_id)]
        assert isinstance(run, Finetune)
        if run.augment.model_copy(update={"repeats": 1}) == Augment():
            lines = log_lines(found.folder / run.run_id)[-LAST:]
            place = str(value.dataset), str(value.column), str(value.row)
            ends.setdefault(place, []).extend(
                line["train_top1"] for line in lines if "train_top1" in line
            )
    return {place: sum(values) / len(values) for place, values in ends.items() if values}


def repeats_the_paper(specs: Iterable[Spec]) -> bool:
    """Return whether these runs have published videos, and the paper's models and schedules."""
    return not any(
        spec.data.digest
        or (isinstance(spec, Pretrain) and (spec.optim.steps or spec.model.misnamed))
        for spec in specs
    )


def selected(found: StudyResults, view: View) -> pd.DataFrame:
    """Return the cells that a view shows, with what tables and figures are made of.

    Columns, beside those of `cells_of`:
        title: of the dataset. panel: dataset and column, without what all cells have in common.
        mark: the row's, as the study says.
        by: the sampling unit, datasets or runs; unit: its name.
        share: whether it is a share (%). evaluated: whether it is a column of the study.
        tested: whether it is a test, and no measurement.
        folder: of the runs.
        repeats: whether the runs repeat the paper's, so that its other rows stand beside them.
        strong: whether it differs from 0; False, since a difference alone can.
    """
    study, every = found.study, found.frame
    if view.dataset_seeds or view.seeds:
        chosen = [view.has_seeds(*pair) for pair in zip(every.dataset_seed, every.seed)]
        found = replace(found, frame=every[chosen])
    places = found.cells[["dataset", "row", "column", "line"]].itertuples(index=False)
    table = found.cells[[study.shows(view, *place) for place in places]]
    titles = table.dataset.map(study.shown).fillna(table.dataset)
    panel = titles + ": " + table.column
    if table.dataset.nunique() == 1:
        panel = table.column
    elif table.column.nunique() == 1:
        panel = titles
    marks = {name: row.mark for name, row in study.rows.items()}
    return table.assign(
        title=titles,
        panel=panel,
        share=[is_share(study, row, column) for row, column in zip(table.row, table.column)],
        mark=table.row.map(marks).fillna(""),
        evaluated=table.column.isin(list(study.columns)),
        tested=table.column.isin(study.tests),
        by=study.unit,
        unit=unit_of(study),
        folder=str(found.folder),
        repeats=repeats_the_paper(found.plan.specs.values()),
        strong=False,
    )


def selected_differences(found: StudyResults, family: str, column: str) -> pd.DataFrame:
    """Return the differences of a family in a column, as `selected` returns cells."""
    table = found.differences
    # A difference of single runs shows nothing.
    table = table[(table.family == family) & (table.column == column) & (table.n > 1)]
    lines: list[Any] = [*table.itertuples()]
    # They are per unit already. A unit is no person.
    values = [
        NOTHING
        if family.endswith(OVER_PEOPLE)
        else units_of(found, line.dataset, parse_formula(line.says), column)
        for line in lines
    ]
    same = {name: value for name, value in EMPTY.items() if name not in table.columns}
    same |= dict.fromkeys(("share", "evaluated", "tested"), True)
    same |= {
        "title": table.dataset.map(found.study.compared),
        "row": table.says,
        "values": pd.Series(values, table.index, dtype="object"),
        "repeats": False,
        "run_ids": [
            run_ids_of(found, line.dataset, parse_formula(line.says), column) for line in lines
        ],
        "by": "runs",
        "unit": unit_of(found.study),
        "strong": table.holm,
    }
    return table.assign(**same)


def run_ids_of(
    found: StudyResults, dataset: str, formula: Formula, column: str, seeds: Selection = EVERY
) -> str:
    """Return the runs whose numbers a formula takes, of a dataset or an effect."""
    chosen = found.values[found.values.dataset.isin(found.study.datasets_of(dataset))]
    chosen = chosen[[seeds.has_seeds(*pair) for pair in zip(chosen.dataset_seed, chosen.seed)]]
    runs = list[str]()
    for term in formula.terms:
        own = chosen[(chosen.row == term.row) & (chosen.column == (term.column or column))]
        runs += own.run_id.tolist()
    return " ".join(dict.fromkeys(runs))


def pictures_of(found: StudyResults, name: str) -> pd.DataFrame:
    """Return the runs that write a view's arrays, with `status`, `why` and the file's `path`."""
    rows = []
    for cell in found.plan.cells:
        if name in cell.views and not cell.metric:
            status, path = found.statuses[cell.run_id], found.folder / cell.run_id / "arrays.npz"
            state, why = status.state, f"{cell.run_id}: {status.why}"
            if status.result and not path.exists():
                state = "not run"
                why = f"{path} is missing; delete its result.json and run it again"
            digest = (status.result or {}).get("files", {}).get("arrays.npz", "")
            rows.append((state, why, cell.run_id, str(path), digest, found.plan.name))
    return pd.DataFrame(rows, columns=["status", "why", "run_ids", "path", "digest", "scale"])


def differences_of(found: StudyResults) -> pd.DataFrame:
    """Return a row per difference of the study's families, with the verdict of Holm's method.

    Differences are of tests, and not of measured columns.

    The columns are `dataset`, `column`, `family`, `first`, `second`, `says`, those of an
    `Estimate`, and `holm`: whether it differs from 0 at a family-wise level of 5 %: a family in one
    column, on all datasets or of all effects. Fewer than `ENOUGH` units say nothing. `dataset` may
    be an effect.

    If the study says how to read people from paths, each family stands here a second time, with
    intervals over seeds and people. Its name ends in `OVER_PEOPLE`.
    """
    study, rows = found.study, []
    ways: dict[str, Callable[[str, str, str], Estimate | None]] = {
        "": lambda dataset, text, column: estimate(found, dataset, text, column)
    }
    if study.people:
        people = by_person(found.values, found.folder, study.people)
        ways[OVER_PEOPLE] = partial(over_people, people)
    for dataset, column in product(study.compared, study.tests):
        for (family, texts), (ending, interval) in product(study.compare.items(), ways.items()):
            for text in _pairs(study, column, texts):
                if one := interval(dataset, text, column):
                    first, second = parse_formula(text).terms
                    place = dataset, column, family + ending, first.row, second.row, text
                    rows.append((*place, *one, p_value(one)))
    names = ["dataset", "column", "family", "first", "second", "says", *Estimate._fields, "p"]
    table = pd.DataFrame(rows, columns=names).assign(holm=False)
    is_effect = table.dataset.isin(list(study.effects))
    for _, shown in table[table.n >= ENOUGH].groupby(["column", "family", is_effect]):
        table.loc[shown.index, "holm"] = holm(shown.p.tolist())
    return table.drop(columns="p")


def _pairs(study: Study, column: str, texts: Iterable[str]) -> Iterable[str]:
    """Yield the differences of a column. One that names a column stands in the first."""
    for text in texts:
        first, second = parse_formula(text).terms
        if (first.column or second.column) and column != study.first_column:
            continue
        others = [row for row in study.rows if row != first.row]
        for row in others if second.row == "*" else [second.row]:
            yield text.replace("minus *", f"minus {row}")


def predictions_of(found: StudyResults) -> pd.DataFrame:
    """Return a row per prediction with what it came to.

    The columns are `dataset`, `column`, `says`, `dataset_seeds`, `seeds`, `since`, those of an
    `Estimate`, `verdict` and `why`.
    """
    rows = []
    for one in found.study.predictions:
        statement, column = one.statement, one.column or found.study.first_column
        seeds = found.study.selection_of(one)
        number = estimate(found, one.dataset, statement.formula, column, seeds)
        place = one.dataset, column, one.says, one.dataset_seeds, one.seeds, one.since
        rows.append((*place, *(number or NO_NUMBER), *judge(statement, number)))
    names = ["dataset", "column", "says", "dataset_seeds", "seeds", "since", *Estimate._fields]
    return pd.DataFrame(rows, columns=[*names, "verdict", "why"])


def filled(found: StudyResults, text: str, intervals: bool = False) -> str:
    """Return a text with its {DATASET: A minus B} replaced by numbers.

    It is empty if a number is not known yet.

    Args:
        intervals: it is empty too if a number is of one run.
    """
    parts = QUOTED.split(text)
    numbers = [estimate(found, *part.split(": ", 1)) for part in parts[1::2]]
    if any(one is None or (intervals and one.n == 1) for one in numbers):
        return ""
    parts[1::2] = map(in_words, numbers)
    return "".join(parts)


def in_words(one: Estimate | None) -> str:
    """Return "7.8 [4.4, 11.3]", "7.8 (two runs)" or "not run"."""
    return f"{one.mean:z.1f} {interval_of(one)}".strip() if one else "not run"


def interval_of(one: Any) -> str:
    """Return "[4.4, 11.3]" or why there is no interval, of an `Estimate` or a row of a frame."""
    # z: "0.0", never "-0.0".
    if isfinite(one.low):
        return f"[{one.low:z.1f}, {one.high:z.1f}]"
    return f"({one.unknown})" if one.unknown else ""


def per_unit(values: pd.Series, unit: str) -> pd.Series:
    """Return a number per sampling unit: per dataset, or per run if the study says so.

    A dataset's number is the mean over its seeds. Student's t interval over datasets then covers
    both: with y_ds = mu + a_d + e_ds for dataset d and seed s, the sample variance of their means,
    divided by their number, is an unbiased estimate of the variance of the total mean. More seeds
    per dataset seed reduce only the part of e.

    Args:
        values: by dataset seed and seed. The dataset seed of a dataset that is not drawn is -1.
        unit: datasets or runs.
    """
    drawn = (values.index.get_level_values("dataset_seed") >= 0).all()
    return values.groupby("dataset_seed").mean() if unit == "datasets" and drawn else values


def minus(frame: pd.DataFrame, row: str) -> pd.DataFrame:
    """Return the cells of a column with what each is above a row of its dataset.

    Args:
        frame: cells of one column, as `selected` returns them.

    Returns:
        The frame with the paired difference as `mean`, `low`, `high` and `n`, for cells that have a
        run in common with the row.
    """
    subtracted = frame[frame.row == row].set_index("dataset")["values"]
    frame = frame[frame.dataset.isin(subtracted.index)]
    units = [
        per_unit((values - subtracted[dataset]).dropna(), by)
        for dataset, values, by in zip(frame.dataset, frame["values"], frame["by"])
    ]
    frame = frame[[len(one) > 0 for one in units]]
    limits = frame.share.map({True: 100.0, False: inf})
    found = [
        over_seeds(one.tolist()).within(-limit, limit)
        for one, limit in zip(filter(len, units), limits)
    ]
    estimates = pd.DataFrame(found, frame.index, Estimate._fields)
    return frame.assign(**{name: estimates[name] for name in Estimate._fields})


def combined(
    formula: Formula, parts: Sequence[pd.Series | float], once: Sequence[bool]
) -> pd.Series:
    """Return a formula's number per dataset seed and seed that all its terms have.

    Args:
        parts: the values of each term, or a number.
        once: whether a term is measured once per dataset seed, as controls are. Its mean then
            stands for each run of the other terms.
    """
    series = [part for part in parts if isinstance(part, pd.Series)]
    varied = [part for part, is_once in zip(parts, once) if not is_once]
    leading = [part for part in varied if isinstance(part, pd.Series)] or series
    index = leading[0].index
    for other in leading[1:]:
        index = index.intersection(other.index)
    aligned = list[pd.Series | float]()
    for part, is_once in zip(parts, once):
        if isinstance(part, pd.Series) and is_once and len(leading) < len(series):
            part = part.groupby("dataset_seed").mean().reindex(index, level="dataset_seed")
        elif isinstance(part, pd.Series):
            part = part.reindex(index)
        aligned.append(part)
    return formula.of(aligned).dropna()


def status_of(states: Iterable[str]) -> str:
    """Return a cell's status from the statuses of its runs.

    One altered run makes its cell altered. "failed" goes before "running" and "not run".
    """
    every = {*states}
    if "altered" in every:
        return "altered"
    if "finished" in every:
        return "finished" if every == {"finished"} else "partial"
    return next((state for state in ("failed", "running") if state in every), "not run")
