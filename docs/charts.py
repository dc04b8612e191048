"""Write the charts of README.md and docs/results.md to docs/charts, from results/*.csv.xz.

python docs/charts.py
"""

from collections.abc import Callable
from functools import cache
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mgm.report import charts, style
from mgm.report.page import Report
from mgm.results.frame import Results, load
from mgm.spec import Pretrain
from mgm.spec.compute import multiply_adds, passes
from mgm.spec.datasets import PUBLISHED
from mgm.study.expand import expand

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/charts"
SHUFFLED = "MGM (Dense), shuffled"
PRINTED = {"ssv2": "The paper, SSv2 (x in 10¹⁸)", "k400": "The paper, K400 (x in 10¹⁸)"}
OURS = "Ours, fine-tuned, mean of 8 datasets (x in 10¹²)"
BOTH = ("Fine-tuned", "Linear probe")
# Set, study, view, and what the chart changes of the view.
SETS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("Drawn", "confirmation", "gains-tuned", {}),
    ("Drawn", "confirmation", "gains-probed", {}),
    ("Gestures", "hands", "masks", {"datasets": ["folds"], "columns": ()}),
    ("Lips", "lips-tuned", "masks", {}),
    ("Lips", "lips", "masks", {}),
]
READINGS = {
    "Fine-tuned": "fine-tuned",
    "Attentive probe": "attentive probe",
    "Linear probe, change": "probe of change",
    "Linear probe, 4 x 4": "probe of 4 x 4",
    "Linear probe": "linear probe",
}
OTHERS = {
    "Random Tube": "MGM minus the paper's tube, 90 %",
    "Random Tube at ratio 0.75": "MGM minus a tube of 75 %",
    "MGM, shuffled": "MGM minus shuffled",
}


@cache
def published(name: str) -> Results:
    """Return stored results."""
    return load(name, ROOT / "results")


def lines(name: str, study: str, key: str, **fields: Any) -> pd.DataFrame:
    """Return the differences of a study's view, with changed fields."""
    own = published(name).studies[study]
    view = own.views[key].model_copy(update=fields)
    return Report(published(name), ROOT).differences(own, view)


def headline() -> Figure:
    """Draw what README tells: MGM minus the tube and shuffled over headline's worlds."""
    return gains("headline")


def confirmed() -> Figure:
    """Draw MGM minus each other row over confirmation's worlds."""
    return gains("confirmation")


def gains(name: str) -> Figure:
    """Draw a study's differences, fine-tuned and by probes."""
    table = pd.concat([lines(name, name, view) for view in ("gains-tuned", "gains-probed")])
    return charts.differences(table.assign(panel=table.column + ": " + table.title))


def following() -> Figure:
    """Draw what following is worth in each of confirmation's worlds."""
    own = published("confirmation")
    view = own.studies["confirmation"].views["following"]
    return charts.gains(Report(own, ROOT).gains(own.studies["confirmation"], view))


def masks() -> Figure:
    """Draw Table 4e, as differences from the tube."""
    return charts.differences(lines("mini", "table4e", "minus-tube", columns=BOTH), "Random Tube")


def ratios() -> Figure:
    """Draw what following is worth, by mask ratio."""
    table = lines("mini", "table4e", "following", columns=BOTH)
    table = table[table["minus"].str.startswith(SHUFFLED)]
    return charts.differences(table.sort_values(["column", "row"]))


def steps() -> Figure:
    """Draw what each property of MGM's mask adds."""
    table = lines("ladder", "ladder", "mean-steps")
    others = ["No pretraining", "Random tube, 90 %"]
    return charts.differences(table[~table["minus"].isin(others)])


def sets() -> Figure:
    """Draw what drawn and real sets say: MGM minus each other mask, by each reading."""
    order, tables = [*READINGS], []
    for title, name, view, fields in SETS:
        table = lines(name, name, view, **fields)
        table = table.sort_values("column", key=lambda columns: columns.map(order.index))
        tables.append(table.assign(name=title + ": " + table.column.map(READINGS)))
    table = pd.concat(tables)
    parts = [
        table[(table.row == "MGM") & (table["minus"] == other)].assign(panel=panel)
        for other, panel in OTHERS.items()
    ]
    return charts.differences(pd.concat(parts))


def computing() -> Figure:
    """Draw Figure 1 by the multiply-adds of pretraining, as `mgm plan` counts them."""
    # The paper's numbers, and the datasets' official sizes.
    paper = pretrainings("paper", lambda spec: PUBLISHED[spec.data.dataset].train)
    quoted = Report(published("paper"), ROOT).quoted
    quoted = quoted[(quoted.study == "table1") & quoted.line.isin(["MGM", "VideoMAE"])]
    quoted = quoted.merge(paper, on=["dataset", "row"]).sort_values("dataset", ascending=False)
    quoted = quoted.assign(mean=nan, panel=quoted.dataset.map(PRINTED))
    # Ours. Intervals of accuracies are of worlds more than of masks.
    rows = ["MGM, 200", "MGM, 600", "VideoMAE, 200", "VideoMAE, 600"]
    ours = Report(published("mini"), ROOT).numbers
    ours = ours[(ours.study == "table1") & (ours.column == "Fine-tuned") & ours.row.isin(rows)]
    ours = ours.drop(columns="steps").merge(pretrainings("mini"), on=["dataset", "row"])
    ours = ours.assign(x=1e6 * ours.x, low=-inf, high=inf, paper=nan, panel=OURS)
    table = pd.concat([quoted, ours]).assign(metric="top1")
    return charts.draw(table.assign(hue=table.line), "computing")


def pretrainings(name: str, videos: Callable[[Pretrain], int] | None = None) -> pd.DataFrame:
    """Return the multiply-adds of the pretrainings of Table 1 by dataset and row, in 10^18.

    Args:
        videos: of the training set, if a spec counts epochs.
    """
    study, scale = published(name).studies["table1"], published(name).scale
    found = expand([study], scale)
    cells = found.cells[found.cells.pretraining != ""].drop_duplicates(["dataset", "row"])
    costs = []
    for run_id in cells.pretraining:
        spec = found.specs[run_id]
        clips = spec.optim.steps * spec.optim.batch
        clips = clips or spec.optim.epochs * videos(spec)
        costs.append(passes(spec) * clips * multiply_adds(spec) / 1e18)
    return cells[["dataset", "row"]].assign(x=costs)


if __name__ == "__main__":
    for draw in (headline, confirmed, following, masks, ratios, steps, sets, computing):
        style.write(draw, OUT / f"{draw.__name__}.svg")
