"""Runs on the page: training curves, one line per run, and the details of each run."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import inf, isfinite
from os.path import relpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mgm.report.cells import FilledCell, commit_of
from mgm.report.page.svg import SMOOTH, thin
from mgm.report.tables import TableView, names
from mgm.results.frame import pretraining_of
from mgm.results.result import RunStatus
from mgm.spec import Spec, data_name, parents
from mgm.study.registry import Cell, Registry, Table, label_of

# Titles of the stages.
STAGES = {
    "pretrain": "Pretraining",
    "finetune": "Fine-tuning",
    "probe": "Linear probe",
    "measure": "Measurements",
    "visualise": "Pictures",
}
# Notes on the curves of a stage.
NOTES = {
    "pretrain": "Reconstruction loss divided by the loss of predicting zeros (dotted line). Masks "
    "differ in difficulty, so a lower curve does not mean a better mask.",
    "finetune": "Training loss of the classifier.",
    "probe": "Training loss of the linear layer.",
}
# Files of a run's folder that the page links to.
FILES = ("result.json", "spec.json", "log.jsonl", "error.txt", "predictions.csv")

Log = list[dict[str, Any]]  # the lines of log.jsonl
Losses = list[tuple[float, float]]  # (step, loss)


def training(
    registry: Registry, logs: Mapping[str, Log], losses: Mapping[str, Losses]
) -> list[dict[str, Any]]:
    """Return loss curves: one panel per table row, one line per seed, one axis per stage."""
    groups = []
    labels = labels_of(registry)
    for stage, note in NOTES.items():
        labelled: dict[str, list[str]] = {}  # label -> run ids
        for run_id, text in labels.items():
            if len(losses.get(run_id, ())) > 1 and registry.specs[run_id].stage == stage:
                labelled.setdefault(text, []).append(run_id)
        if not labelled:
            continue
        # Batches differ in how much their clips vary. Dividing by the loss of predicting zeros on
        # the same clips removes this.
        relative = stage == "pretrain"
        series = {
            text: [thin(losses_of(logs[run_id], relative), SMOOTH) for run_id in run_ids]
            for text, run_ids in labelled.items()
        }
        ends = [value for curves in series.values() for curve in curves for _, value in curve]
        if relative:
            ends.append(1.0)
        lasts = [logs[run_id][-1] for run_ids in labelled.values() for run_id in run_ids]
        steps = [last.get(name) for last in lasts for name in ("step", "steps")]
        panels = {
            text: {"curves": curves, "last": sum(curve[-1][1] for curve in curves) / len(curves)}
            for text, curves in series.items()
        }
        groups.append(
            {"title": STAGES[stage], "note": note, "rule": relative, "panels": panels}
            | {"low": min(ends), "high": max(ends)}
            | {"steps": max(1.0, *(float(step) for step in steps if isinstance(step, int | float)))}
        )
    return groups


def losses_of(log: Log, relative: bool = False) -> Losses:
    """Return (step, loss) of a log. Without `relative` they are thinned for drawing.

    Args:
        relative: divide by the loss of predicting zeros, if the log has it.
    """
    known = [line for line in log if _is_number(line.get("loss")) and isfinite(line["loss"])]
    zeros = [line for line in known if 0 < (_mean([line], "trivial_loss") or 0) < inf]
    if relative and zeros:
        return [(int(line["step"]), line["loss"] / line["trivial_loss"]) for line in zeros]
    return thin([(int(line["step"]), line["loss"]) for line in known])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def labels_of(registry: Registry) -> dict[str, str]:
    """Map a run id to the table row or figure that uses it.

    If several use it, the first in the order of the tables counts.
    """
    uses: list[tuple[str, Sequence[Spec]]] = [("Controls", registry.controls)]
    uses += [
        (cell.row if table.rows_name_runs else _label(table, cell), cell.runs)
        for table in sorted(registry.tables.values(), key=lambda table: not table.rows_name_runs)
        for cell in table.cells
    ]
    for name, plot in registry.plots.items():
        uses += [
            (f"{label_of(f'figure{name}')}: {line}, {x:g}", cell.runs)
            for line, points in plot.lines.items()
            for x, cell in points
        ]
    uses += [(label_of(f"figure{name}"), [figure.run]) for name, figure in registry.figures.items()]
    labels: dict[str, str] = {}
    for text, runs in uses:
        for run_id in (run_id for run in runs for run_id in (run.run_id, *parents(run))):
            labels.setdefault(run_id, text)
    return labels


def _label(table: Table, cell: Cell) -> str:
    """Return "Table 4c: jitter no", with the column if the table has several."""
    kind = f"{table.head.lower()} " if table.head in ("Backbone", "Guidance", "Jitter") else ""
    parts = names(table, cell)
    if len(table.columns) > 1:
        parts.append(cell.column)
    return f"{table.label}: {kind}{', '.join(parts)}"


def columns_of(registry: Registry, statuses: Mapping[str, RunStatus]) -> dict[str, dict[str, str]]:
    """Map a run id to the columns of its line: mask, dataset and computing time.

    A run has the mask of the pretraining run that it starts from.
    """
    columns = {}
    for run_id, spec in registry.specs.items():
        mask = getattr(spec, "mask", None)
        if not mask and (start := pretraining_of(spec, registry.specs)):
            mask = start.mask
        result = statuses[run_id].result
        columns[run_id] = {
            "mask": mask.name if mask else "",
            "dataset": data_name(spec.data, kinds=registry.kinds),
            "time": duration(result["wall_s"]) if result else "",
        }
    return columns


def run_details(
    registry: Registry,
    statuses: Mapping[str, RunStatus],
    views: Mapping[str, TableView],
    logs: Mapping[str, Log],
    losses: Mapping[str, Losses],
    results: Path,
    reports: Path,
) -> dict[str, Any]:
    """Return the details of every run, for the page's script.

    Runs share most entries, so they refer to entries of one `pool` by number.
    """
    pool: dict[str, int] = {}  # JSON -> number

    def number_of(entry: Any) -> int:
        return pool.setdefault(json.dumps(entry), len(pool))

    cells: dict[str, list[int]] = {}
    for view in views.values():
        for cell in view.cells:
            shown = number_of([cell_id(cell), f"{view.table.label}, {cell.row}, {cell.column}"])
            for run_id in cell.run_ids:
                cells.setdefault(run_id, []).append(shown)
    runs = {
        run_id: {
            "fields": [
                number_of(field)
                for field in _fields(statuses[run_id], logs[run_id], losses[run_id])
            ],
            "files": number_of([name for name in FILES if (results / run_id / name).exists()]),
            "parents": parents(spec),
            "cells": cells.get(run_id, []),
            "spec": [number_of(field) for field in spec.model_dump(mode="json").items()],
        }
        for run_id, spec in registry.specs.items()
    }
    return {
        "results": quote(relpath(results, reports)),
        "pool": [json.loads(entry) for entry in pool],
        "runs": runs,
    }


def outcome(result: dict[str, Any] | None, losses: Losses) -> str:
    """Format a run's accuracy, or its last loss."""
    metrics = result["metrics"] if result else {}
    if "top1" in metrics:
        return f"{metrics['top1']:.1f} %"
    return f"loss {losses[-1][1]:.3f}" if losses else "done"


def _fields(run: RunStatus, log: Log, losses: Losses) -> list[tuple[str, str]]:
    """Return the details of a run as (name, text): result or state, log, data, provenance."""
    fields: dict[str, str] = {}
    result = run.result
    if run.state != "run":
        fields["state"] = f"{run.state}. {run.why}" if run.why else run.state
    if result:
        metrics = result["metrics"].items()
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics if _is_number(value))
        tested = f" on {result['n_test']} test videos" if result["n_test"] else ""
        fields["result"] = f"{shown}{tested}" if shown else ""
    if losses:
        zeros, last = _mean(log, "trivial_loss"), log[-1]
        ends = f"{losses[0][1]:.3f} → {losses[-1][1]:.3f}"
        trivial = f"; predicting zeros has {zeros:.3f}" if zeros is not None else ""
        fields["loss"] = f"{ends} in {last['step']} of {last.get('steps', '?')} steps{trivial}"
        measured = {
            "{:.0f} clips/s": _mean(log, "clips_per_s"),
            "{:.0f} MB peak memory": _mean(log[-1:], "memory_mb"),
            "mask coverage {:.1f} %": (_mean(log, "coverage") or 0) * 100 or None,
        }
        texts = (text.format(value) for text, value in measured.items() if value is not None)
        fields["measured"] = ", ".join(texts) or "not logged"
    if result:
        data, failed, digest = result["data"], result["failed_videos"], result["weights_sha256"]
        videos = f"{data['train']} training + {data['test']} test videos, {data['note']}"
        finished = f"finished {day(str(result['finished']))}"
        fields |= {
            "data": f"{data['dataset']}, digest {data['digest'] or 'none'}, {videos}",
            "commit": commit_of(result),
            "weights": f"sha256 {digest}" if digest else "none kept",
            "computed": f"in {duration(result['wall_s'])} on {result['device']}, {finished}",
            "versions": ", ".join(map(" ".join, result["versions"].items())),
        }
        if failed:
            first = ", ".join(map(str, failed[:5]))
            fields["unreadable"] = f"{len(failed)} videos, with weight 0: {first}"
    return [(name, text) for name, text in fields.items() if text]


def _mean(log: Log, name: str) -> float | None:
    values = [line[name] for line in log if _is_number(line.get(name))]
    return sum(values) / len(values) if values else None


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


def day(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%-d %B %Y, %H:%M}"
    except ValueError:
        return text or "at an unknown time"


def cell_id(row: FilledCell) -> str:
    """Return the cell's id in the page."""
    return slug(row.table, row.row, row.column)


def slug(*names: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")
