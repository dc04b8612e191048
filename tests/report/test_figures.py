import io
from pathlib import Path
from typing import get_args

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mgm.report import study_files
from mgm.report.figures.draw import DRAW
from mgm.report.figures.style import DPI, write
from mgm.spec import Visualise
from tests.helpers.fake_results import clip_arrays
from tests.report.test_findings import findings
from tests.study.test_study import small

NOTE = "Scale smoke: toy models trained for seconds on generated videos; it says nothing about which mask is best."
CLIPS = tuple(get_args(Visualise.model_fields["figure"].annotation))


def arrays_of(figure, slots=4):
    """Return made-up arrays of a figure, as its visualise job writes them."""
    if figure == "5":
        return clip_arrays(slots)
    rng = np.random.default_rng(1)
    attention_BSHW = rng.random((2, slots, 6, 6), dtype=np.float32)
    attention_BSHW /= attention_BSHW.sum((1, 2, 3), keepdims=True)
    if figure == "6":
        objects_SK4 = np.tile(
            np.array([[0.2, 0.3, 0.6, 0.8], [np.nan] * 4], np.float32), (slots, 1, 1)
        )
        looks = {"attention_SHW": attention_BSHW[0], "query_3": np.array([slots // 2, 3, 3])}
        return {
            **clip_arrays(slots, ("mgm",)),
            "objects_SK4": objects_SK4,
            **looks,
            "parents_P": np.array(["run"]),
        }
    clips = 2
    shown = {
        "frames_BSHWC": rng.integers(0, 256, (clips, slots, 48, 48, 3), dtype=np.uint8),
        "index_BS": np.arange(clips * slots).reshape(clips, slots),
        "class_B": np.array(["going sideways and dropping"] * clips),
    }
    if figure == "7":
        return {
            **shown,
            "attention_BSHW": attention_BSHW,
            "query_B3": np.array([[slots // 2, 3, 3]] * clips),
        }
    return {
        **shown,
        "masked_BPSHW": rng.random((clips, 2, slots, 6, 6)) < 0.75,
        "reconstructed_BPSHWC": rng.integers(0, 256, (clips, 2, slots, 48, 48, 3), dtype=np.uint8),
        "names_P": np.array(["mgm", "tube"]),
        "ratio_P": np.array([0.75, 0.9]),
    }


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize("figure", CLIPS)
def test_all_text_lies_inside_and_apart(figure, slots):
    drawn = DRAW[figure](arrays_of(figure, slots), NOTE)
    # Text widths depend on the resolution, so use that of the written files.
    drawn.set_dpi(DPI)
    renderer = drawn.canvas.get_renderer()
    # "no motion vectors" stands in its cell.
    shown = [
        text
        for text in drawn.findobj(Text)
        if text.get_text().strip() and "no motion" not in text.get_text()
    ]
    texts = [text.get_window_extent(renderer) for text in shown]
    cells = [axes.get_window_extent(renderer) for axes in drawn.axes]
    assert len(texts) >= slots + 4
    for i, box in enumerate(texts):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= drawn.bbox.x1
        assert box.y1 <= drawn.bbox.y1
        for other in texts[:i] + cells:
            assert not box.overlaps(other), shown[i].get_text()


def is_cut(figure):
    """Return whether something that is drawn reaches beyond the figure's edge."""
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    return min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) < 0


def test_no_name_of_a_long_difference_is_cut(tmp_path, monkeypatch):
    names = ["MGM, compensated by the median", "Histogram of motion vectors, 81 numbers"]
    fields = {"columns": {"Linear": {}}, "controls": [], "predictions": []}
    study = small(rows={name: {} for name in names}, compare=[" minus ".join(names)], **fields)
    drawn = []
    monkeypatch.setattr(study_files, "save", lambda figure, *_: drawn.append(figure))
    study_files.write_study_figures(findings(study), tmp_path)
    assert not is_cut(drawn[0])


def test_rows_that_differ_in_a_number_alone_are_a_line(tmp_path, monkeypatch):
    rows = {
        "Random weights": "none",
        "Tube, 700 steps": {"mask": "tube", "optim.steps": 700},
        "Tube, 2,800 steps": {"mask": "tube", "optim.steps": 2800, "only": {"draws": "5"}},
        "Tube, jumps": {"mask": "tube"},
        "MGM, 2,800 steps": {"optim.steps": 2800},
    }
    fields = {"columns": {"Linear": {}}, "controls": [], "predictions": [], "compare": []}
    found = findings(small(rows=rows, over={"optim.steps": "Steps"}, **fields))
    points = found.points[found.points.dataset == "a"].fillna({"x": 0})
    assert list(zip(points.line, points.x)) == [
        ("Random weights", 0),
        ("Tube", 700),
        ("Tube", 2800),
    ]
    drawn = []
    monkeypatch.setattr(study_files, "save", lambda figure, *_: drawn.append(figure))
    assert study_files.write_study_figures(found, tmp_path).keys() == {"over"}
    assert not is_cut(drawn[0])


def png(figure, drawn):
    file = io.BytesIO()
    DRAW[figure](drawn, "").savefig(file, dpi=40, format="png", metadata={"Software": None})
    return file.getvalue()


@pytest.mark.parametrize("figure", CLIPS)
def test_other_arrays_give_another_picture(figure):
    """A small change of any array changes the picture; equal arrays give equal pictures."""
    known = arrays_of(figure, slots=1)
    before = png(figure, known)
    assert png(figure, arrays_of(figure, slots=1)) == before
    for name in known.keys() - {"parents_P"}:
        value = known[name].copy()
        if name == "boxes_NS4":
            value[-1, 0, 0] += 1
        elif name == "objects_SK4":
            value[0, 0, 2] += 0.2
        elif name.startswith("query"):
            value[..., 0] += 1  # another slot
        elif value.dtype.kind == "U":
            value[0] = "block"
        elif value.dtype == bool:
            value.flat[0] = not value.flat[0]
        elif value.dtype == np.uint8:
            value[..., :16, :16, :] = 255 - value[..., :16, :16, :]
        else:
            value[-1] = 2 * value[-1] + 1
        assert png(figure, {**known, name: value}) != before, name


def test_uniform_attention_and_a_video_without_boxes_can_be_drawn(tmp_path):
    plain = arrays_of("6")
    plain["attention_SHW"][:] = 1 / plain["attention_SHW"].size
    plain["objects_SK4"] = plain["objects_SK4"][:, :0]
    drawn = DRAW["6"](plain, "")
    labels = [text.get_text() for text in drawn.axes[0].texts]
    assert "no boxes of objects" in " ".join(labels)
    write(drawn, tmp_path / "figure.png")


def test_more_attention_is_brighter_in_grey(tmp_path):
    """A patch with more attention is brighter in grey, for readers who see no colours."""
    known = arrays_of("6", slots=1)
    known["attention_SHW"] = np.arange(36, dtype=np.float32).reshape(1, 6, 6) / 630
    known["query_3"] = np.array([1, 0, 0])  # marks no slot
    drawn = DRAW["6"](known, "")
    write(drawn, tmp_path / "figure.png")
    grey_HW = matplotlib.image.imread(tmp_path / "figure.png")[..., :3] @ np.array(
        [0.299, 0.587, 0.114]
    )
    cell = drawn.axes[-1].get_position()
    height, width = grey_HW.shape
    rows = height * (1 - cell.y1 + (np.arange(6) + 0.5) / 6 * cell.height)
    columns = width * (cell.x0 + (np.arange(6) + 0.5) / 6 * cell.width)
    seen = grey_HW[np.ix_(rows.astype(int), columns.astype(int))].ravel()
    # Allow for rounding to 8 bits.
    assert (np.diff(seen) > -0.01).all()
    assert seen[-1] - seen[0] > 0.6


def test_a_picture_stays_if_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    def full(self, file, **_):
        Path(file).write_text("a part")
        raise OSError("disk")

    monkeypatch.setattr(Figure, "savefig", full)
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(OSError, match="disk"):
        write(Figure(), tmp_path / "a.png")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
