"""A line per row, a column per dataset and column, with intervals and the paper's numbers."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import pandas as pd

from mgm.report.estimates import interval_of
from mgm.report.views import options_of
from mgm.report.warnings import FEW_VIDEOS, FITS
from mgm.results.statistics import FEWEST, binomial
from mgm.spec import FrozenModel
from mgm.study.schema import View

CONTROLS = "**Controls: no model**"


class Options(FrozenModel):
    # Title of the rows.
    head: str = "Pretraining"
    # Show what is known without a model too.
    controls: bool = True
    # Show the paper's numbers in columns of their own.
    paper: bool = True
    # A line per dataset and column, and a column per row: of many datasets and few rows.
    turned: bool = False


@dataclass(frozen=True)
class TableCell:
    """A number with its interval, or why it has none.

    Attributes:
        status: a verdict, or what state the runs are in.
        small: what is added in brackets.
        strong: it differs from 0.
    """

    text: str = ""
    interval: str = ""
    small: tuple[str, ...] = ()
    status: str = ""
    strong: bool = False
    run_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        number = " ".join(filter(None, (self.text, self.interval)))
        words = (self.status, f"**{number}**" if self.strong else number)
        return " ".join(filter(None, (*words, f"({'; '.join(self.small)})" * bool(self.small))))


def data(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Return what a table shows: a `TableCell` per row of the study, and dataset and column.

    Columns have two levels if several datasets and columns are shown, and the table is not turned.
    """
    options = options_of(view)
    # A control that is the same for all videos, such as their duration, is not measured. Numbers
    # that are quoted alone stand beside runs that repeat the paper's.
    shown = frame[~frame.control | (frame.n > 0)]
    shown = shown[shown.repeats | (shown.status != "quoted")]
    if not options.controls:
        shown = shown[~shown.control]
    # A dataset without runs would be a column of "not run", so a note names it instead.
    shown = shown[~shown.dataset.isin(not_run(frame))]
    one_column, one_dataset = shown.column.nunique() == 1, shown.dataset.nunique() == 1
    heads, parts = list[tuple[str, str]](), list[dict[str, TableCell]]()
    for _, part in shown.groupby(["dataset", "column"], sort=False):
        first = part.iloc[0]
        models = part[~part.control & (part.n > 0) & part.evaluated]
        group = "" if one_column or one_dataset else first.title
        unit = " (%)" if first.share and first.metric else ""
        title = first.title if one_column and not one_dataset else f"{first.column}{unit}"
        count = f", n = {models.n.iloc[0]}" if models.n.nunique() == 1 else ""
        heads.append((group, title + count))
        every: list[Any] = [*part.itertuples()]
        parts.append({row.row: _cell(row, {row.n} == {*models.n}) for row in every})
        quoted = [row for row in every if isfinite(row.paper)]
        if options.paper and quoted:
            heads.append((group, f"{title.removesuffix(unit)}, paper"))
            parts.append({row.row: TableCell(_number(row.paper, row.share)) for row in quoted})
    rows = shown.drop_duplicates("row").sort_values("control", kind="stable")
    table = pd.DataFrame(dict(enumerate(parts)), rows.row).map(_or_empty)
    names = _names(shown, rows)
    if rows.control.any() and not options.turned:
        after = int((~rows.control).sum())
        line = pd.DataFrame([[TableCell()] * len(heads)], [CONTROLS], table.columns)
        table = pd.concat([table[:after], line, table[after:]])
        names[after:after] = [CONTROLS]
    table.index = pd.Index(names)
    if options.turned:
        table.columns = pd.Index([": ".join(filter(None, head)) for head in heads])
        return table.T.rename_axis(columns=options.head)
    if any(group for group, _ in heads):
        table.columns = pd.MultiIndex.from_tuples(heads, names=["", options.head])
    else:
        table.columns = pd.Index([title for _, title in heads], name=options.head)
    return table


def not_run(frame: pd.DataFrame) -> list[str]:
    """Return the datasets whose rows have neither a result nor the paper's, if others have."""
    rows = frame[~frame.control]
    # The runs of a dataset seed count when all are finished.
    troubled = rows.status.isin(("failed", "altered", "quoted"))
    empty = (rows.n == 0) & ~troubled & rows.paper.isna()
    waits = empty.groupby(rows.dataset, sort=False).all()
    return [] if waits.all() else waits.index[waits].tolist()


def _or_empty(cell: Any) -> TableCell:
    return cell if isinstance(cell, TableCell) else TableCell()


def _names(shown: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Return the names of rows: with their steps if these differ, and with their notes."""
    steps_of = shown[shown.steps > 0].groupby("row").steps.unique()
    steps = {row: f"{of[0]:,.0f} steps" for row, of in steps_of.items() if len(of) == 1}
    notes = shown[shown.repeats & (shown.note != "")].groupby("row").note.unique()
    names = []
    for row in rows.row:
        name = row
        if len({*steps.values()}) > 1 and steps.get(row, row) not in row:
            name += f": {steps[row]}"
        names.append(f"{name} ({'; '.join(notes[row])})" if row in notes else name)
    return names


def _cell(row: Any, counted: bool) -> TableCell:
    """Return the cell of a number. `counted`: the column's head says of how many units it is."""
    if not row.evaluated:
        return TableCell(_number(row.mean, row.share)) if row.n else TableCell()
    small = [] if counted or not row.n else [f"n = {row.n}"]
    if row.status == "partial":
        small.append(f"{row.n} of {row.wanted} runs")
    if row.fits < FITS:
        small.append(f"{row.fits:.1f} in training")
    if not row.n:
        return TableCell(status="" if row.status == "quoted" else row.status, small=tuple(small))
    if row.tested and row.share and row.videos < FEW_VIDEOS:
        low, high = binomial(row.mean, int(row.videos))
        small.append(f"binomial [{low:.1f}, {high:.1f}]")
    # The column's head says that these are few.
    interval = "" if counted and row.n < FEWEST else interval_of(row)
    text = _number(row.mean, row.share or isfinite(row.low))
    return TableCell(text, interval, tuple(small), "", row.strong, tuple(row.run_ids.split()))


def _number(value: float, share: bool) -> str:
    """Return a share (%), or a number such as GFLOPs, a ratio or a count of videos."""
    if share:
        # z: "0.0", never "-0.0".
        return f"{value:z.1f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
