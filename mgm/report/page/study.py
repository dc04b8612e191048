"""The part of the page that a study has in place of the paper's tables."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgm.report.findings import Findings, estimate_of
from mgm.report.page.pictures import embedded
from mgm.report.page.runs import slug
from mgm.report.page.svg import NARROW, PERCENT, Axis
from mgm.report.study_files import FRAMES
from mgm.report.words import MINUS
from mgm.study.registry import SHARES


def study_of(findings: Findings, figures: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the page's template shows of a study.

    Args:
        figures: the study's figures by name, as svg files.
    """
    study, cells = findings.study, findings.cells
    first, *_ = study.columns
    tables = []
    for dataset, title in study.shown.items():
        of_dataset = cells[cells.dataset == dataset]
        parts = [
            _table(findings, part, column)
            for column in study.columns
            if len(part := of_dataset[of_dataset.column == column])
        ]
        if parts:
            tables.append({"name": dataset, "title": title, "parts": parts})
    differences = [
        {
            "title": " · ".join(
                filter(None, [study.shown[str(dataset)], str(column), str(family)])
            ),
            "lines": _records(family_of),
            "axis": _axis(family_of),
        }
        for (dataset, column, family), family_of in findings.differences.groupby(
            ["dataset", "column", "family"], sort=False
        )
    ]
    predictions = [
        prediction
        | {
            "where": study.shown.get(prediction["dataset"], prediction["dataset"]),
            "column": "" if prediction["column"] == first else prediction["column"],
        }
        for prediction in _records(findings.predictions)
    ]
    sceptic = {asked: findings.filled(text) for asked, text in study.sceptic.items()}
    return {
        "question": study.question,
        "answer": [_signed(line) for line in map(findings.filled, study.answer) if line],
        "stop": study.stop,
        "unclean": study.unclean,
        "sceptic": {asked: _signed(answer) for asked, answer in sceptic.items() if answer},
        "tables": tables,
        "differences": differences,
        "predictions": predictions,
        "verdicts": Counter(prediction["verdict"] for prediction in predictions),
        "unit": findings.unit_name,
        "over": " ".join(study.over.values()),
        "places": _places(findings),
        "csv": FRAMES,
        "figures": {name: embedded(path)["source"] for name, path in figures.items()},
    }


def _table(findings: Findings, cells: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return the rows of a dataset in one column: models, then controls."""
    metric = findings.study.columns[column].metric
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in sorted(_records(cells), key=itemgetter("control")):
        line["run_ids"] = line["run_ids"].split()
        line["id"] = f"cell-{slug(line['dataset'], line['row'], column)}"
        groups.setdefault("Controls: no model" if line["control"] else "", []).append(line)
    return {
        "column": column,
        "unit": SHARES.get(metric, "").lower() or f"{metric} (%)",
        "groups": groups,
        "axis": _axis(cells, PERCENT if metric in SHARES else (-np.inf, np.inf)),
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
    return [row | {"estimate": estimate_of(row) if row["n"] else None} for row in rows]


def _axis(table: pd.DataFrame, within: Sequence[float] = (-np.inf, np.inf)) -> Axis:
    ends = table[["mean", "low", "high"]].to_numpy().ravel()
    return Axis.over([0.0, *ends[np.isfinite(ends)]], NARROW, 10, (within[0], within[1]))
