"""Figures of arrays show what they are given."""

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, get_font, get_font_names

from mgm.report.figures.draw import DRAW, coverage
from mgm.report.figures.style import CJK, STYLE, drawn, write
from mgm.report.views import line
from mgm.study.schema import View
from tests.helpers.fake_results import clip_arrays

OVER_EPOCHS = View(kind="line", options={"x": "epochs", "axis": "Epochs"})
CLIPS = [kind for kind in DRAW if kind != "coverage"]


def arrays_of(figure, slots=4):
    """Return made-up arrays of a figure, as its visualise job writes them."""
    if figure == "masks":
        return clip_arrays(slots)
    rng = np.random.default_rng(1)
    attention_BSHW = rng.random((2, slots, 6, 6), dtype=np.float32)
    attention_BSHW /= attention_BSHW.sum((1, 2, 3), keepdims=True)
    if figure == "attention":
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
    if figure == "overlays":
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
    plain = arrays_of("attention")
    plain["attention_SHW"][:] = 1 / plain["attention_SHW"].size
    plain["objects_SK4"] = plain["objects_SK4"][:, :0]
    drawn = DRAW["attention"](plain, "")
    labels = [text.get_text() for text in drawn.axes[0].texts]
    assert "no boxes of objects" in " ".join(labels)
    write(drawn, tmp_path / "figure.png")


def test_more_attention_is_brighter_in_grey():
    """A patch with more attention is brighter in grey, for readers who see no colours."""
    known = arrays_of("attention", slots=1)
    known["attention_SHW"] = np.arange(36, dtype=np.float32).reshape(1, 6, 6) / 630
    known["query_3"] = np.array([1, 0, 0])  # marks no slot
    drawn = DRAW["attention"](known, "")
    drawn.canvas.draw()
    picture_HW3 = np.asarray(drawn.canvas.buffer_rgba())[..., :3] / 255
    grey_HW = picture_HW3 @ np.array([0.299, 0.587, 0.114])
    cell = drawn.axes[-1].get_position()
    height, width = grey_HW.shape
    rows = height * (1 - cell.y1 + (np.arange(6) + 0.5) / 6 * cell.height)
    columns = width * (cell.x0 + (np.arange(6) + 0.5) / 6 * cell.width)
    seen = grey_HW[np.ix_(rows.astype(int), columns.astype(int))].ravel()
    # Allow for rounding to 8 bits.
    assert (np.diff(seen) > -0.01).all()
    assert seen[-1] - seen[0] > 0.6


def test_the_papers_numbers_are_drawn_before_any_run_is_finished():
    fields = {"panel": "A", "line": "MGM", "mean": np.nan, "low": np.nan, "high": np.nan}
    fields |= {"paper": 70.0, "steps": np.nan, "share": True, "metric": "top1", "unit": "seed"}
    points = pd.DataFrame([{**fields, "x": x, "epochs": x} for x in (200, 800)])
    (axes,) = drawn(partial(line.draw, points, OVER_EPOCHS)).axes
    assert axes.get_title(loc="left") == "The paper"


def test_a_panel_shows_its_masks_coverage():
    rng = np.random.default_rng(0)
    names = ("tube", "mgm", "mine")
    share_NS = rng.uniform(70, 95, (3, 4))
    share_NS[2, 1] = np.nan
    given = {"names_N": np.array(names), "hidden_N": np.full(3, 75.0), "share_NS": share_NS}
    given |= {"low_NS": share_NS - 2, "high_NS": share_NS + 2, "overall_N": np.nanmean(share_NS, 1)}
    figure = drawn(partial(coverage, {**given, "clips_S": np.arange(200, 204)}))
    for row, name in enumerate(names):
        (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(name))
        assert axes.get_title(loc="left") == f"{name}: {given['overall_N'][row]:.1f}"
        known = share_NS[row][~np.isnan(share_NS[row])]
        assert any(np.array_equal(line.get_ydata(), known) for line in axes.lines)


def test_a_picture_stays_if_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    def full(self, file, **_):
        Path(file).write_text("a part")
        raise OSError("disk")

    monkeypatch.setattr(Figure, "savefig", full)
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(OSError, match="disk"):
        write(Figure(), tmp_path / "a.png")
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


USER = """
import hashlib, io, sys
from mgm.report.figures.style import STYLE, save, with_text
import matplotlib as mpl
with mpl.rc_context(STYLE):
    figure = with_text(4, 1, 0.1, ["A row of $5 to $10, and one of $^$"])
    figure.add_subplot().plot([1, 2])
from pathlib import Path
save(figure, Path(sys.argv[1]), ["svg"])
"""


def test_a_users_settings_of_matplotlib_change_no_figure(tmp_path):
    """And a $ in a name is no mathematics."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7\nfont.size: 31\naxes.grid: True\n")
    notebook = {"MPLBACKEND": "module://matplotlib_inline.none", "MATPLOTLIBRC": str(tmp_path)}
    for name, more in (("plain", {}), ("user", notebook)):
        command = [sys.executable, "-c", USER, str(tmp_path / name)]
        subprocess.run(command, check=True, env=os.environ | more)
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "user.svg").read_bytes()


def test_each_font_of_the_style_is_one_that_glyphs_can_come_from():
    """Matplotlib falls back from font to font, and not to the others of a generic family."""
    assert {*STYLE["font.family"]} <= {*get_font_names()}
    installed = {get_font(path).family_name for path in findSystemFonts()} & {*CJK}
    assert installed <= {*STYLE["font.family"]}
