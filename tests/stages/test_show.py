"""`mgm show`: the picture has the frames, arrows and masks that it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.report.figures.style import HIDDEN
from mgm.stages.show import show
from tests.helpers.videos import moving_square, write_video

NAMES = ["block", "tube", "mgm"]


def panel(picture: Image.Image, number: int) -> np.ndarray:
    """Return a panel without its edges, of four in two rows."""
    half = np.array([picture.height, picture.width]) // 2
    top, left = np.array(divmod(number, 2)) * half
    part = np.asarray(picture.convert("RGB")).astype(int)[
        top : top + half[0], left : left + half[1]
    ]
    inked_HW = (part < 250).any(2)
    rows, columns = inked_HW.mean(1) > 0.6, inked_HW.mean(0) > 0.6
    return part[rows][:, columns]


@pytest.fixture
def video(tmp_path):
    """A bright square that moves to the right by 6 pixels per frame, on a dark ground."""
    return Path(
        write_video(tmp_path / "v.mp4", moving_square(40, 240, 320, (6, 0), side=48), gop=40)
    )


def test_one_command_draws_vectors_and_masks_and_names_the_next(video, tmp_path):
    out = tmp_path / "show.gif"
    done = CliRunner().invoke(app, ["show", str(video), "--out", str(out)])
    assert done.exit_code == 0, done.exception
    for name in ("Random block hides 75 %", "Random tube hides 90 %", "MGM hides 75 %"):
        assert re.search(rf"{name} +visible: \d+ % of textured", done.output)
    assert "next: mgm prepare" in done.output
    picture = Image.open(out)
    assert picture.n_frames == 16
    picture.seek(8)
    # Arrows are dark, on a pale frame.
    assert (panel(picture, 0).max(2) < 60).any()
    pale = np.array(ImageColor.getrgb(HIDDEN))
    hidden = [(np.abs(panel(picture, number) - pale).max(2) < 60).mean() for number in (1, 2, 3)]
    # The frames' own colours are far from that of hidden patches.
    np.testing.assert_allclose(hidden, [0.75, 0.9, 0.75], atol=0.03)
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_a_ratio_is_that_of_every_mask(video, tmp_path):
    arrays, lines = show(video, NAMES, ratio=0.5)
    assert "\n".join(lines).count("hides 50 %") == 3
    assert arrays["masked_NSHW"].mean((1, 2, 3)).tolist() == pytest.approx([0.5] * 3, abs=0.01)


def test_a_codec_without_vectors_has_unguided_masks(tmp_path):
    video = Path(write_video(tmp_path / "v.webm", moving_square(20), codec="libvpx-vp9"))
    words = ["show", str(video), "--out", str(tmp_path / "v.png")]
    text = CliRunner().invoke(app, words).output
    assert text.startswith("codec vp9 has no motion vectors, so there are only unguided masks\n")
    assert "MGM" not in text
    assert Image.open(tmp_path / "v.png").size[0] > 1000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"names": ["mgn"]}, "--masks: name: "),
        ({"stride": 3}, "spans 46, and the video has 40"),
        ({"start": 30}, "from frame 30 spans 16, and the video has 40"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(video, tmp_path, settings, says):
    with pytest.raises(UserError, match=says):
        show(video, **{"names": NAMES} | settings)


def test_a_picture_of_another_kind_is_refused(video, tmp_path):
    done = CliRunner().invoke(app, ["show", str(video), "--out", str(tmp_path / "x.mp4")])
    assert isinstance(done.exception, UserError)
