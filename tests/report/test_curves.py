"""Figure 1 draws the runs that are done and names the missing ones; its labels can be read."""

import numpy as np
import pandas as pd
import pytest

from mgm.report.cells import fill_all
from mgm.report.figures.curves import arrays_of, curves, missing, points_of
from mgm.report.findings import Findings
from mgm.results.frame import examine_all
from tests.helpers.fake_results import BOTH, finish, registry

KNOWN = registry(seeds=(0, 1), datasets=BOTH)
PLOT = KNOWN.plots["1"]


def run(results, name, epochs, top1, known=KNOWN, seeds=2):
    for spec in dict(known.plots["1"].lines[name])[epochs].runs[:seeds]:
        finish(results, spec, top1 + 2 * spec.seed, steps=2)


def test_figures_that_show_the_same_runs_show_one_value():
    several = registry(seeds=(0,), datasets=BOTH, more_seeds={"table4e": (0, 1, 2)})
    shown = dict(several.plots["4a"].lines["MGM"])[0.75]
    assert shown is dict(several.plots["4b"].lines["MGM"])[200]
    assert len(shown.runs) == 3


def drawn(results, together):
    return curves(points_in(results), PLOT, "smoke", together)


def points_in(results):
    return points_of(PLOT, fill_all(Findings(KNOWN, examine_all(results, KNOWN.specs), results)))


def test_each_point_stands_once_in_frame_and_arrays(tmp_path):
    run(tmp_path, "MGM", 800, 60)
    run(tmp_path, "VideoMAE", 800, 50, seeds=1)
    points = points_in(tmp_path)
    assert len(points) == sum(map(len, PLOT.lines.values()))
    at = points.set_index(["line", "x"])
    mgm, videomae, mam2 = at.loc[("MGM", 800)], at.loc[("VideoMAE", 800)], at.loc[("MAM2", 1200)]
    assert (mgm.study, mgm.ours, mgm.n) == (70.6, pytest.approx(61, abs=0.3), 2)
    assert mgm.ci_low < 60 < 62 < mgm.ci_high
    assert (videomae.status, videomae.n, videomae.wanted) == ("partial", 1, 2)
    # One seed's test videos do not show how much seeds differ.
    assert np.isnan(videomae.ci_low)
    assert (mam2.status, mam2.paper, mam2.wanted) == ("quoted", 71.3, 0)
    assert np.isnan(mam2.ours)
    assert (
        missing(points)
        == "Not run: MGM 400, 1200, 1600, 2400; VideoMAE 1600, 2400. Partial: VideoMAE 800."
    )
    arrays = arrays_of(points, PLOT)
    assert {array.dtype.kind for array in arrays.values()} == set("Uifb")
    assert np.array_equal(arrays["low_P"], points.ci_low, equal_nan=True)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("done", [0, 1, 5])
def test_labels_meet_neither_marks_nor_labels(tmp_path, together, done):
    for name, base in (("MGM", 69.0), ("VideoMAE", 68.5)):
        for position, (epochs, _) in enumerate(PLOT.lines[name][:done]):
            run(tmp_path, name, epochs, base + 0.4 * position)
    figure = drawn(tmp_path, together)
    renderer = figure.canvas.get_renderer()
    names = set()
    for axes in figure.axes:
        labels = [
            text for text in axes.texts if text.get_text() and text.get_text() != "nothing run yet"
        ]
        names |= {label.get_text() for label in labels}
        boxes = [label.get_window_extent(renderer) for label in labels]
        marks = np.concatenate(
            [axes.transData.transform(line.get_xydata()) for line in axes.lines]
            or [np.empty((0, 2))]
        )
        for i, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not any(box.contains(*mark) for mark in marks)
        leaders = [line.get_transform().transform_path(line.get_path()) for line in axes.patches]
        assert not any(line.intersects_bbox(box.padded(1)) for line in leaders for box in boxes)
    assert names == set(PLOT.lines)
    below = figure.texts[-1].get_window_extent(renderer)
    assert below.y0 >= 0
    assert below.y1 <= min(axes.get_tightbbox(renderer).y0 for axes in figure.axes)


def test_numbers_that_cannot_be_compared_share_no_axis(tmp_path):
    run(tmp_path, "MGM", 800, 40)
    paper, ours = drawn(tmp_path, together=False).axes
    assert paper.get_ylim()[0] > 65
    assert ours.get_ylim()[1] < 65
    assert len(drawn(tmp_path, together=True).axes) == 1


def test_a_missing_point_breaks_the_line(tmp_path):
    for epochs in (400, 1200):
        run(tmp_path, "MGM", epochs, 40)
    line = next(
        line for line in drawn(tmp_path, together=False).axes[1].lines if len(line.get_xdata()) > 2
    )
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, True, False, False]


def only(**fields):
    """Return a data frame with one point of MGM."""
    cell = {"line": "MGM", "x": 200.0, "tick": "200", "wanted": 3, "n": 3, "status": "run"}
    return pd.DataFrame(
        [{**dict.fromkeys(("paper", "ours", "ci_low", "ci_high"), np.nan), **cell, **fields}]
    )


@pytest.mark.parametrize(("low", "high", "arrows"), [(40.0, 60.0, []), (-10.2, 119.3, [0, 100])])
def test_an_axis_of_percentages_stays_within_them(low, high, arrows):
    """An interval that leaves the axis ends at its edge, with an arrow."""
    axes = curves(only(ours=54.6, ci_low=low, ci_high=high), PLOT, "smoke", together=True).axes[0]
    bottom, top = axes.get_ylim()
    assert bottom >= 0
    assert top <= 100
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() in ("v", "^")] == arrows
    (bar,) = axes.collections[0].get_segments()
    assert bar[:, 1].tolist() == [max(low, 0), min(high, 100)]


def test_an_axis_spans_two_points_at_least():
    """A single number has an axis of at least two points.

    A narrower axis would show differences that nobody measured.
    """
    bottom, top = curves(only(ours=67.3), PLOT, "smoke", together=False).axes[0].get_ylim()
    assert top - bottom >= 2


def test_the_papers_only_number_has_no_panel_of_its_own():
    """Figure 4a at a small scale: the paper prints one number, and it is in the text."""
    figure = curves(only(paper=67.3, ours=54.6), PLOT, "smoke", together=False)
    assert len(figure.axes) == 1
    assert "67.3 at 200" in " ".join(figure.texts[-1].get_text().split())
