"""The page: one HTML file that shows what was run, what came of it, and from which runs each number is."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader

from mgm.experiments.registry import SHARES, Registry, Table
from mgm.experiments.scales import Scale
from mgm.report.cells import Row, gain
from mgm.report.claims.check import Verdict
from mgm.report.page.deviations import deviations
from mgm.report.page.overview import BASE, cost, mean_gain, overview
from mgm.report.page.runs import cell_id, duration, label, list_runs, losses_of, run_details, training
from mgm.report.page.svg import NARROW, PERCENT, POINTS_OF, WIDTH, Axis, axis_head, interval
from mgm.report.statistics import Estimate
from mgm.report.tables import BOLD, beside_the_paper, comparable, detail, head_of, leaders, names, number, promise_of, sections
from mgm.runs.log import log_lines
from mgm.runs.result import RunStatus
from mgm.spec import Spec

if TYPE_CHECKING:
    from mgm.report.page.mask_player import MaskPlayer  # matplotlib takes a second to import

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class FigureEntry:
    """A figure as the page shows it: `source` is a data URI, empty when it could not be drawn, and `state` and `why` say why.
    One that draws cells names their `tables`, one that shows clips its runs; `width` is in CSS pixels, 0 for the picture's own."""

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
    """An SVG as a data URI: nothing to load, and its ids cannot clash with the page's."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def page(
    registry: Registry,
    results: Path,
    reports: Path,
    found: Mapping[str, RunStatus],
    rows: Mapping[str, Sequence[Row]],
    figures: Sequence[FigureEntry],
    verdicts: Sequence[Verdict],
    player: "MaskPlayer | None",
) -> str:
    """The HTML of `reports`/index.html."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=False)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals |= {"number": number, "duration": duration, "label": label}
    logs = {run_id: log_lines(results / run_id) for run_id in registry.specs}
    losses = {run_id: losses_of(log) for run_id, log in logs.items()}
    return environment.get_template("page.html.j2").render(
        name=results.name,
        scale=registry.scale,
        comparable=comparable(registry.scale),
        beside_the_paper=beside_the_paper(registry.scale),
        promise=promise_of(registry.scale),
        bold=BOLD,
        style=(TEMPLATES / "style.css").read_text(),
        script=(TEMPLATES / "script.js").read_text(),
        overview=overview(registry, found, rows, verdicts),
        player=player,
        tables=[_table(table, rows[key], registry.scale, registry.specs, found) for key, table in registry.tables.items()],
        figures=figures,
        labels={name: table.label for name, table in registry.tables.items()},
        claims=verdicts,
        verdicts=Counter(verdict.verdict for verdict in verdicts).most_common(),
        curves=training(registry, logs, losses),
        cost=cost(registry, found),
        runs=list_runs(registry, found, losses, results, reports),
        details=run_details(registry, found, rows, logs, losses, results, reports),
        deviations=deviations(),
    )


def _table(table: Table, rows: Sequence[Row], scale: Scale, specs: Mapping[str, Spec], found: Mapping[str, RunStatus]) -> dict[str, Any]:
    chances = {column: _chance([row for row in rows if row.column == column], found) for column in table.columns}
    metrics = {row.column: row.metric for row in rows}
    head, best = head_of(table), leaders(list(rows))

    def axis_of(column: str) -> Axis:
        """Accuracies share an axis, whatever their column; other numbers have one a column."""
        alike = [row for row in rows if row.column == column or row.metric == metrics[column] == "top1"]
        values = [value for row in alike for value in (*_ends(row.estimate), row.paper, chances[row.column]) if value is not None]
        width, within = NARROW if len(head) > 1 else WIDTH, {"within": PERCENT} if metrics[column] in SHARES else {}
        return Axis.over(values, width, 10 if max(values, default=0) > 10 else 1, **within)

    axes = {column: axis_of(column) for column in table.columns}
    blocks = [
        {
            "column": column,
            "unit": SHARES.get(metrics[column], ""),
            "head": axis_head(axes[column]),
            "width": len(head) + 4 + comparable(scale) - scale.own_videos,
            "groups": [
                {
                    "name": section.group,
                    "cells": [
                        {
                            "id": cell_id(row),
                            "names": names(table, row),
                            "detail": detail(row),
                            "row": row,
                            "best": row in best,
                            "plot": interval(axes[column], row.estimate, row.paper, chances[column]),
                            "runs": [{"run_id": id_, "seed": specs[id_].seed, "state": found[id_].state} for id_ in row.run_ids],
                        }
                        for row in section.rows
                    ],
                }
                for section in sections(table, list(rows))
                if section.column == column
            ],
        }
        for column in table.columns
    ]
    counts = {row.estimate.n for row in rows if row.estimate}
    drawn: dict[str, list[str]] = {}
    for column, chance in chances.items():
        if chance:
            drawn.setdefault(f"{number(chance)} %", []).append(column)
    return {
        "name": table.name,
        "label": table.label,
        "title": table.title,
        "note": table.note,
        "head": head,
        "blocks": blocks,
        "chance": next(iter(drawn)) if len(drawn) == 1 else "; ".join(f"{text} ({', '.join(columns)})" for text, columns in drawn.items()),
        "several": any(n > 1 for n in counts) or not counts,
        "single": 1 in counts,
        "best": bool(best),
        "beyond": any(
            row.estimate and row.metric in SHARES and ((row.estimate.low or 0) < 0 or (row.estimate.high or 0) > 100) for row in rows
        ),
        "gains": _gains(table, rows),
    }


def _chance(rows: Sequence[Row], found: Mapping[str, RunStatus]) -> float | None:
    """Chance of a column's runs, in per cent; None for many classes, where it is near zero and would only stretch the axis."""
    classes = {
        run.result["data"]["classes"] for row in rows if row.metric == "top1" for run_id in row.run_ids if (run := found[run_id]).result
    }
    return 100 / min(classes) if len(classes) == 1 and max(classes) <= 20 else None


def _gains(table: Table, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Each row's gain over BASE, and their mean; None for a table without that row or without a single pair."""
    cells = {(row.row, row.column): row for row in rows}
    names = [name for name in table.rows if name != BASE]
    if BASE not in table.rows:
        return None
    lines: list[tuple[str, list[tuple[Estimate | None, str]]]] = []
    for name in names:
        pairs = [(cells[name, column], cells[BASE, column]) for column in table.columns]
        lines.append((name, [(gain(row, base), row.status if row.estimate is None else base.status) for row, base in pairs]))
    means = [mean_gain([cells[name, column] for name in names], cells[BASE, column]) for column in table.columns]
    lines.append(("Mean of the above", [(mean, "not all run") for mean in means]))
    estimates = [estimate for _, line in lines for estimate, _ in line if estimate]
    if not estimates:
        return None
    axis = Axis.over([0.0, *(value for estimate in estimates for value in _ends(estimate) if value is not None)], within=POINTS_OF)
    return {
        "columns": [{"name": column, "head": axis_head(axis)} for column in table.columns],
        "lines": [
            {"name": name, "cells": [{"estimate": one, "status": status, "plot": interval(axis, one, rule=0.0)} for one, status in line]}
            for name, line in lines
        ],
    }


def _ends(estimate: Estimate | None) -> tuple[float | None, ...]:
    return (estimate.low, estimate.mean, estimate.high) if estimate else ()
