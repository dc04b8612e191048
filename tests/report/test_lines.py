"""Figure 1 shows what there is, says what is not, and its labels can be read."""

import numpy as np
import pytest

from mgm.report.cells import row_of
from mgm.report.figures.curves import arrays_of, lines, missing
from mgm.report.figures.draw import save
from mgm.runs.frame import examine_all
from tests.helpers.fake_results import BOTH, finish, registry

KNOWN = registry(seeds=(0, 1), datasets=BOTH)
PLOT = KNOWN.plots["1"]


def arrays(results, known=KNOWN):
    found = examine_all(results, known.specs)
    plot = known.plots["1"]
    return arrays_of(plot, {name: [row_of(cell, found) for _, cell in line] for name, line in plot.lines.items()})


def run(results, name, epochs, top1, known=KNOWN, seeds=2):
    for spec in dict(known.plots["1"].lines[name])[epochs].runs[:seeds]:
        finish(results, spec, top1 + 2 * spec.seed, steps=2)


def drawn(results, together):
    return lines(arrays(results), PLOT.x, PLOT.y, "smoke", together)


def test_arrays_hold_each_point_once(tmp_path):
    run(tmp_path, "MGM", 800, 60)
    run(tmp_path, "VideoMAE", 800, 50, seeds=1)
    points = arrays(tmp_path)
    at = {(str(name), x): i for i, (name, x) in enumerate(zip(points["line_P"], points["x_P"]))}
    assert len(at) == len(points["x_P"]) == sum(map(len, PLOT.lines.values()))
    mgm, videomae, mam2 = at["MGM", 800], at["VideoMAE", 800], at["MAM2", 1200]
    assert (points["paper_P"][mgm], points["ours_P"][mgm], points["n_P"][mgm]) == (70.6, pytest.approx(61, abs=0.3), 2)
    assert points["low_P"][mgm] < 60 < 62 < points["high_P"][mgm]
    assert (points["status_P"][videomae], points["n_P"][videomae], points["wanted_P"][videomae]) == ("partial", 1, 2)
    assert (points["status_P"][mam2], points["paper_P"][mam2], points["wanted_P"][mam2]) == ("quoted", 71.3, 0)
    assert np.isnan(points["ours_P"][mam2])
    assert missing(points) == "Not run: MGM 400, 1200, 1600, 2400; VideoMAE 1600, 2400. Partial: VideoMAE 800."


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
        labels = [text for text in axes.texts if text.get_text() and text.get_text() != "nothing run yet"]
        names |= {label.get_text() for label in labels}
        boxes = [label.get_window_extent(renderer) for label in labels]
        marks = np.concatenate([axes.transData.transform(line.get_xydata()) for line in axes.lines] or [np.empty((0, 2))])
        for i, box in enumerate(boxes):
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
            assert not any(box.overlaps(other) for other in boxes[:i])
            assert not any(box.contains(*mark) for mark in marks)
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
    line = next(line for line in drawn(tmp_path, together=False).axes[1].lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2)
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, True, False, False]


def test_the_figure_says_its_scale_what_is_missing_and_that_n_is_1(tmp_path):
    run(tmp_path, "MGM", 800, 40, seeds=1)
    figure = drawn(tmp_path, together=False)
    said = figure.texts[-1].get_text().replace("\n", " ")
    assert "single run" in said
    assert "Partial: MGM 800." in said
    assert "smoke" in figure.axes[1].get_title(loc="left")


def test_the_same_arrays_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        save(drawn(tmp_path, together=False), tmp_path / name / "figure1", arrays(tmp_path))
    for ending in ("svg", "pdf", "png", "npz"):
        assert (tmp_path / f"a/figure1.{ending}").read_bytes() == (tmp_path / f"b/figure1.{ending}").read_bytes()


@pytest.mark.parametrize(("low", "high", "arrows"), [(40.0, 60.0, []), (-10.2, 119.3, [0, 100])])
def test_an_axis_of_percentages_stays_within_them(low, high, arrows):
    """An interval that goes on beyond an end stops there under an arrow; the arrays keep its numbers."""
    drawn = {
        **{"line_P": np.array(["MGM"]), "x_P": np.array([200.0]), "tick_P": np.array(["200"]), "joined": np.array(True)},
        **{"paper_P": np.array([np.nan]), "ours_P": np.array([54.6]), "low_P": np.array([low]), "high_P": np.array([high])},
        **{"n_P": np.array([3]), "wanted_P": np.array([3]), "status_P": np.array(["run"])},
    }
    axes = lines(drawn, "epochs", "top-1 in %", "smoke", together=True).axes[0]
    bottom, top = axes.get_ylim()
    assert bottom >= 0
    assert top <= 100
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() in "v^"] == arrows
    assert all(bottom <= y <= top for line in axes.lines for y in line.get_ydata())


def test_a_single_number_is_no_mountain():
    """The paper's one number of Figure 4a: an axis over hundredths of a point would tell of differences that nobody measured."""
    drawn = {
        **{"line_P": np.array(["MGM"]), "x_P": np.array([0.75]), "tick_P": np.array(["0.75"]), "joined": np.array(True)},
        **{name: np.array([np.nan]) for name in ("ours_P", "low_P", "high_P")},
        **{"paper_P": np.array([67.3]), "n_P": np.array([0]), "wanted_P": np.array([3]), "status_P": np.array(["not run"])},
    }
    bottom, top = lines(drawn, "ratio", "top-1 in %", "smoke", together=False).axes[0].get_ylim()
    assert top - bottom >= 2
