"""The paper's tables on the page: their columns with plots, and what pretraining adds."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import inf
from typing import Any

from mgm.report.cells import FilledCell, gain, mean_gain
from mgm.report.page.svg import NARROW, PERCENT, POINTS_OF, WIDTH, Axis
from mgm.report.tables import TableView
from mgm.report.words import comparable, number
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate
from mgm.study.registry import NO_MODEL, SHARES


def table_of(view: TableView, statuses: Mapping[str, RunStatus]) -> dict[str, Any]:
    """Return a table for the page's template: its columns with their sections and axes."""
    table, cells = view.table, view.cells
    by_column = {
        column: [cell for cell in cells if cell.column == column] for column in table.columns
    }
    chances = {column: _chance(of_column, statuses) for column, of_column in by_column.items()}
    minus = _minus(view)
    blocks = []
    drawn: dict[str, list[str]] = {}
    for column, sections in groupby(view.sections, lambda section: section.column):
        metric, chance = by_column[column][0].metric, chances[column]
        if chance:
            drawn.setdefault(f"{number(chance)} %", []).append(column)
        # All columns of top-1 accuracy share an axis.
        alike = [cell for cell in cells if cell.column == column or cell.metric == metric == "top1"]
        values = [
            value
            for cell in alike
            for value in (
                *(cell.estimate.ends if cell.estimate else ()),
                cell.paper,
                chances[cell.column],
            )
            if value is not None
        ]
        width, step = (
            NARROW if len(view.head) > 1 else WIDTH,
            10 if max(values, default=0) > 10 else 1,
        )
        blocks.append(
            {
                "column": column,
                "unit": SHARES.get(metric, ""),
                "has_paper": any(cell.paper is not None for cell in by_column[column]),
                "axis": Axis.over(
                    values, width, step, PERCENT if metric in SHARES else (-inf, inf)
                ),
                "chance": chance,
                "sections": list(sections),
            }
        )
    estimates = [(cell.metric, cell.estimate) for cell in cells if cell.estimate]
    return {
        "view": view,
        "table": table,
        "width": len(view.head) + 3 + bool(minus) + comparable(view.scale),  # without the paper's
        "blocks": blocks,
        "has_paper": any(block["has_paper"] for block in blocks),
        "chance": next(iter(drawn))
        if len(drawn) == 1
        else "; ".join(f"{text} ({', '.join(columns)})" for text, columns in drawn.items()),
        "several": any(estimate.n > 1 for _, estimate in estimates) or not estimates,
        "single": any(estimate.n == 1 for _, estimate in estimates),
        "beyond": any(
            metric in SHARES and estimate.has_interval and (estimate.low < 0 or estimate.high > 100)
            for metric, estimate in estimates
        ),
        "gains": _gains(view),
        "minus": minus,
    }


def _chance(cells: Sequence[FilledCell], statuses: Mapping[str, RunStatus]) -> float | None:
    """Return the chance accuracy of a column in per cent.

    It is None for more than 20 classes, since it is near zero and would stretch the axis.
    """
    classes = {
        result["data"]["classes"]
        for cell in cells
        if cell.metric == "top1"
        for run_id in cell.run_ids
        if (result := statuses[run_id].result)
    }
    return 100 / min(classes) if len(classes) == 1 and max(classes) <= 20 else None


def _gains(view: TableView) -> dict[str, Any] | None:
    """Return each row's gain over the table's row `base`, and the mean gain.

    It is None for a table without that row, or without a pair of finished runs.
    """
    table = view.table
    if table.base not in table.rows:
        return None
    cells = {(cell.row, cell.column): cell for cell in view.cells}
    bases = [cells[table.base, column] for column in table.columns]
    names = [
        name
        for name in table.rows
        if name != table.base
        and table.groups.get(name) != NO_MODEL
        and all((name, column) in cells for column in table.columns)
    ]
    lines: dict[str, list[tuple[Estimate | None, str]]] = {}
    for name in names:
        pairs = [(cells[name, base.column], base) for base in bases]
        lines[name] = [
            (gain(cell, base), cell.status if cell.estimate is None else base.status)
            for cell, base in pairs
        ]
    means = [mean_gain([cells[name, base.column] for name in names], base) for base in bases]
    lines["Mean of the above"] = [(mean, "not all run") for mean in means]
    gains = [estimate for line in lines.values() for estimate, _ in line if estimate]
    ends = [end for estimate in gains for end in estimate.ends]
    return {"axis": Axis.over([0.0, *ends], within=POINTS_OF), "lines": lines} if ends else None


def _minus(view: TableView) -> dict[tuple[str, str, str], Estimate]:
    """Map each cell to itself minus `table.ours` in its column, paired by seed."""
    ours = {cell.column: cell for cell in view.cells if cell.row == view.table.ours}
    pairs = (
        (cell, gain(cell, ours[cell.column]))
        for cell in view.cells
        if cell.column in ours and cell.row != view.table.ours
    )
    return {cell.key: difference for cell, difference in pairs if difference}
