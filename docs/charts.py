"""Write the charts of README.md and docs/results.md to docs/charts, from results/*.csv.xz.

python docs/charts.py
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import inf, nan
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mgm.report import charts, style
from mgm.report.page import Report
from mgm.results.frame import Published, load
from mgm.spec import Pretrain
from mgm.spec.compute import multiply_adds, passes
from mgm.spec.datasets import PUBLISHED
from mgm.study.expand import expand
from mgm.study.schema import View

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/charts"
MGM, SHUFFLED = "MGM (Dense)", "MGM (Dense), shuffled"
# A line's name, its row and the row that is subtracted.
Pairs = Mapping[str, tuple[str, str]]
WORLDS: Pairs = {
    "MGM minus tube, 90 %": (MGM, "Random Tube"),
    "MGM minus tube, 75 %": (MGM, "Random Tube at ratio 0.75"),
    "MGM minus shuffled, 75 %": (MGM, SHUFFLED),
}
OTHERS: Pairs = {
    "the same, 16 other datasets": ("MGM", "MGM, shuffled"),
    "MGM minus shuffled, 60 %": ("MGM at ratio 0.6", "MGM, shuffled at ratio 0.6"),
    "MGM, 60 % minus 75 %": ("MGM at ratio 0.6", "MGM"),
}
RATIOS: Pairs = {
    "50 % hidden": (f"{MGM} at ratio 0.5", f"{SHUFFLED} at ratio 0.5"),
    "60 % hidden": (f"{MGM} at ratio 0.6", f"{SHUFFLED} at ratio 0.6"),
    "75 % hidden (the paper's)": (MGM, SHUFFLED),
    "90 % hidden": (f"{MGM} at ratio 0.9", f"{SHUFFLED} at ratio 0.9"),
}
STEPS: Pairs = {
    "block minus tube": ("Random block", "Random tube"),
    "SMM minus block": ("SMM", "Random block"),
    "shuffled minus SMM": ("MGM, shuffled guidance", "SMM"),
    "MGM minus shuffled": ("MGM", "MGM, shuffled guidance"),
    "MGM minus tube": ("MGM", "Random tube"),
}
GESTURES: Pairs = {
    "MGM minus random": ("MGM", "Random weights"),
    "tube, 90 %, minus random": ("Random Tube", "Random weights"),
    "tube, 75 %, minus random": ("Random Tube at ratio 0.75", "Random weights"),
    "MGM minus tube, 90 %": ("MGM", "Random Tube"),
    "MGM minus tube, 75 %": ("MGM", "Random Tube at ratio 0.75"),
    "MGM minus shuffled": ("MGM", "MGM, shuffled"),
}
PRINTED = {"ssv2": "The paper, SSv2 (x in 10¹⁸)", "k400": "The paper, K400 (x in 10¹⁸)"}
OURS = "Ours, fine-tuned, mean of 8 datasets (x in 10¹²)"
BOTH = ("Fine-tuned", "Linear probe")


@cache
def published(name: str) -> Published:
    """Return stored results."""
    return load(name, ROOT / "results")


def lines(
    name: str, study: str, dataset: str, pairs: Pairs, columns: Sequence[str], quoted: bool = False
) -> pd.DataFrame:
    """Return differences of a study by name, as `charts.differences` draws them."""
    own = published(name).studies[study].model_copy(update={"compare": (*pairs.values(),)})
    view = View(kind="differences", datasets=(dataset,), columns=(*columns,), quoted=quoted)
    found = Report(published(name), ROOT).differences(own, view)
    names = {pair: said for said, pair in pairs.items()}
    return found.assign(name=[names[pair] for pair in zip(found.row, found.minus)])


def findings() -> Figure:
    """Draw what README tells."""
    parts = [
        lines("mini", "table4e", "ssv2", WORLDS, BOTH, quoted=True),
        lines("ratio", "ratio", "worlds", OTHERS, BOTH),
    ]
    table = pd.concat(parts).sort_values("panel", kind="stable")
    return charts.differences(table)


def masks() -> Figure:
    """Draw Table 4e, as differences from the tube."""
    study = published("mini").studies["table4e"]
    view = study.views["minus-tube"].model_copy(update={"columns": BOTH})
    return charts.differences(Report(published("mini"), ROOT).differences(study, view), view.minus)


def ratios() -> Figure:
    """Draw what following is worth, by mask ratio."""
    return charts.differences(lines("mini", "table4e", "ratios", RATIOS, BOTH), SHUFFLED)


def steps() -> Figure:
    """Draw what each property of MGM's mask adds."""
    places = {"discs-mean": "discs", "people-mean": "a drawn person"}
    parts = [
        lines("ladder", "ladder", key, STEPS, columns).assign(title=title)
        for key, title in places.items()
        for columns in (["Linear probe"], ["Fine-tuned, 3 labels"])
    ]
    table = pd.concat(parts)
    return charts.differences(table.assign(panel=table.column + ": " + table.title))


def gestures() -> Figure:
    """Draw masks on real video."""
    parts = [
        lines("hands", "hands", "all", GESTURES, ["Linear probe, change"]),
        lines("hands", "hands", "folds", GESTURES, ["Fine-tuned"]),
        lines("hands", "hands", "folds", GESTURES, ["Attentive probe"]),
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
    found = expand([study], scale, lenient=True)
    cells = found.cells[found.cells.pretraining != ""].drop_duplicates(["dataset", "row"])
    costs = []
    for run_id in cells.pretraining:
        spec = found.specs[run_id]
        clips = spec.optim.steps * spec.optim.batch
        clips = clips or spec.optim.epochs * videos(spec)
        costs.append(passes(spec) * clips * multiply_adds(spec) / 1e18)
    return cells[["dataset", "row"]].assign(x=costs)


if __name__ == "__main__":
    for draw in (findings, masks, ratios, steps, gestures, computing):
        style.write(draw, OUT / f"{draw.__name__}.svg")
