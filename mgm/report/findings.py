"""What a study found: its numbers, differences and predictions as frames.

Every number shown of a study, or of a table of the paper, comes from here.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd

from mgm.errors import UserError
from mgm.reading import found_in
from mgm.report.estimates import combined, per_unit, status_of
from mgm.report.judge import judge
from mgm.results.frame import NUMBERS, WORDS, examine_all, frame_of
from mgm.results.plan import Plan, read_plan
from mgm.results.result import LAST, LEAST_EXPLAINED, RunStatus, log_lines
from mgm.results.statistics import (
    ENOUGH,
    FEWEST,
    Estimate,
    holm,
    over_seeds,
    over_seeds_and_people,
    p_value,
)
from mgm.spec import Augment, Finetune, Pretrain, Spec
from mgm.spec.compute import multiply_adds
from mgm.study.formula import Formula, Term, parse_formula
from mgm.study.load import read_studies
from mgm.study.quoted import Quote, quotes
from mgm.study.schema import CONTROLS, SHARES, At, Study, View

AT = ["dataset", "draw", "seed", "column", "row"]
CELL = ["dataset", "column", "row"]
NOTHING = pd.Series(
    [], pd.MultiIndex.from_arrays([[], []], names=["draw", "seed"]), dtype="float64"
)
FITS = 95.0  # per cent of the training clips
OVER_PEOPLE = ", over seeds and people"
NAMED = ["dataset", "column", "family", "first", "second", "says"]
# The columns of a table's csv.
COLUMNS = (
    *("dataset", "row", "column", "paper", "ours", "difference", "ci_low", "ci_high", "n"),
    *("status", "run_ids", "commit"),
)


@dataclass(frozen=True)
class Findings:
    """A study with its runs.

    Attributes:
        plan: the cells and runs of the folder of results, which studies may share.
        frame: all numbers of the folder (`mgm.results.frame.read_frame`).
        statuses: the status of each run of the plan.
        results: the folder of the runs.
        alone: whether no other study shares the folder.
    """

    plan: Plan
    frame: pd.DataFrame
    study: Study
    statuses: Mapping[str, RunStatus]
    results: Path
    alone: bool = True

    @property
    def unit_name(self) -> str:
        """The name of the study's sampling unit."""
        if not self.study.draws:
            return "seed"
        return "dataset" if self.study.unit == "draws" else "run"

    @property
    def first_column(self) -> str:
        """The column of a row that names none."""
        return next(iter(self.study.columns))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The study's rows of the frame."""
        return self.frame[self.frame.study == self.study.study].reset_index(drop=True)

    @cached_property
    def values(self) -> pd.DataFrame:
        """The rows of `runs` whose numbers count, as `AT`, `value`, `control` and `run_id`.

        If the study counts complete draws alone, a column of a draw is left out until all its rows
        are done.
        """
        table = self.runs
        if self.study.complete:
            absent = table.value.isna() & ~table.control
            incomplete = absent.groupby([table[name] for name in AT[:4]]).transform("any")
            table = table[table.control | ~incomplete]
        return table[table.value.notna()][[*AT, "value", "control", "run_id"]]

    def estimate(
        self,
        dataset: str,
        formula: str | Formula,
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
        if isinstance(formula, str):
            formula = parse_formula(formula)
        units = self.per_unit(dataset, formula, column, draws, seeds)
        if not len(units):
            return None
        if formula.is_ratio or not all(self._is_share(term, column) for term in formula.terms):
            return over_seeds(units.tolist())
        return over_seeds(units.tolist()).within(0 if len(formula.terms) == 1 else -100, 100)

    def per_unit(
        self,
        dataset: str,
        formula: Formula,
        column: str = "",
        draws: tuple[int, ...] = (),
        seeds: tuple[int, ...] = (),
    ) -> pd.Series:
        """Return a number per sampling unit (`mgm.report.estimates.per_unit`).

        An effect's number is the mean over its high datasets minus the mean over its low ones.
        """
        if effect := self.study.effects.get(dataset):
            high, low = (
                pd.concat(
                    [self.per_unit(name, formula, column, draws, seeds) for name in names], axis=1
                ).mean(axis=1, skipna=False)
                for names in (effect.high, effect.low)
            )
            return (high - low).dropna()
        parts = [self.series(dataset, term, column) for term in formula.terms]
        series = combined(formula, parts, [term.row in CONTROLS for term in formula.terms])
        kept = series.index.to_frame()
        if draws:
            series = series[kept.draw.isin(draws)]
        if seeds:
            series = series[series.index.to_frame().seed.isin(seeds)]
        return per_unit(series, self.study.unit)

    def series(self, dataset: str, term: Term, column: str = "") -> pd.Series:
        """Return the values of a row, per draw and seed."""
        place = dataset, term.column or column or self.first_column, term.row
        return self._by_cell.get(place, NOTHING)

    def _is_share(self, term: Term, column: str) -> bool:
        name = term.column or column or self.first_column
        return term.row in CONTROLS or self.study.columns[name].metric in SHARES

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, str], pd.Series]:
        values = self.values.set_index(["draw", "seed"])
        return {place: cell.value for place, cell in values.groupby(CELL, sort=False)}  # type: ignore[misc]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per dataset, column and row, finished or not; rows with a quote alone are last.

        Columns: `dataset`, `column`, `row`, `control`; `mean`, `low`, `high`, `n` (units) and
        `unknown` of our runs, empty without a number; `wanted` (runs), `status` (run, partial,
        quoted, altered, failed, running or not run), `why`, `paper` and `note` (the quoted number),
        `run_ids`, `commit` and `metric`.
        """
        printed, rows = quotes(self.study.study), []
        for place, runs in self.runs.groupby(CELL, sort=False):
            dataset, column, row = map(str, place)
            status = status_of(runs.state)
            one = Formula((Term(row),), (1,))
            believed = status in ("finished", "partial")
            found = self.estimate(dataset, one, column) if believed else None
            done = runs[runs.value.notna()]
            own = runs.iloc[0]
            rows.append(
                dict(zip(CELL, place))
                | {name: own[name] for name in ("control", "metric", *WORDS, *NUMBERS)}
                | {"line": self._lines.get(row, row)}
                | {"values": self._by_cell.get((dataset, column, row), NOTHING)}
                | (found or Estimate(nan, n=0))._asdict()
                | {"wanted": len(runs), "status": status, "run_ids": " ".join(runs.run_id)}
                | {"why": "; ".join(runs.why[runs.state != "finished"].drop_duplicates())}
                | {"commit": " ".join(done.commit.drop_duplicates())}
                | dict(zip(("paper", "note"), printed.pop((dataset, row, column), Quote(nan, ""))))
            )
        for (dataset, row, column), quote in printed.items():
            if dataset in self.study.shown:
                ours = self._computed(dataset, row, column)
                estimate = Estimate(nan, n=0) if ours is None else Estimate(ours)
                status = "quoted" if ours is None else "finished"
                rows.append(
                    {"dataset": dataset, "column": column, "row": row, "control": False}
                    | estimate._asdict()
                    | {"wanted": 0, "status": status, "paper": quote.value, "note": quote.note}
                    | {"why": "", "run_ids": "", "commit": "", "metric": column}
                    | dict.fromkeys(WORDS, "")
                    | {"line": quote.line, "epochs": quote.epochs}
                    | {"values": NOTHING}
                )
        names = [*CELL, "control", *Estimate._fields, "wanted", "status", "why", "paper", "note"]
        names += ["run_ids", "commit", "metric", "line", *WORDS, *NUMBERS, "values"]
        table = pd.DataFrame(rows, columns=names).astype({"control": bool})
        numbers = ("mean", "low", "high", "paper", *NUMBERS)
        return table.astype(dict.fromkeys(numbers, "float64"))

    @cached_property
    def _lines(self) -> dict[str, str]:
        return {name: row.line or name for name, row in self.study.rows.items()}

    def _computed(self, dataset: str, row: str, column: str) -> float | None:
        """Return what the paper prints beside its results, for a row that is run here.

        The columns are GFLOPs, of a view, and Samples, the videos of pretraining.
        """
        runs = self.runs[(self.runs.dataset == dataset) & (self.runs.row == row)]
        runs = runs[runs.value.notna()]
        if not len(runs):
            return None
        spec = self.plan.specs[runs.run_id.iloc[0]]
        start = self.statuses.get(runs.pretraining.iloc[0])
        if column == "GFLOPs" and isinstance(spec, Finetune):
            return multiply_adds(spec) / 1e9
        if column == "Samples" and start and start.result:
            return float(start.result["data"]["train"])
        return None

    @cached_property
    def fitted(self) -> dict[tuple[str, str, str], float]:
        """Map dataset, column and row of a fine-tuned cell to how much of its training it fits.

        It is the top-1 on training clips (%) at the end: the mean of the last `LAST` lines of the
        runs' logs. Runs that mix clips or change them at random have none, since no model fits
        those. The paper's tables have none either.
        """
        ends: dict[tuple[str, str, str], list[float]] = {}
        if not self.alone:
            return {}
        done = self.runs[(self.runs.stage == "finetune") & (self.runs.state == "finished")]
        for value in done.itertuples():
            run = self.plan.specs[str(value.run_id)]
            assert isinstance(run, Finetune)
            if run.augment.model_copy(update={"repeats": 1}) == Augment():
                lines = log_lines(self.results / run.run_id)[-LAST:]
                place = str(value.dataset), str(value.column), str(value.row)
                ends.setdefault(place, []).extend(
                    line["train_top1"] for line in lines if "train_top1" in line
                )
        return {place: sum(values) / len(values) for place, values in ends.items() if values}

    @cached_property
    def trained(self) -> dict[str, str]:
        """Map each row to the steps of its pretraining in words, where these are not the paper's.

        A row whose runs differ in them has none.
        """
        trained = self.runs[self.runs.steps > 0].groupby("row", sort=False).steps
        return {str(row): f"{int(of.iloc[0]):,} steps" for row, of in trained if of.nunique() == 1}

    def _metrics(self, run_id: str) -> Mapping[str, float]:
        """Return the metrics of a run's result; none without one."""
        status = self.statuses.get(run_id)
        return status.result["metrics"] if status and status.result else {}

    @cached_property
    def untaught(self) -> set[tuple[str, str]]:
        """Dataset and row of pretraining that explains less than `LEAST_EXPLAINED` of its loss.

        Runs of older versions do not say what they explain.
        """
        found = set()
        places = self.runs[["dataset", "row", "pretraining"]].drop_duplicates()
        for dataset, row, run_id in places.to_numpy(str):
            if self._metrics(run_id).get("explained", 100) < LEAST_EXPLAINED:
                found.add((dataset, row))
        return found

    @cached_property
    def behind(self) -> set[tuple[str, str]]:
        """Dataset and row of models that explain less than the mean of the visible neighbours.

        Of all hidden patches under the run's own mask, on average over the measured runs.
        """
        leads: dict[tuple[str, str], list[float]] = {}
        measured = self.runs[(self.runs.stage == "measure") & (self.runs.pretraining != "")]
        for dataset, row, run_id in measured[["dataset", "row", "run_id"]].drop_duplicates().values:
            metrics = self._metrics(run_id)
            if "neighbours" in metrics:
                lead = metrics["explained"] - metrics["neighbours"]
                leads.setdefault((dataset, row), []).append(lead)
        return {place for place, values in leads.items() if sum(values) < 0}

    @cached_property
    def repeats_the_paper(self) -> bool:
        """Whether all runs of the folder do."""
        return repeats_the_paper(self.plan.specs.values())

    def shown_by(self, view: View) -> pd.DataFrame:
        """Return the cells that a view shows, each with what figures are drawn from.

        Columns, beside those of `cells`:
            title: of the dataset. panel: dataset and column, without what all cells have in common.
            line, mark: the row's, as the study says. Of a quoted row, the paper's method.
            mask, guidance, backbone, ratio, epochs, steps, size: the runs' own fields.
            values: the numbers by draw and seed; by: the sampling unit, draws or runs; unit: its
                name.
            share: whether it is a share (%). evaluated: whether it is a column of the study.
            tested: whether it is a test, and no measurement.
        """
        places = self.cells[["dataset", "row", "column", "line"]].itertuples(index=False)
        shown = [
            self.study.shows(view, At(dataset, None, 0, row, column), line)
            for dataset, row, column, line in places
        ]
        table = self.cells[shown]
        titles = table.dataset.map(self.study.shown).fillna(table.dataset)
        panel = titles + ": " + table.column
        if table.dataset.nunique() == 1:
            panel = table.column
        elif table.column.nunique() == 1:
            panel = titles
        columns = self.study.columns
        share = table.control | table.column.map(
            {name: column.metric in SHARES for name, column in columns.items()}
        ).eq(True)
        return table.assign(
            title=titles,
            panel=panel,
            share=share,
            mark=table.row.map({name: row.mark for name, row in self.study.rows.items()}).fillna(
                ""
            ),
            evaluated=table.column.isin(list(columns)),
            tested=table.column.isin(self.study.tests),
            by=self.study.unit,
            unit=self.unit_name,
        )

    def csv(self, name: str) -> pd.DataFrame:
        """Return a table with the columns of its csv."""
        table = self.shown_by(self.study.shown_views[name]).drop(columns="values")
        table = table.replace([-inf, inf], nan)
        table = table.rename(columns={"mean": "ours", "low": "ci_low", "high": "ci_high"})
        return table.assign(difference=table.ours - table.paper)[list(COLUMNS)].round(4)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """A row per difference of the study's families, with the verdict of Holm's method.

        Differences are of tests, and not of measured columns.

        The columns are `dataset`, `column`, `family`, `first`, `second`, `says`, `mean`, `low`,
        `high`, `n`, `unknown` and `holm`: whether it differs from 0 at a family-wise level of 5 %,
        in the table that shows it: a family in one column, on all datasets. Fewer than `ENOUGH`
        units say nothing.

        If the study says how to read people from paths, each family stands here a second time, with
        intervals over seeds and people. Its name ends in `OVER_PEOPLE`.
        """
        rows = []
        for dataset, column in product(self.study.shown, self.study.tests):
            for family, texts in self.study.compare.items():
                pairs = list(self._pairs(column, texts))
                rows += self._family(dataset, column, family, pairs, self.estimate)
                if self.study.people:
                    name = family + OVER_PEOPLE
                    rows += self._family(dataset, column, name, pairs, self._over_people)
        table = pd.DataFrame(rows, columns=[*NAMED, *Estimate._fields, "p"])
        table["holm"] = False
        for _, shown in table[table.n >= ENOUGH].groupby(["column", "family"]):
            table.loc[shown.index, "holm"] = holm(shown.p.tolist())
        return table.drop(columns="p")

    def _pairs(self, column: str, texts: Iterable[str]) -> Iterable[str]:
        """Yield the differences of a column. One that names a column stands in the first."""
        for text in texts:
            first, second = parse_formula(text).terms
            if (first.column or second.column) and column != self.first_column:
                continue
            others = [row for row in self.study.rows if row != first.row]
            for row in others if second.row == "*" else [second.row]:
                yield text.replace("minus *", f"minus {row}")

    def _family(
        self,
        dataset: str,
        column: str,
        family: str,
        texts: Iterable[str],
        interval: Callable[[str, str, str], Estimate | None],
    ) -> list[dict[str, Any]]:
        rows = []
        for text in texts:
            if estimate := interval(dataset, text, column):
                first, second = parse_formula(text).terms
                named = dict(zip(NAMED, (dataset, column, family, first.row, second.row, text)))
                rows.append(named | estimate._asdict() | {"p": p_value(estimate)})
        return rows

    def _over_people(self, dataset: str, text: str, column: str) -> Estimate | None:
        """Return a difference over seeds and people; None without enough of both."""
        first_SP, second_SP = (
            self._people_by_cell.get((dataset, term.column or column, term.row))
            for term in parse_formula(text).terms
        )
        if first_SP is None or second_SP is None:
            return None
        difference_SP = (first_SP - second_SP).dropna().to_numpy(float)
        S, P = difference_SP.shape
        return over_seeds_and_people(difference_SP) if S >= FEWEST and P > 1 else None

    @cached_property
    def _people_by_cell(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Map dataset, column and row to accuracies, one line per run and one column per person."""
        return {
            place: cell.pivot_table("value", ["draw", "seed"], "person")  # type: ignore[misc]
            for place, cell in self.people.groupby(CELL, sort=False)
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
            found = found_in(table.path.tolist(), self.study.people, "people")
            person = pd.Series(found, dtype="object")
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

        The columns are `dataset`, `column`, `says`, `draws`, `seeds`, `since`, `mean`, `low`,
        `high`, `n`, `unknown`, `verdict` and `why`.
        """
        rows, copied = [], ["dataset", "column", "says", "draws", "seeds", "since"]
        for prediction in self.study.predictions:
            statement, only = prediction.statement, (prediction.draws, prediction.seeds)
            place = prediction.dataset, statement.formula, prediction.column
            estimate = self.estimate(*place, *only)
            verdict, why = judge(statement, estimate)
            rows.append(
                {name: getattr(prediction, name) for name in copied}
                | {"column": prediction.column or self.first_column}
                | (estimate or Estimate(nan, n=0))._asdict()
                | {"verdict": verdict, "why": why}
            )
        return pd.DataFrame(rows, columns=[*copied, *Estimate._fields, "verdict", "why"])

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


def repeats_the_paper(specs: Iterable[Spec]) -> bool:
    """Return whether these runs have published videos, and the paper's models and schedules."""
    return not any(
        spec.data.digest
        or (isinstance(spec, Pretrain) and (spec.optim.steps or spec.model.misnamed))
        for spec in specs
    )


def read_findings(results: Path, weights: bool = False) -> dict[str, Findings]:
    """Read what the studies of a results folder found, by their names.

    Args:
        weights: verify the weights too.
    """
    plan = read_plan(results)
    studies = read_studies(results, plan)
    statuses = examine_all(results, plan.specs, weights=weights)
    frame = frame_of(plan, statuses)
    return {
        name: Findings(plan, frame, study, statuses, results, len(studies) == 1)
        for name, study in studies.items()
    }


def in_words(estimate: Estimate | None) -> str:
    """Return "7.8 [4.4, 11.3]", "7.8 (two runs)" or "not run"."""
    if estimate is None:
        return "not run"
    # z: "0.0", never "-0.0".
    if estimate.has_interval:
        return f"{estimate.mean:z.1f} [{estimate.low:z.1f}, {estimate.high:z.1f}]"
    return f"{estimate.mean:z.1f}" + f" ({estimate.unknown})" * bool(estimate.unknown)


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """Return the estimate in a row of a frame."""
    return Estimate(*(row[name] for name in Estimate._fields))
