"""Charts and figures of clips show what they are given."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from scipy import stats

from mgm.report import charts
from mgm.report.clips import DRAW
from mgm.report.page import Report
from mgm.report.style import ACCENT, COLOURS, INK, write
from mgm.study.expand import expand
from mgm.study.schema import View
from tests.helpers.archived import archived
from tests.helpers.fake_results import clip_arrays, finish, read, results_of, smoke, study_of

COLUMNS = ("row", "line", "epochs", "mean", "low", "high", "paper")
NAN, INF, WHITE = float("nan"), float("inf"), "#ffffff"


def numbers(*rows):
    table = pd.DataFrame(rows, columns=COLUMNS)
    same = {"dataset": "ssv2", "title": "SSv2", "column": "Fine-tuned", "control": False}
    return table.assign(**same, metric="top1", share=True, n=8, unit="datasets")


ROWS = numbers(
    ("MGM, 400", "MGM", 400, 66.0, 64.0, 68.0, 69.6),
    ("MGM, 2400", "MGM", 2400, 70.0, -INF, INF, 72.1),
    ("VideoMAE, 800", "VideoMAE", 800, 61.0, 60.0, 62.0, 69.6),
    ("No pretraining", "No pretraining", NAN, 50.0, 49.0, 51.0, NAN),
)
EPOCHS = View(kind="chart", x="epochs", hue="line", panel="column", quoted=True)


def marks_of(axes):
    """Return the places, fills and colours of marks."""
    marks = [line for line in axes.lines if line.get_marker() in "osD^vP<X"]
    marks = [line for line in marks if len(line.get_xydata())]
    return [
        (line.get_xydata().tolist(), to_hex(line.get_color()), line.get_mfc()) for line in marks
    ]


def spots_of(axes):
    """Return the place, the fill and the edge of each mark that a scatter drew."""
    spots = []
    for drawn in axes.collections:
        if isinstance(drawn, PathCollection):
            fills, edges = drawn.get_facecolor(), drawn.get_edgecolor()
            for n, place in enumerate(drawn.get_offsets().filled(np.nan).tolist()):
                fill = to_hex(fills[n % len(fills)]) if len(fills) else "none"
                spots.append((place, fill, to_hex(edges[n % len(edges)])))
    return [spot for spot in spots if np.isfinite(spot[0]).all()]


def test_marks_stand_at_their_epochs_and_the_papers_are_open():
    figure = charts.draw(charts.points_of(ROWS, EPOCHS, True), "epochs")
    (axes,) = figure.axes
    marks = marks_of(axes)
    ours = [[400.0, 66.0], [2400.0, 70.0]]
    assert (ours, ACCENT, ACCENT) in marks
    assert ([[400.0, 69.6], [2400.0, 72.1]], ACCENT, "white") in marks
    assert any(places == [[800.0, 61.0]] and colour != ACCENT for places, colour, _ in marks)
    texts = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "over 8 datasets" in texts
    assert "Dotted: No pretraining" in texts
    assert "Open marks: the paper's numbers" in texts


def test_numbers_of_another_size_of_experiment_have_a_panel_of_their_own():
    figure = charts.draw(charts.points_of(ROWS, EPOCHS), "epochs")
    ours, paper = figure.axes
    assert all(fill != "white" for _, _, fill in marks_of(ours))
    assert all(fill == "white" for _, _, fill in marks_of(paper))


def test_each_difference_is_a_line_with_its_interval_its_numbers_and_the_papers_mark():
    facts = {"n": 16, "unit": "datasets", "metric": "top1"}
    lines = pd.DataFrame(
        [
            ("Fine-tuned", "Block", 2.8, -0.2, 5.7, False, -2.1),
            ("Fine-tuned", "MGM", 2.1, -1.6, 5.7, True, 2.3),
            ("Linear probe", "MGM", -0.04, -INF, INF, False, NAN),
        ],
        columns=["panel", "name", "mean", "low", "high", "predicted", "paper"],
    ).assign(**facts, row=lambda table: table.name)
    figure = charts.differences(lines, "Random Tube")
    tuned, probed = figure.axes
    assert [text.get_text() for text in tuned.get_yticklabels()] == ["Block", "MGM"]
    spots = spots_of(tuned)
    assert ([2.8, 0.0], WHITE, COLOURS[1]) in spots
    assert ([2.1, 1.0], ACCENT, ACCENT) in spots
    assert [place for place, _, edge in spots if edge == INK] == [[-2.1, 0.0], [2.3, 1.0]]
    (bars,) = [drawn for drawn in tuned.collections if isinstance(drawn, LineCollection)]
    ends = [part.tolist() for part in bars.get_segments()]
    assert ends == [[[-0.2, 0.0], [5.7, 0.0]], [[-1.6, 1.0], [5.7, 1.0]]]
    # An infinite interval has no bar, and -0.04 is 0.0.
    assert [text.get_text() for text in probed.texts] == ["0.0"]
    assert probed.get_xlabel() == "Difference from Random Tube (points)"
    words = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    for said in ("over 16 datasets", "Filled: predicted", "Diamonds: the paper's"):
        assert said in words


def test_lines_know_the_papers_differences_and_what_was_predicted(tmp_path):
    published = archived("mini")
    study = published.studies["table4e"]
    lines = Report(published, tmp_path).differences(study, study.views["minus-tube"])
    lines = lines[lines.panel == "Fine-tuned"].set_index("row")
    assert lines.paper.round(1)["MGM (Dense)"] == 2.3
    assert lines.paper.isna()["Random Tube at ratio 0.75"]
    # The prediction is of the tube minus SMM.
    predicted = {*lines.index[lines.predicted]}
    assert predicted == {"SMM (Sparse)", "MGM (Sparse)", "MGM (Dense)"}
    # One difference per panel: its datasets are lines.
    places = {"datasets": ("discs", "people"), "rows": ("Random Block",)}
    view = View(kind="differences", minus="Random Tube at ratio 0.75", **places)
    lines = Report(published, tmp_path).differences(study, view)
    assert [*lines.name] == ["The twelve worlds of discs", "Six worlds of a drawn person"]


def test_a_gain_of_each_unit_stands_over_another_difference(tmp_path):
    check = {"datasets": ["three"], "columns": ["Linear probe"]}
    gains = {"kind": "gains", "datasets": ["one"], "columns": ["Linear probe"], "rows": ["MGM"]}
    study = study_of(views={"check": check, "gains": gains | {"minus": "Tube", "over": "check"}})
    found = expand([study], smoke())
    x_N, y_N = np.array([3, 1, 4, 1, 5, 9, 2, 6]), np.array([2, 7, 1, 8, 2, 8, 1, 8])
    own = found.cells.set_index(["dataset", "row", "column", "seed"]).run_id
    for seed, x, y in zip(range(1, 9), x_N, y_N):
        for dataset, gain in (("three", x), ("one", y)):
            for row, top1 in (("Tube", 50.0), ("MGM", 50.0 + gain)):
                spec = found.specs[own[dataset, row, "Linear probe", seed]]
                finish(tmp_path / "small", spec, top1)
    frame = read(tmp_path / "small", found)
    published = results_of(frame, study)
    figure = charts.gains(Report(published, tmp_path).gains(study, study.views["gains"]))
    [axes] = figure.axes
    assert {tuple(place) for place, _, _ in spots_of(axes)} == {*zip(x_N, y_N)}
    assert axes.get_xlabel() == "Linear probe: MGM minus Tube (points)"
    text = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert (
        f"Slope: {stats.linregress(x_N, y_N).slope:.2f} points of gain per point of Linear probe ["
        in text
    )
    assert "no trend is shown" in text


def test_folds_have_wider_intervals_and_a_late_prediction_is_none(tmp_path):
    published = archived("hands")
    study = published.studies["hands"]
    lines = Report(published, tmp_path).differences(study, study.views["masks"])
    table = pd.read_csv("results/hands.csv.xz", keep_default_na=False)
    table = table[(table.dataset == "folds") & (table.column == "Fine-tuned")]
    wide = table.assign(value=pd.to_numeric(table.value)).pivot(
        index="dataset_seed", columns="row", values="value"
    )
    folds = (wide["MGM"] - wide["Random Tube"]).dropna()
    half = stats.t.ppf(0.975, 5) * np.sqrt(folds.var() * (1 / 6 + 1 / 4))
    [one] = lines[
        (lines.column == "Fine-tuned") & (lines.row == "MGM") & (lines.minus == "Random Tube")
    ].to_dict("records")
    assert (one["low"], one["high"]) == pytest.approx((folds.mean() - half, folds.mean() + half))
    assert "Nadeau" in one["unit"]
    assert not one["predicted"]
    assert lines[
        (lines.dataset == "all") & (lines["name"] == "MGM minus Random Tube")
    ].predicted.all()


def arrays_of(kind, slots=1):
    """Return made-up arrays of a figure, as its run writes them."""
    rng = np.random.default_rng(1)
    attention_BSHW = rng.random((2, slots, 6, 6), dtype=np.float32)
    attention_BSHW /= attention_BSHW.sum((1, 2, 3), keepdims=True)
    one, query_3 = clip_arrays(slots, ("mgm",)), np.array([slots // 2, 3, 3])
    if kind in ("masks", "attention"):
        objects = np.array([[0.2, 0.3, 0.6, 0.8], [np.nan] * 4], np.float32)
        more = {"attention_SHW": attention_BSHW[0], "query_3": query_3}
        more |= {"objects_SK4": np.tile(objects, (slots, 1, 1))}
        return one | more if kind == "attention" else clip_arrays(slots)
    shown = {
        "frames_BSHWC": rng.integers(0, 256, (2, slots, 48, 48, 3), dtype=np.uint8),
        "index_BS": np.arange(2 * slots).reshape(2, slots),
        "class_B": np.array(["going sideways and dropping"] * 2),
    }
    if kind == "overlays":
        return {**shown, "attention_BSHW": attention_BSHW, "query_B3": np.array([query_3] * 2)}
    return {
        **shown,
        "masked_BPSHW": rng.random((2, 2, slots, 6, 6)) < 0.75,
        "reconstructed_BPSHWC": rng.integers(0, 256, (2, 2, slots, 48, 48, 3), dtype=np.uint8),
        "names_P": np.array(["mgm", "tube"]),
        "ratio_P": np.array([0.75, 0.9]),
    }


# Every mask is drawn as the masks of rows are.
@pytest.mark.parametrize("kind", sorted(DRAW.keys() - {"every-mask"}))
def test_other_arrays_give_another_picture(kind):
    def png(arrays):
        file = io.BytesIO()
        figure = DRAW[kind](arrays, "")
        figure.savefig(file, dpi=20, format="png", metadata={"Software": None})
        return file.getvalue()

    known = arrays_of(kind)
    before = png(known)
    assert png(arrays_of(kind)) == before
    for name in known:
        value = known[name].copy()
        if name.startswith(("boxes", "objects", "query")):
            value[np.isfinite(value)] += 1 if name.startswith("query") else 0.25
        elif value.dtype.kind in "Ub":
            value.flat[0] = "block" if value.dtype.kind == "U" else not value.flat[0]
        else:
            value[-1] = 255 - value[-1] if value.dtype == np.uint8 else 2 * value[-1] + 1
        assert png({**known, name: value}) != before, name


def test_coverage_shows_each_mask_and_the_same_figure_has_the_same_bytes(tmp_path):
    metrics = {"coverage_tube": 88.6, "coverage_mgm": 85.2, "videos": 60.0}
    figure = charts.coverage(metrics)
    (axes,) = figure.axes
    places = {tuple(place): fill for place, fill, _ in spots_of(axes)}
    assert places[85.2, 1.0] == ACCENT
    assert places[75.0, 1.0] == places[90.0, 0.0] == WHITE
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Random Tube", "MGM (Dense)"]
    for ending in ("svg", "png"):
        paths = [tmp_path / f"{name}.{ending}" for name in "ab"]
        for path in paths:
            write(lambda: charts.coverage(metrics), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
