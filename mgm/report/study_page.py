"""The report of a study: its tables, its figure, and its part of the page.

Every number comes from `mgm.report.findings`, with intervals over the study's sampling unit.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgm.paper.registry import SHARES
from mgm.paper.study import parse_difference
from mgm.report import blocks
from mgm.report.figures.study import differences, over_a_number
from mgm.report.figures.style import save
from mgm.report.findings import Findings, estimate_of
from mgm.report.page.runs import slug
from mgm.report.page.svg import NARROW, PERCENT, Axis
from mgm.report.table_files import MINUS
from mgm.results import atomic

# The frames of `Findings` that are written as csv.
FRAMES = ("cells", "differences", "predictions", "values")


def write_study_tables(findings: Findings, folder: Path) -> Path:
    """Write cells, differences, predictions and values to `folder`, and return the folder.

    Each is a csv file with every column. The .md files show the same for readers.
    """
    for name in FRAMES:
        table = getattr(findings, name)
        text = table.round(4).to_csv(index=False, lineterminator="\n")
        atomic.write(folder / f"{name}.csv", text)
    written: dict[str, list[str]] = {}
    if len(findings.predictions):
        written["predictions"] = [blocks.predictions(findings)]
    for name in ("cells", "controls"):
        models = findings.cells[findings.cells.control == (name == "controls")]
        for dataset, title in findings.study.shown.items():
            if columns := " / ".join(models[models.dataset == dataset].column.unique()):
                text = blocks.KINDS[name](findings, datasets=dataset, columns=columns)
                written.setdefault(name, []).append(f"{title}, {columns}\n\n{text}")
    pairs = findings.differences[["family", "column"]].drop_duplicates()
    for family, column in pairs.itertuples(index=False):
        text = blocks.differences(findings, family, column=column)
        title = f"{family or 'Differences'}, {column}"
        written.setdefault("differences", []).append(f"{title}\n\n{text}")
    caveat = findings.study.caveat.strip()
    for name, parts in written.items():
        lines = [*parts, f"*{caveat}*"] if caveat else parts
        atomic.write(folder / f"{name}.md", "\n\n".join(lines) + "\n")
    return folder


def write_study_figures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Draw the study's figures, and return their svg files: `over`, and `differences`."""
    written = {}
    if len(points := findings.points):
        numbers = points.drop(columns=["dataset", "column", "line"]).to_numpy(float)
        names = points[["dataset", "column", "line"]].to_numpy(str)
        figure = over_a_number(findings.study, points, unit_of(findings))
        save(figure, folder / "over", {"names_P3": names, "numbers_P5": numbers})
        written["over"] = folder / "over.svg"
    table = findings.differences
    # A dot is a unit, and a unit is no person.
    table = table[table.family.isin(findings.study.compare)]
    table = table[table.column == next(iter(findings.study.columns))]
    if len(table):
        units = {
            place: findings.per_unit(
                place[0], *parse_difference(place[1]), table.column.iloc[0]
            ).to_numpy()
            for place in zip(table.dataset, table.says)
        }
        arrays = {f"{dataset}: {says}": values for (dataset, says), values in units.items()}
        figure = differences(findings.study, table, units, unit_of(findings))
        save(figure, folder / "differences", arrays)
        written["differences"] = folder / "differences.svg"
    return written


def unit_of(findings: Findings) -> str:
    """Return the name of the study's sampling unit."""
    if not findings.study.draws:
        return "seed"
    return "dataset" if findings.study.unit == "draws" else "run"


def study_of(findings: Findings) -> dict[str, Any]:
    """Return what the page's template shows of a study."""
    study, table = findings.study, findings.cells
    columns = list(study.columns)
    tables = []
    for dataset, title in study.shown.items():
        here = table[table.dataset == dataset]
        parts = [_table(findings, here[here.column == column], column) for column in columns]
        tables.append({"name": dataset, "title": title, "parts": [one for one in parts if one]})
    differences = [
        {
            "title": " · ".join(
                filter(None, [study.shown[str(dataset)], str(column), str(family)])
            ),
            "lines": _records(some),
            "axis": _axis(some),
        }
        for (dataset, column, family), some in findings.differences.groupby(
            ["dataset", "column", "family"], sort=False
        )
    ]
    predictions = [
        one
        | {
            "where": study.shown.get(one["dataset"], one["dataset"]),
            "column": one["column"] if one["column"] != columns[0] else "",
        }
        for one in _records(findings.predictions)
    ]
    return {
        "question": study.question,
        "answer": [_signed(said) for text in study.answer if (said := findings.filled(text))],
        "stop": study.stop,
        "unclean": study.unclean,
        "sceptic": {
            asked: _signed(said)
            for asked, text in study.sceptic.items()
            if (said := findings.filled(text))
        },
        "tables": [one for one in tables if one["parts"]],
        "differences": differences,
        "predictions": predictions,
        "verdicts": Counter(one["verdict"] for one in predictions),
        "unit": unit_of(findings),
        "over": " ".join(study.over.values()),
        "places": _places(findings),
        "csv": FRAMES,
    }


def _table(findings: Findings, some: pd.DataFrame, column: str) -> dict[str, Any] | None:
    """Return the rows of a dataset in one column: models, then controls."""
    if not len(some):
        return None
    metric = findings.study.columns[column].metric
    lines = [
        one
        | {
            "run_ids": one["run_ids"].split(),
            "id": f"cell-{slug(one['dataset'], one['row'], column)}",
        }
        for one in _records(some)
    ]
    groups = {
        "": [one for one in lines if not one["control"]],
        "Controls: no model": [one for one in lines if one["control"]],
    }
    return {
        "column": column,
        "unit": SHARES.get(metric, "").lower() or f"{metric} (%)",
        "groups": {title: several for title, several in groups.items() if several},
        "axis": _axis(some, PERCENT if metric in SHARES else (-np.inf, np.inf)),
    }


def _signed(text: str) -> str:
    """Return a text whose negative numbers have a true minus sign."""
    return re.sub(r"(?<=[\s\[])-(?=\d)", MINUS, text)


def _places(findings: Findings) -> dict[str, str]:
    """Return the draw and the seed of each run, as one number if they are equal."""
    runs = findings.runs.drop_duplicates("run_id")
    return {
        run_id: str(seed) if draw in (-1, seed) else f"{draw}/{seed}"
        for run_id, draw, seed in zip(runs.run_id, runs.draw, runs.seed)
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame of estimates, each with its `estimate`."""
    rows: list[Any] = table.to_dict("records")
    return [one | {"estimate": estimate_of(one) if one["n"] else None} for one in rows]


def _axis(table: pd.DataFrame, within: Sequence[float] = (-np.inf, np.inf)) -> Axis:
    ends = table[["mean", "low", "high"]].to_numpy().ravel()
    return Axis.over([0.0, *ends[np.isfinite(ends)]], NARROW, 10, (within[0], within[1]))
