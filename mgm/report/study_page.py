"""The report of a study: its tables, its figure, and its part of the page.

Every number comes from `mgm.report.findings`, with intervals over the study's sampling unit.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from mgm.paper.registry import SHARES
from mgm.paper.study import parse_difference
from mgm.report import blocks
from mgm.report.figures.seeds import intervals
from mgm.report.figures.style import (
    QUIET,
    STYLE,
    panels,
    save,
)
from mgm.report.findings import Findings, estimate_of
from mgm.report.page.runs import slug
from mgm.report.page.svg import NARROW, PERCENT, Axis
from mgm.report.table_files import MINUS
from mgm.results import atomic

ROW, BETWEEN = 0.3, 0.62  # inches
FIGURE = "differences"
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


def write_study_figure(findings: Findings, folder: Path) -> Path | None:
    """Draw the differences of the first column, and return the svg; None without any."""
    table = findings.differences
    table = table[table.column == next(iter(findings.study.columns))]
    if not len(table):
        return None
    units = {
        place: findings.per_unit(place[0], *parse_difference(place[1]), table.column.iloc[0])
        for place in zip(table.dataset, table.says)
    }
    arrays = {f"{dataset}: {says}": values.to_numpy() for (dataset, says), values in units.items()}
    figure = _dots(findings, table, {place: values.to_numpy() for place, values in units.items()})
    save(figure, folder / FIGURE, arrays)
    return folder / f"{FIGURE}.svg"


@mpl.rc_context(STYLE)
def _dots(findings: Findings, table: pd.DataFrame, units: dict[tuple[str, str], np.ndarray]) -> Any:
    """Draw a panel per dataset: a mean with its interval, and a dot per sampling unit below."""
    datasets = list(dict.fromkeys(table.dataset))
    counts = [int((table.dataset == dataset).sum()) for dataset in datasets]
    key = (
        "Each line is a difference of two rows. Large dots and bars: mean and 95 % interval. "
        f"Small dots: one per {unit_of(findings)}. Orange line: no difference."
    )
    figure, several = panels(
        (len(datasets), 1),
        (9.2, sum(ROW * count + BETWEEN for count in counts)),
        (3.7, 0.15, 0.4, 0.6),
        [key],
        sharex=True,
        height_ratios=counts,
        gridspec_kw={"hspace": BETWEEN / (sum(counts) * ROW / len(counts))},
    )
    for axes, dataset in zip(several.flat, datasets, strict=True):
        some = table[table.dataset == dataset].reset_index(drop=True)
        intervals(axes, some, some.index - 0.12)
        for place, says in enumerate(some.says):
            values = units[dataset, says]
            axes.plot(values, np.full(len(values), place + 0.2), ".", color=QUIET, markersize=4)
        axes.set_title(findings.study.shown[dataset], loc="left", size=9.5)
        axes.set_yticks(some.index, [textwrap.fill(says, 50) for says in some.says])
        axes.set_ylim(len(some) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Difference (points)")
    return figure


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
