"""The ladder shows what each row gains over the one that is subtracted, in the view's order."""

import numpy as np
import pandas as pd
import pytest

from mgm.report.views import ladder
from mgm.study.schema import View

ROWS = ("No pretraining", "Random tube", "Random block", "SMM", "Shuffled", "MGM")
VIEW = View(
    kind="ladder",
    rows=ROWS,
    options={"minus": "No pretraining", "colours": {"Quick": ("a", "b"), "People": ("c",)}},
)


@pytest.fixture
def frame():
    """Three datasets of four dataset seeds, whose row number r gains r points over the first."""
    seeds = pd.MultiIndex.from_product([range(901, 905), [0]], names=["dataset_seed", "seed"])
    rng = np.random.default_rng(0)
    cells = []
    for column in ("Linear probe", "Fine-tuned"):
        for dataset in "abc":
            level = rng.uniform(10, 40, len(seeds))
            cells += [
                {
                    "dataset": dataset,
                    "title": dataset.upper(),
                    "column": column,
                    "row": row,
                    "values": pd.Series(level + nth, seeds),
                    "steps": 8400 if dataset == "b" else 2800,
                    "by": "datasets",
                    "unit": "dataset",
                    "share": True,
                    **dict.fromkeys(("mean", "low", "high"), np.nan),
                    "n": 4,
                    "status": "finished",
                    "panel": "",
                }
                for nth, row in reversed([*enumerate(ROWS)])
            ]
    return pd.DataFrame(cells)


def test_gains_are_paired_and_stand_in_the_views_order(frame):
    points = ladder.data(frame, VIEW)
    assert {*points.row} == {*ROWS[1:]}
    assert {*points.colour} == {"Quick", "People"}
    # Pairs of one dataset seed differ by the row's number, whatever their level.
    assert np.allclose(points["mean"], points.place + 1)


def test_a_dataset_that_lacks_runs_has_no_line(frame):
    lacks = (frame.dataset == "b") & (frame.row == "MGM") & (frame.column == "Fine-tuned")
    frame.loc[lacks, "status"] = "partial"
    assert {*ladder.data(frame, VIEW).title} == {"A", "C"}
    assert ladder.data(frame.assign(status="not run"), VIEW).empty


def test_a_line_per_dataset_is_drawn_in_each_panel(frame):
    figure = ladder.draw(ladder.data(frame, VIEW), VIEW)
    probe, tuned = figure.axes
    assert (probe.get_title(), tuned.get_title()) == ("Linear probe", "Fine-tuned")
    drawn = [line for line in probe.lines if len(line.get_xdata()) == len(ROWS) - 1]
    assert len(drawn) == 3
    assert all(np.all(np.diff(line.get_ydata()) > 0) for line in drawn)
    assert sum(line.get_linestyle() == "--" for line in drawn) == 1
