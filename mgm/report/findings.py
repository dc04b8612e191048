"""What a study found: its numbers, differences and predictions as frames.

Every number shown of a study comes from here.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf, isnan, nan
from os.path import commonprefix
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from mgm.errors import UserError
from mgm.results.frame import commit_of, examine_all
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, holm, over_seeds, over_seeds_and_people, p_value
from mgm.study.formula import Statement, Term, parse_formula
from mgm.study.registry import Registry
from mgm.study.runs import Value
from mgm.study.schema import (
    CONTROLS,
    Column,
    Prediction,
    Study,
)
from mgm.study.suite import registry_of

Verdict = Literal["holds", "refuted", "open", "not run"]
AT = ["dataset", "draw", "seed", "column", "row"]
OVER_PEOPLE = ", over seeds and people"
NAMED = ["dataset", "column", "family", "first", "second", "says"]
# How the tables of a scale are read. Their columns have to be named.
TABLES = Study.model_construct(
    study="", question="", datasets={}, rows={}, columns={"": Column()}, unit="runs", complete=False
)


@dataclass(frozen=True)
class Findings:
    """A study with its runs, or a scale with its tables in place of datasets.

    Attributes:
        statuses: the status of each run of the registry.
        results: the folder of the runs.
    """

    registry: Registry
    statuses: Mapping[str, RunStatus]
    results: Path

    @property
    def study(self) -> Study:
        return self.registry.scale.study or TABLES

    @property
    def unit_name(self) -> str:
        """The name of the study's sampling unit."""
        if not self.study.draws:
            return "seed"
        return "dataset" if self.study.unit == "draws" else "run"

    @property
    def _values(self) -> Iterable[Value]:
        if self.registry.scale.study:
            return self.registry.values
        return (
            Value(name, None, run.seed, cell.row, cell.column, run, cell.metric)
            for name, table in self.registry.tables.items()
            for cell in table.cells
            for run in cell.runs
        )

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per number: `AT`, `value` (empty: no result), `n_test`, `control`, and its run.

        `draw` is -1 for a dataset that is not drawn. The run's columns are `run_id`, `status` and
        `commit`.
        """
        rows = []
        for entry in self._values:
            status = self.statuses[entry.run.run_id]
            result: Mapping[str, Any] = status.result or {}
            rows.append(
                {name: getattr(entry, name) for name in (*AT, "control")}
                | {"draw": -1 if entry.draw is None else entry.draw, "run_id": entry.run.run_id}
                | {"value": result.get("metrics", {}).get(entry.metric)}
                | {"n_test": result.get("n_test") or 1, "status": status.state}
                | {"commit": commit_of(result) if result else ""}
            )
        return pd.DataFrame(rows).astype({"value": "float64"}).replace([-inf, inf], nan)

    @cached_property
    def values(self) -> pd.DataFrame:
        """A row per number over all folds of a dataset, and over the datasets of an average.

        The columns are `AT`, `value`, `control` and `run_ids` (joined by spaces). If the study
        counts complete draws alone, a column of a draw is left out until all its rows are done.
        """
        folds = self.runs.assign(right=self.runs.value * self.runs.n_test)
        merged = folds.groupby(AT, sort=False).agg(
            right=("right", lambda part: part.sum(skipna=False)),
            n_test=("n_test", "sum"),
            control=("control", "first"),
            run_ids=("run_id", " ".join),
        )
        merged["value"] = merged.right / merged.n_test
        table = merged.reset_index()
        if self.study.complete:
            absent = table.value.isna() & ~table.control
            incomplete = absent.groupby([table[name] for name in AT[:4]]).transform("any")
            table = table[table.control | ~incomplete]
        table = table[table.value.notna()]
        tables = [table]
        for name, datasets in self.study.averages.items():
            averaged = table[table.dataset.isin(datasets)]
            groups = averaged.groupby(AT[1:], sort=False)
            mean = groups.agg(
                value=("value", "mean"),
                count=("value", "size"),
                control=("control", "first"),
                run_ids=("run_ids", " ".join),
            ).reset_index()
            tables.append(mean[mean["count"] == len(datasets)].assign(dataset=name))
        return pd.concat(tables, ignore_index=True)[[*AT, "value", "control", "run_ids"]]

    def estimate(
        self,
        dataset: str,
        text: str,
        column: str = "",
        draws: tuple[int, ...] = (),
        seeds: tuple[int, ...] = (),
    ) -> Estimate | None:
        """Return a mean "A" or a paired difference "A minus B", with its interval over units.

        Args:
            column: the column of rows without their own; by default the study's first.
            draws: use these draws alone. Empty: all.
            seeds: use these seeds alone. Empty: all.

        Returns:
            The estimate; None without a result.
        """
        return self._over_units(dataset, *_difference(text), column, draws, seeds)

    def per_unit(
        self,
        dataset: str,
        first: Term,
        second: Term | None = None,
        column: str = "",
        draws: tuple[int, ...] = (),
        seeds: tuple[int, ...] = (),
    ) -> pd.Series:
        """Return a number per sampling unit: per draw, or per run if the study says so.

        A draw's number is the mean over its seeds. Student's t interval over draws then covers
        both: with y_ds = mu + a_d + e_ds for draw d and seed s, the sample variance of the draws'
        means, divided by their number, is an unbiased estimate of the variance of the total mean.
        More seeds per draw reduce only the part of e.
        """
        series = self._series(dataset, first, column)
        if second:
            other = self._series(dataset, second, column)
            # A control is measured once per draw.
            if second.row in CONTROLS:
                other = other.groupby("draw").first().reindex(series.index, level="draw")
            series = (series - other).dropna()
        kept = series.index.to_frame()
        if draws:
            series = series[kept.draw.isin(draws)]
        if seeds:
            series = series[kept.seed.isin(seeds)]
        drawn = (series.index.get_level_values("draw") >= 0).all()
        return series.groupby("draw").mean() if self.study.unit == "draws" and drawn else series

    def _series(self, dataset: str, term: Term, column: str) -> pd.Series:
        column = term.column or column or next(iter(self.study.columns))
        chosen = self._by_cell.get((dataset, column, term.row))
        if chosen is None:
            index = pd.MultiIndex.from_arrays([[], []], names=["draw", "seed"])
            return pd.Series([], index=index, dtype="float64")
        return chosen.set_index(["draw", "seed"]).value

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        return dict(tuple(self.values.groupby(["dataset", "column", "row"], sort=False)))  # type: ignore[arg-type]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per dataset, column and row of the study.

        The columns are `dataset`, `column`, `row`, `control`, `mean`, `low`, `high`, `n` (units)
        and `run_ids`.
        """
        rows = [
            (*cell, bool(runs.control.iloc[0]), *over_seeds(units.tolist()), " ".join(runs.run_ids))
            for cell, runs in self._by_cell.items()
            for units in [self.per_unit(cell[0], Term(cell[2]), column=cell[1])]
        ]
        names = ["dataset", "column", "row", "control", *Estimate._fields, "run_ids"]
        return pd.DataFrame(rows, columns=names)

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row per cell that the figure over a number draws; none if the study names no number.

        Columns and rows that have one number alone are left out.

        The columns are `dataset`, `column`, `line` (what the names of a line's rows share), `x`
        (NaN for a row without pretraining), `mean`, `low`, `high` and `n`. Controls are left out.
        """
        lines = [
            (row, *place) for field in self.study.over for row, place in self._lines(field).items()
        ]
        models = self.cells[~self.cells.control]
        table = models.merge(pd.DataFrame(lines, columns=["row", "line", "x"]))
        several = table.groupby(["dataset", "column"]).x.transform("nunique") > 1
        names = ["dataset", "column", "line", "x", *Estimate._fields]
        return table.loc[several, names].reset_index(drop=True)

    def _lines(self, field: str) -> dict[str, tuple[str, float]]:
        """Return each row's line and number. Rows of a line differ in `field` alone."""
        groups: dict[Any, dict[str, float]] = {}
        for name, row in self.study.rows.items():
            changes = {key: value for key, value in row.changes.items() if key != field}
            x = row.changes.get(field, nan)
            if field in row.changes or row.start == "none":
                groups.setdefault((row.start, str(sorted(changes.items()))), {})[name] = float(x)
        lines = {}
        for group in groups.values():
            if len(group) == 1 and not isnan(*group.values()):
                continue  # a row at one number is no line
            # Names are compared character by character, as they should be.
            shared = re.sub(r"[ ,\d]*$", "", commonprefix(list(group)))  # noqa: RUF071
            for name, x in group.items():
                lines[name] = (shared if len(group) > 1 and shared else name, x)
        return lines

    @cached_property
    def differences(self) -> pd.DataFrame:
        """A row per difference of the study's families, with the verdict of Holm's method.

        The columns are `dataset`, `column`, `family`, `first`, `second`, `says`, `mean`, `low`,
        `high`, `n` and `holm`: whether it differs from 0 at a family-wise level of 5 %.

        If the study says how to read people from paths, each family stands here a second time, with
        intervals over seeds and people. Its name ends in `OVER_PEOPLE`.
        """
        rows = []
        for dataset, column in product(self.study.shown, self.study.columns):
            for family, texts in self.study.compare.items():
                pairs = self._pairs(column, texts)
                rows += self._family(dataset, column, family, pairs, self._over_units)
                if self.study.people:
                    name = family + OVER_PEOPLE
                    rows += self._family(dataset, column, name, pairs, self._over_people)
        return pd.DataFrame(rows, columns=[*NAMED, *Estimate._fields, "holm"])

    def _pairs(self, column: str, texts: Iterable[str]) -> list[tuple[str, Term, Term]]:
        """Return the differences of a column. One that names a column stands in the first."""
        pairs = []
        for text in texts:
            first, second = _difference(text)
            assert second is not None
            if (first.column or second.column) and column != next(iter(self.study.columns)):
                continue
            others = [row for row in self.study.rows if row != first.row]
            named = others if second.row == "*" else [second.row]
            pairs += [
                (text.replace("minus *", f"minus {row}"), first, second._replace(row=row))
                for row in named
            ]
        return pairs

    def _family(
        self,
        dataset: str,
        column: str,
        family: str,
        pairs: list[tuple[str, Term, Term]],
        interval: Callable[[str, Term, Term, str], Estimate | None],
    ) -> list[dict[str, Any]]:
        rows = [
            dict(zip(NAMED, (dataset, column, family, first.row, second.row, says)))
            | estimate._asdict()
            for says, first, second in pairs
            if (estimate := interval(dataset, first, second, column))
        ]
        passes = holm([p_value(estimate_of(row)) for row in rows])
        return [row | {"holm": passed} for row, passed in zip(rows, passes)]

    def _over_units(self, *place: Any) -> Estimate | None:
        units = self.per_unit(*place)
        return over_seeds(units.tolist()) if len(units) else None

    def _over_people(self, dataset: str, first: Term, second: Term, column: str) -> Estimate | None:
        """Return a difference over seeds and people; None without two of each."""
        first_SP, second_SP = (
            self._people_by_cell.get((dataset, term.column or column, term.row))
            for term in (first, second)
        )
        if first_SP is None or second_SP is None:
            return None
        difference_SP = (first_SP - second_SP).dropna().to_numpy(float)
        return over_seeds_and_people(difference_SP) if min(difference_SP.shape) > 1 else None

    @cached_property
    def _people_by_cell(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Map dataset, column and row to accuracies, one line per run and one column per person."""
        cells = self.people.groupby(["dataset", "column", "row"], sort=False)
        return {
            place: cell.pivot_table("value", ["draw", "seed"], "person")  # type: ignore[misc]
            for place, cell in cells
        }

    @cached_property
    def people(self) -> pd.DataFrame:
        """A row per number of `values` and person: `AT`, `person` and `value`, the accuracy (%).

        Controls, and measurements without a prediction per video, are left out.

        Raises:
            UserError: the study's `people` is not found in a path.
        """
        rows: list[dict[str, Any]] = []
        runs = self.runs[self.runs.value.notna() & ~self.runs.control]
        for run in runs.to_dict("records"):
            path = self.results / run["run_id"] / "predictions.csv"
            if not path.exists():
                continue
            table = pd.read_csv(path, dtype=str)
            person = table.path.str.extract(self.study.people).iloc[:, 0]
            if person.isna().any():
                raise UserError(
                    f"{path}: {table.path[person.isna()].iloc[0]} has no person by the study's "
                    f"`people`, {self.study.people!r}"
                )
            # A column per classifier.
            right = 100 * table.iloc[:, 2:].eq(table.label, axis=0).mean(axis=1)
            place = {name: run[name] for name in AT}
            rows += [
                place | {"person": name, "value": value}
                for name, value in right.groupby(person).mean().items()
            ]
        table = pd.DataFrame(rows, columns=[*AT, "person", "value"])
        return table.merge(self.values[AT])

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row per prediction with what it came to.

        The columns are `dataset`, `column`, `says`, `draws`, `seeds`, `since`, `late`, `mean`,
        `low`, `high`, `n`, `verdict` and `why`.
        """
        rows, copied = [], ["dataset", "column", "says", "draws", "seeds", "since", "late"]
        for prediction in self.study.predictions:
            text = prediction.says[: prediction.says.rindex(f" {prediction.statement.relation}")]
            estimate = self.estimate(
                prediction.dataset, text, prediction.column, prediction.draws, prediction.seeds
            )
            verdict, why = verdict_of(prediction.statement, estimate, prediction.strict)
            rows.append(
                {name: getattr(prediction, name) for name in copied}
                | {"column": prediction.column or next(iter(self.study.columns))}
                | (estimate or Estimate(nan, n=0))._asdict()
                | {"verdict": verdict, "why": why}
            )
        return pd.DataFrame(rows, columns=[*copied, *Estimate._fields, "verdict", "why"])

    def tested_by(self, prediction: Prediction) -> pd.DataFrame:
        """Return the rows of `runs` that test a prediction.

        Controls count only if it is about controls alone: they may be measured at any time.
        """
        first = next(iter(self.study.columns))
        places = [
            (term.row, term.column or prediction.column or first)
            for term in prediction.statement.formula.terms
        ]
        runs = self.runs[self.runs.dataset == prediction.dataset]
        runs = runs[pd.MultiIndex.from_frame(runs[["row", "column"]]).isin(places)]
        if not runs.control.all():
            runs = runs[~runs.control]
        if prediction.draws:
            runs = runs[runs.draw.isin(prediction.draws)]
        if prediction.seeds:
            runs = runs[runs.seed.isin(prediction.seeds)]
        return runs

    def filled(self, text: str) -> str:
        """Return a text with its {DATASET: A minus B} replaced by numbers.

        It is empty if a number is not known yet.
        """
        parts = re.split(r"\{([^{}]+)\}", text)
        estimates = [self.estimate(*part.split(": ", 1)) for part in parts[1::2]]
        if None in estimates:
            return ""
        parts[1::2] = map(in_words, estimates)
        return "".join(parts)


def read_findings(results: Path) -> Findings:
    """Read what the study or the scale of a results folder found."""
    registry = registry_of(results)
    return Findings(registry, examine_all(results, registry.specs), results)


def verdict_of(
    statement: Statement, estimate: Estimate | None, strict: bool
) -> tuple[Verdict, str]:
    """Return what a prediction came to, and why.

    - above or below a bound: it holds if the whole interval is on that side. It is refuted if the
      mean is not.
    - within a bound of 0: it holds if the whole interval is. It is refuted if the mean is not.
    - level: it holds if the interval holds 0, however wide it is. Otherwise it is refuted.

    Everything else is open. A strict prediction is never open, but refuted.
    """
    if estimate is None:
        return "not run", ""
    mean, low, high = estimate.mean, estimate.low, estimate.high
    relation, bound = statement.relation, statement.bound
    if relation == "level":
        holds = low <= 0 <= high
        return ("holds", "") if holds else ("refuted", "the interval does not hold 0")
    holds, refuted = {
        "within": (-bound <= low and high <= bound, abs(mean) > bound),
        "above": (low > bound, mean <= bound),
        "below": (high < bound, mean >= bound),
    }[relation]
    if holds or refuted:
        return ("holds" if holds else "refuted"), ""
    why = f"the interval {'passes' if relation == 'within' else 'holds'} {bound:g}"
    if not estimate.has_interval:
        why = "there is no interval"
    return ("refuted" if strict else "open"), why


def in_words(estimate: Estimate | None) -> str:
    """Return "7.8 [4.4, 11.3]", or "not run"."""
    if estimate is None:
        return "not run"
    # z: "0.0", never "-0.0".
    interval = f" [{estimate.low:z.1f}, {estimate.high:z.1f}]" if estimate.has_interval else ""
    return f"{estimate.mean:z.1f}{interval}"


def _difference(text: str) -> tuple[Term, Term | None]:
    terms = parse_formula(text).terms
    return terms[0], terms[1] if len(terms) > 1 else None


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """Return the estimate in a row of a frame."""
    return Estimate(row["mean"], row["low"], row["high"], row["n"])
