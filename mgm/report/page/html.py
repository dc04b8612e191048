"""The page: one HTML file with the findings, the tables and figures, and the runs behind them."""

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isfinite
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mgm.paper.registry import NO_MODEL, SHARES, Registry, Table, label_of
from mgm.paper.scales import Scale
from mgm.report.cells import FilledCell, gain, mean_gain
from mgm.report.claims.judge import Verdict
from mgm.report.page.overview import caveat, cost, finding, overview
from mgm.report.page.runs import (
    STAGES,
    cell_id,
    columns_of,
    day,
    duration,
    labels_of,
    losses_of,
    outcome,
    run_details,
    training,
)
from mgm.report.page.sections import (
    by_class,
    clips_of,
    controls_of,
    deviations,
)
from mgm.report.page.svg import NARROW, PERCENT, POINTS_OF, TEMPLATES, WIDTH, Axis
from mgm.report.table_files import (
    BOLD,
    comparable,
    detail,
    head_of,
    leaders,
    names,
    number,
    paper_note,
    sections,
)
from mgm.results.result import RunStatus, log_lines
from mgm.results.statistics import Estimate


@dataclass(frozen=True)
class FigureEntry:
    """A figure for the page.

    Attributes:
        run_ids: the runs of a figure of clips.
        state, why: why the figure could not be drawn, or which points are missing.
        source: data URI, empty if the figure could not be drawn.
        width: in CSS pixels; 0 for the natural width.
        tables: the tables of a figure of cells.
    """

    name: str
    title: str
    caption: str
    run_ids: tuple[str, ...] = ()
    state: str = "run"
    why: str = ""
    source: str = ""
    width: int = 0
    tables: tuple[str, ...] = ()


def svg_uri(path: Path) -> str:
    """Return an SVG as a data URI, so that its ids cannot clash with the page's."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def coded(text: str) -> Markup:
    """Return a text with its `code` as HTML."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def page(
    registry: Registry,
    results: Path,
    reports: Path,
    found: Mapping[str, RunStatus],
    rows: Mapping[str, Sequence[FilledCell]],
    figures: Sequence[FigureEntry] = (),
    verdicts: Sequence[Verdict] = (),
    player: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None,
) -> str:
    """Return the HTML of `reports`/index.html.

    Args:
        player: as `mask_player` returns it.
        study: what the page shows of a study (`mgm.report.study_page`) in place of the paper's
            tables.
    """
    TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    TEMPLATES.globals |= {
        one.__name__: one
        for one in (number, duration, label_of, names, detail, cell_id, outcome, day, coded)
    }
    logs = {run_id: log_lines(results / run_id) for run_id in registry.specs}
    losses = {run_id: losses_of(log) for run_id, log in logs.items()}
    columns = columns_of(registry, found)
    lead = finding(registry, rows, {figure.name for figure in figures if figure.source})
    leading = next((row for row in rows.get(lead["table"], ()) if row.key == lead["cell"]), None)
    return TEMPLATES.get_template("page.html.j2").render(
        specs=registry.specs,
        found=found,
        name=results.name,
        scale=registry.scale,
        comparable=comparable(registry.scale),
        paper_note=paper_note(registry.scale),
        caveat=caveat(registry, found),
        bold=BOLD,
        overview=overview(registry, found, rows, verdicts),
        player=player,
        tables=[
            _table(table, list(rows[key]), registry.scale, found)
            for key, table in registry.tables.items()
        ],
        study=study,
        figures=figures,
        claims=verdicts,
        verdicts=Counter(verdict.verdict for verdict in verdicts).most_common(),
        curves=training(registry, logs, losses),
        cost=cost(registry, found),
        lead=lead,
        classes=by_class(leading, results, found),
        clips=clips_of(registry),
        control_files=" ".join(
            f"results/{results.name}/{run.run_id}/result.json" for run in registry.controls
        ),
        controls=None if study else controls_of(registry, results, found),
        columns=columns,
        stages=STAGES,
        labels=labels_of(registry),
        losses=losses,
        results=results,
        details=run_details(registry, found, rows, logs, losses, results, reports),
        # They are about the paper's experiments.
        deviations=[] if study else deviations(),
    )


def _table(
    table: Table, rows: list[FilledCell], scale: Scale, found: Mapping[str, RunStatus]
) -> dict[str, Any]:
    """Return a table for the page's template: its columns with their sections and axes."""
    chances = {
        column: _chance([row for row in rows if row.column == column], found)
        for column in table.columns
    }
    blocks: list[dict[str, Any]] = []
    drawn: dict[str, list[str]] = {}
    head, minus = head_of(table), _minus(table, rows)
    width = NARROW if len(head) > 1 else WIDTH
    for column, several in groupby(sections(table, rows), lambda section: section.column):
        here = [row for row in rows if row.column == column]
        metric, chance = here[0].metric, chances[column]
        if chance:
            drawn.setdefault(f"{number(chance)} %", []).append(column)
        # All columns of top-1 accuracy share an axis.
        alike = [row for row in rows if row.column == column or row.metric == metric == "top1"]
        values = [
            value
            for row in alike
            for value in (*_ends(row.estimate), row.paper, chances[row.column])
            if value is not None
        ]
        within = PERCENT if metric in SHARES else (-inf, inf)
        blocks.append(
            {
                "column": column,
                "unit": SHARES.get(metric, ""),
                "has_paper": any(row.paper is not None for row in here),
                "axis": Axis.over(values, width, 10 if max(values, default=0) > 10 else 1, within),
                "chance": chance,
                "sections": list(several),
            }
        )
    counted = [(row.metric, row.estimate) for row in rows if row.estimate]
    return {
        "table": table,
        "head": head,
        "width": len(head) + 3 + bool(minus) + comparable(scale),  # without the paper's column
        "blocks": blocks,
        "has_paper": any(block["has_paper"] for block in blocks),
        "best": leaders(table, rows),
        "chance": next(iter(drawn))
        if len(drawn) == 1
        else "; ".join(f"{text} ({', '.join(columns)})" for text, columns in drawn.items()),
        "several": any(one.n > 1 for _, one in counted) or not counted,
        "single": any(one.n == 1 for _, one in counted),
        "beyond": any(
            metric in SHARES and one.has_interval and (one.low < 0 or one.high > 100)
            for metric, one in counted
        ),
        "gains": _gains(table, rows),
        "minus": minus,
    }


def _chance(rows: Sequence[FilledCell], found: Mapping[str, RunStatus]) -> float | None:
    """Return the chance accuracy of a column in per cent.

    It is None for more than 20 classes, since it is near zero and would stretch the axis.
    """
    classes = {
        run.result["data"]["classes"]
        for row in rows
        if row.metric == "top1"
        for run_id in row.run_ids
        if (run := found[run_id]).result
    }
    return 100 / min(classes) if len(classes) == 1 and max(classes) <= 20 else None


def _gains(table: Table, rows: Sequence[FilledCell]) -> dict[str, Any] | None:
    """Return each row's gain over the table's row `base`, and the mean gain.

    It is None for a table without that row, or without a pair of finished runs.
    """
    if table.base not in table.rows:
        return None
    cells = {(row.row, row.column): row for row in rows}
    bases = [cells[table.base, column] for column in table.columns]
    whole = [
        name for name in table.rows if all((name, column) in cells for column in table.columns)
    ]
    names = [name for name in whole if name != table.base and table.groups.get(name) != NO_MODEL]
    lines: dict[str, list[tuple[Estimate | None, str]]] = {}
    for name in names:
        pairs = [(cells[name, base.column], base) for base in bases]
        lines[name] = [
            (gain(row, base), row.status if row.estimate is None else base.status)
            for row, base in pairs
        ]
    means = [mean_gain([cells[name, base.column] for name in names], base) for base in bases]
    lines["Mean of the above"] = [(mean, "not all run") for mean in means]
    ends = [value for line in lines.values() for estimate, _ in line for value in _ends(estimate)]
    return {"axis": Axis.over([0.0, *ends], within=POINTS_OF), "lines": lines} if ends else None


def _minus(table: Table, rows: Sequence[FilledCell]) -> dict[tuple[str, str, str], Estimate]:
    """Map each cell to itself minus `table.ours` in its column, paired by seed."""
    ours = {row.column: row for row in rows if row.row == table.ours}
    pairs = (
        (row, gain(row, ours[row.column]))
        for row in rows
        if row.column in ours and row.row != table.ours
    )
    return {row.key: difference for row, difference in pairs if difference}


def _ends(estimate: Estimate | None) -> list[float]:
    return [value for value in estimate[:3] if isfinite(value)] if estimate else []
