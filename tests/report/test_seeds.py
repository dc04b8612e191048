"""The figure of seeds shows every run once, and differences that are paired by seed."""

import numpy as np
import pytest
from scipy import stats

from mgm.report.cells import fill_all
from mgm.report.figures.seeds import seeds, seeds_of
from mgm.report.findings import Findings
from mgm.results.frame import examine_all
from tests.helpers.fake_results import finish, registry

KNOWN = registry(seeds=(0, 1, 2))
PLOT = KNOWN.plots["4_seeds"]
VALUES = {"MGM (Dense)": (60, 70, 62), "Random Block": (50, 61, 55), "Random Tube": (40, 41, None)}


@pytest.fixture
def filled(tmp_path):
    cells = {cell.row: cell for _, cell in PLOT.lines["SSv2, linear probe"]}
    for row, values in VALUES.items():
        for run, value in zip(cells[row].runs, values):
            if value is not None:
                finish(tmp_path, run, value, steps=2)
    return fill_all(Findings(KNOWN, examine_all(tmp_path, KNOWN.specs), tmp_path))


def test_every_run_that_is_done_is_a_dot(filled):
    runs, _ = seeds_of(PLOT, filled)
    assert set(runs.line) == {"SSv2, linear probe"}
    for row, values in VALUES.items():
        shown = runs[runs.tick == row].set_index("seed").value
        assert shown.to_dict() == pytest.approx(
            {seed: value for seed, value in enumerate(values) if value is not None}, abs=0.3
        )


def test_differences_are_students_interval_over_the_seeds_both_have(filled):
    runs, gaps = seeds_of(PLOT, filled)
    values = runs.pivot(index="seed", columns="tick", values="value")
    less = gaps.set_index("tick")
    assert set(less.index) == {"Random Block", "Random Tube"}
    for tick, row in less.iterrows():
        apart = (values[tick] - values["MGM (Dense)"]).dropna()
        low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
        np.testing.assert_allclose(
            (row["mean"], row.low, row.high), (apart.mean(), low, high), rtol=1e-4
        )  # t is rounded to 4 decimals


def test_it_is_drawn_with_any_number_of_runs(filled, tmp_path):
    nothing = fill_all(
        Findings(KNOWN, examine_all(tmp_path / "none", KNOWN.specs), tmp_path / "none")
    )
    for some in (filled, nothing):
        figure = seeds(PLOT, *seeds_of(PLOT, some), "Not run: all others.")
        dots = figure.axes[0]
        assert [label.get_text() for label in dots.get_yticklabels()] == list(PLOT.ticks)
    assert "4_seeds" not in registry(seeds=(0,)).plots
