"""The page: one HTML file that shows what was run, what came of it, and from which runs each number is."""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from mgm.experiments.registry import Registry, Table
from mgm.experiments.scales import OWN, Scale
from mgm.report.claims import Verdict
from mgm.report.collect import Row, commit_of, gain
from mgm.report.plots import NARROW, WIDTH, Axis, axis_head, curves, interval, thin
from mgm.report.result import Found, log_lines
from mgm.report.statistics import Estimate, over_seeds
from mgm.report.tables import beside_the_paper, comparable, detail, head_of, names, number, promise_of, sections
from mgm.spec import Spec, parents

BASE = "No pretraining"  # the row other rows' gain is measured from, where a table has one
VERBS = {"pretrain": "Pretraining", "finetune": "Finetuning", "probe": "Linear probe", "measure": "Measurements", "visualise": "Pictures"}
UNITS = {"top1": "top-1 accuracy in %", "outside": "% of predictions"}  # of a metric, for the caption
TROUBLES = 8  # listed in the overview; the rest stands with the runs
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Plate:
    """A figure as the page shows it: `source` is a data URI, empty when it could not be drawn, and `state` and `why` say why.
    One that draws cells names their `tables`, one that shows clips its runs."""

    name: str
    title: str
    caption: str
    run_ids: tuple[str, ...] = ()
    state: str = "run"
    why: str = ""
    source: str = ""
    tables: tuple[str, ...] = ()


def picture(path: Path) -> str:
    """An SVG or PNG as a data URI: nothing to load, and its ids cannot clash with the page's."""
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def page(
    registry: Registry,
    results: Path,
    found: Mapping[str, Found],
    rows: Mapping[str, Sequence[Row]],
    plates: Sequence[Plate],
    verdicts: Sequence[Verdict],
    name: str,
) -> str:
    """The HTML of `reports/name/index.html`."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=False)
    environment.globals["number"] = number
    logs = {run_id: log_lines(results / run_id) for run_id in registry.specs}
    return environment.get_template("page.html.j2").render(
        name=name,
        scale=registry.scale,
        comparable=comparable(registry.scale),
        beside_the_paper=beside_the_paper(registry.scale),
        promise=promise_of(registry.scale),
        style=(TEMPLATES / "style.css").read_text(),
        overview=_overview(registry.specs, found),
        tables=[_table(table, rows[key], registry.scale, registry.specs, found) for key, table in registry.tables.items()],
        figures=plates,
        claims=verdicts,
        verdicts=Counter(verdict.verdict for verdict in verdicts).most_common(),
        curves=_curves(registry, logs),
        runs=_runs(registry, found, rows, logs),
    )


def _overview(specs: Mapping[str, Spec], found: Mapping[str, Found]) -> dict[str, Any]:
    results = [run.result for run in found.values() if run.result is not None]
    states = Counter(run.state for run in found.values() if run.state != "run")
    verbs: Counter[str] = Counter(spec.verb for spec in specs.values())
    troubles = [
        {"run_id": run_id, "state": found[run_id].state, "why": found[run_id].why}
        for state in ("altered", "failed", "running", "not run")
        for run_id in specs
        if found[run_id].state == state and (state != "not run" or found[run_id].why)
    ]
    return {
        "done": len(results),
        "total": max(len(specs), 1),
        "kinds": ", ".join(f"{verbs[verb]} {verb}" for verb in VERBS if verbs[verb]),
        "others": ", ".join(f"{count} {state}" for state, count in states.items()),
        "facts": _facts(results),
        "troubles": troubles[:TROUBLES],
        "more_troubles": len(troubles[TROUBLES:]),
    }


def _facts(results: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(label, lines) of the overview: what all results share is said once, what differs once each."""
    data = sorted({tuple(result["data"][name] for name in ("dataset", "classes", "train", "test", "note", "digest")) for result in results})
    devices = Counter(f"{result['device']}, {result['threads']} thread{'s' * (result['threads'] != 1)}" for result in results)
    versions = {", ".join(f"{name} {result['versions'].get(name, '?')}" for name in ("python", "torch", "av")) for result in results}
    commits = Counter(commit_of(result) for result in results)
    last = max((str(result["finished"]) for result in results), default="")
    spent = sum(result["wall_s"] for result in results)
    return [
        (
            "Data",
            [
                {
                    "text": f"{'own videos' if dataset == OWN else dataset}: {classes} classes",
                    "more": f"{train} training and {test} test videos"
                    + (f"; {note}; digest {digest[:12] or 'none'}" if len(data) <= 2 else ""),  # else it stands with each run alone
                }
                for dataset, classes, train, test, note, digest in data
            ],
        ),
        ("Device", [{"text": device, "more": "; ".join(sorted(versions))} for device in devices]),
        (
            "Commit",
            [
                {
                    "text": commit[:12],
                    "code": True,
                    "more": f"{count} run{'s' * (count > 1)}" + (", with uncommitted changes" * commit.endswith("-dirty")),
                }
                for commit, count in commits.most_common()
            ],
        ),
        (
            "Computing time",
            [{"text": _duration(spent), "more": f"all runs added up; the last finished {_day(last)}"}] if results else [],
        ),
    ]


def _table(table: Table, rows: Sequence[Row], scale: Scale, specs: Mapping[str, Spec], found: Mapping[str, Found]) -> dict[str, Any]:
    chances = {column: _chance([row for row in rows if row.column == column], found) for column in table.columns}
    metrics = {row.column: row.metric for row in rows}
    head = head_of(table)

    def axis_of(column: str) -> Axis:
        """Accuracies share an axis, whatever their column; other numbers have one a column."""
        alike = [row for row in rows if row.column == column or row.metric == metrics[column] == "top1"]
        values = [value for row in alike for value in (*_ends(row.estimate), row.paper, chances[row.column]) if value is not None]
        return Axis.over(values, NARROW if len(head) > 1 else WIDTH, 10 if max(values, default=0) > 10 else 1)

    axes = {column: axis_of(column) for column in table.columns}
    blocks = [
        {
            "column": column,
            "unit": UNITS.get(metrics[column], ""),
            "head": axis_head(axes[column]),
            "width": len(head) + 4 + comparable(scale) - scale.own_videos,
            "groups": [
                {
                    "name": section.group,
                    "cells": [
                        {
                            "id": _cell_id(row),
                            "names": names(table, row),
                            "detail": detail(row),
                            "row": row,
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
        "gains": _gains(table, rows),
    }


def _chance(rows: Sequence[Row], found: Mapping[str, Found]) -> float | None:
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
    means = [_mean_gain([cells[name, column] for name in names], cells[BASE, column]) for column in table.columns]
    lines.append(("Mean of the above", [(mean, "not all run") for mean in means]))
    estimates = [estimate for _, line in lines for estimate, _ in line if estimate]
    if not estimates:
        return None
    axis = Axis.over([0.0, *(value for estimate in estimates for value in _ends(estimate) if value is not None)])
    return {
        "columns": [{"name": column, "head": axis_head(axis)} for column in table.columns],
        "lines": [
            {"name": name, "cells": [{"estimate": one, "status": status, "plot": interval(axis, one, rule=0.0)} for one, status in line]}
            for name, line in lines
        ],
    }


def _mean_gain(better: Sequence[Row], base: Row) -> Estimate | None:
    """Seed by seed the mean over rows, minus the base; only over seeds that every row has."""
    seeds = [values for values in zip(*(row.values for row in better), base.values) if None not in values]
    return over_seeds([sum(values[:-1]) / len(better) - values[-1] for values in seeds]) if seeds else None


def _ends(estimate: Estimate | None) -> tuple[float | None, ...]:
    return (estimate.low, estimate.mean, estimate.high) if estimate else ()


def _curves(registry: Registry, logs: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Loss over steps, a panel a row of the tables, a line a seed, one scale for all panels of a verb."""
    notes = {
        "pretrain": "Reconstruction loss. Masks that hide different shares, or different places, set problems of different difficulty: "
        "a lower curve is not a better mask.",
        "finetune": "Training loss of the classifier.",
        "probe": "Training loss of the linear layer.",
    }
    groups = []
    for verb, note in notes.items():
        panels: dict[str, list[str]] = {}
        for run_id, label in _labels(registry).items():
            if registry.specs[run_id].verb == verb and len(logs[run_id]) > 1:
                panels.setdefault(label, []).append(run_id)
        if not panels:
            continue
        series = {label: [_losses(logs[run_id]) for run_id in run_ids] for label, run_ids in panels.items()}
        drawn = [value for several in series.values() for one in several for _, value in thin(one)]
        steps = max(line.get("steps", line["step"]) for run_ids in panels.values() for run_id in run_ids for line in logs[run_id][-1:])
        low, high = min(drawn), max(drawn)
        groups.append(
            {
                "title": VERBS[verb],
                "note": f"{note} One line a seed; each point is the mean of its share of the steps.",
                "panels": [
                    {
                        "name": label,
                        "last": f"{sum(thin(one)[-1][1] for one in several) / len(several):.3f}",
                        "svg": curves(several, steps, low, high, f"{VERBS[verb]} loss of {label}"),
                    }
                    for label, several in series.items()
                ],
            }
        )
    return groups


def _losses(lines: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in lines if isinstance(line.get("loss"), int | float)]


def _labels(registry: Registry) -> dict[str, str]:
    """Run id -> the row of a table it works for, in the order of the tables; the first such row names it."""
    labels: dict[str, str] = {}
    for table in sorted(registry.tables.values(), key=lambda table: table.name not in ("1", "4e")):
        for cell in table.cells:
            for run in cell.runs:
                label = cell.row if table.name in ("1", "4e") else f"Table {table.name}: {cell.row}, {cell.column}"
                for run_id in (run.run_id, *parents(run)):
                    labels.setdefault(run_id, label)
    return labels


def _runs(
    registry: Registry, found: Mapping[str, Found], rows: Mapping[str, Sequence[Row]], logs: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """All runs by verb, each with everything a reader may ask of it."""
    labels = _labels(registry)
    cells: dict[str, list[dict[str, str]]] = {}
    for several in rows.values():
        for row in several:
            for run_id in row.run_ids:
                cells.setdefault(run_id, []).append({"id": _cell_id(row), "text": f"Table {row.table}, {row.row}, {row.column}"})
    groups = []
    for verb, title in VERBS.items():
        runs = [
            {
                "run_id": run_id,
                "label": f"{labels.get(run_id, spec.data.dataset)}, seed {spec.seed}",
                "state": found[run_id].state,
                "outcome": _outcome(found[run_id].result, logs[run_id]),
                "fields": _fields(found[run_id], logs[run_id]),
                "parents": parents(spec),
                "cells": cells.get(run_id, []),
                "spec": json.dumps(spec.model_dump(mode="json"), indent=1),
            }
            for run_id, spec in registry.specs.items()
            if spec.verb == verb
        ]
        if runs:
            groups.append({"title": f"{title} ({len(runs)})", "runs": runs})
    return groups


def _outcome(result: dict[str, Any] | None, log: Sequence[dict[str, Any]]) -> str:
    if result and "top1" in result["metrics"]:
        return f"{result['metrics']['top1']:.1f} %"
    losses = thin(_losses(log))
    return f"loss {losses[-1][1]:.3f}" if losses else "done"


def _fields(run: Found, log: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(name, text) of a run's result and log; for a run without a result, of its state and log."""
    fields = [("state", f"{run.state}. {run.why}" if run.why else run.state)] if run.state != "run" else []
    if run.result:
        result = run.result
        data, metrics = (
            result["data"],
            {name: f"{value:.4g}" for name, value in result["metrics"].items() if isinstance(value, int | float)},
        )
        tested = f" on {result['n_test']} test videos" if result["n_test"] else ""
        if metrics:
            fields.append(("result", ", ".join(f"{name} {value}" for name, value in metrics.items()) + tested))
    losses = thin(_losses(log))
    if losses:
        fields.append(("loss", f"{losses[0][1]:.3f} → {losses[-1][1]:.3f} in {log[-1]['step']} of {log[-1].get('steps', '?')} steps"))
        speed, coverage, memory = _mean(log, "clips_per_s"), _mean(log, "coverage"), _mean(log[-1:], "memory_mb")
        measured = [
            f"{speed:.0f} clips/s" if speed is not None else "",
            f"{memory:.0f} MB at most" if memory is not None else "",
            f"mask coverage {100 * coverage:.1f} %" if coverage is not None else "",
        ]
        fields.append(("measured", ", ".join(filter(None, measured)) or "not logged"))
    if run.result:
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        fields += [
            ("data", f"{data['dataset']}, digest {data['digest'] or 'none'}, {data['train']} + {data['test']} videos, {data['note']}"),
            ("commit", commit_of(result)),
            ("weights", f"sha256 {result['weights_sha256']}" if result["weights_sha256"] else "none kept"),
            ("computed", f"in {_duration(result['wall_s'])} on {result['device']}, finished {_day(str(result['finished']))}"),
            ("versions", versions),
        ]
        if result["failed_videos"]:
            fields.append(
                ("unreadable", f"{len(result['failed_videos'])} videos, weight 0: {', '.join(map(str, result['failed_videos'][:5]))}")
            )
    return fields


def _mean(log: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [line[name] for line in log if isinstance(line.get(name), int | float)]
    return sum(values) / len(values) if values else None


def _cell_id(row: Row) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{row.table}-{row.row}-{row.column}".lower()).strip("-")


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


def _day(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%-d %B %Y, %H:%M}"
    except ValueError:
        return text or "at an unknown time"
