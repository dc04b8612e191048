"""Accuracy by class and the confusion matrix, for pages of own videos."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mgm.report.cells import Row
from mgm.results.result import RunStatus

# A matrix of more classes does not fit a page; the list by class stays.
LARGEST_MATRIX = 20


@dataclass(frozen=True)
class ClassLine:
    """One class: its share of right predictions, and the wrong class that was predicted most."""

    name: str
    predictions: int
    accuracy: float
    confused_with: str
    confused: float


@dataclass(frozen=True)
class ByClass:
    """What `by_class` returns. `matrix` maps label, then prediction, to a share of the label's
    predictions in per cent; it is empty above `LARGEST_MATRIX` classes."""

    row: Row
    runs: int
    lines: list[ClassLine]
    matrix: dict[str, dict[str, float]]


def by_class(row: Row | None, results: Path, found: Mapping[str, RunStatus]) -> ByClass | None:
    """Sum the predictions of a cell's finished runs by class.

    Returns:
        The least accurate class first; None where no run has written `predictions.csv`.
    """
    run_ids = row.run_ids if row else ()
    paths = [results / run_id / "predictions.csv" for run_id in run_ids if found[run_id].result]
    frames = [
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in paths if path.exists()
    ]
    if row is None or not frames:
        return None
    said = pd.concat(frames)
    counts = pd.crosstab(said.label, said.prediction)
    names = sorted({*said.label, *said.prediction})
    totals = counts.sum(axis=1)
    shares = 100 * counts.reindex(index=names, columns=names, fill_value=0)
    shares = shares.div(totals.reindex(names), axis=0).dropna()
    lines = []
    for name, share in zip(map(str, shares.index), (row for _, row in shares.iterrows())):
        wrong = share.drop(name)
        worst = wrong.idxmax() if len(wrong) and wrong.max() > 0 else ""
        lines.append(
            ClassLine(
                name,
                int(totals[name]),
                float(share[name]),
                str(worst),
                float(wrong.max()) if worst else 0.0,
            )
        )
    matrix = {str(name): dict(share) for name, share in shares.iterrows()}
    if len(names) > LARGEST_MATRIX:
        matrix = {}
    return ByClass(row, len(frames), sorted(lines, key=lambda line: line.accuracy), matrix)
