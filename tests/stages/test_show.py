"""`mgm show`."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError, as_user_error
from mgm.spec import MASKS, Mask
from mgm.stages.show import draw, show
from mgm.video.clip import Clip
from mgm.video.motion import Motion
from tests.helpers.videos import moving_square, write_video

WALK = Path(__file__).parents[2] / "docs" / "walk.mp4"


def test_show_prints_what_masks_hide_of_the_motion_and_draws_it(tmp_path):
    done = CliRunner().invoke(app, ["show", str(WALK), "--out", str(tmp_path / "a.gif")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    titles = [line.split(" hides")[0].strip() for line in lines[:3]]
    assert titles == ["Random block", "Random tube", "MGM"]
    assert all("% of the moving pixels" in line for line in lines[:3])
    # Every block of three quarters hides the middle half of the columns.
    why = re.search(r"the middle wherever it lies: (\d+) % of the patches, with (\d+) %", lines[3])
    assert 45 <= int(why[1]) <= 50 < int(why[2])
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 16


def test_interlaced_pictures_are_warned_of(tmp_path):
    given = {"flags": "+ildct+ilme", "x264_params": "tff=1"}
    video = Path(write_video(tmp_path / "a.mp4", moving_square(20), **given))
    lines = show(video, ["mgm"], tmp_path / "a.png")
    assert "warning: 100% of its pictures are interlaced" in lines[1]


def test_frames_that_are_much_too_long_are_refused(tmp_path):
    video = Path(write_video(tmp_path / "a.mp4", moving_square(20, 400, 24, side=8)))
    with pytest.raises(UserError, match=r"a.mp4: has frames of 24 x 400 pixels"):
        show(video, ["mgm"], tmp_path / "a.png")


def test_show_of_a_dataset_prints_means(trained, tmp_path):
    lines = show(trained.data, ["block", "mgm"], tmp_path / "none.gif")
    assert len(lines) == 2
    assert not list(tmp_path.iterdir())


def test_the_picture_has_motion_and_pale_hidden_patches(tmp_path):
    vectors_THW2 = np.zeros((16, 4, 4, 2), np.float32)
    vectors_THW2[:, 0, 0] = 5
    motion = Motion(vectors_THW2, np.ones((16, 4, 4), np.float32), np.ones(16, bool), (32, 32))
    clip = Clip(np.full((16, 32, 32, 3), 90, np.uint8), motion)
    masked_NSHW = np.zeros((1, 8, 2, 2), bool)
    masked_NSHW[:, :, 1, 1] = True
    draw(clip, [Mask(name="tube")], masked_NSHW, tmp_path / "x.png")
    page = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    upper, lower = page[6:166, 172:332], page[172:332, 172:332]
    red, _, blue = upper[10, 10]
    assert red > blue + 60
    assert np.ptp(upper[100, 100]) < 5
    assert np.abs(lower[10, 10] - 90).max() < 5
    assert lower[150, 150].min() > 190


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([str(WALK), "--out", "a.jpg"], "a.jpg: the picture"),
        ([str(WALK), "--masks", "tub"], "tube"),
        (["no.mp4"], "no.mp4"),
        ([str(WALK.parent), "--out", "a.gif"], "is a folder"),
    ],
)
def test_a_wrong_call_of_show_is_an_error_for_the_user(tmp_path, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    error = CliRunner().invoke(app, ["show", *words]).exception
    assert why in str(as_user_error(error))
    assert not list(tmp_path.iterdir())


def test_show_needs_no_torch_and_no_drawing_library(tmp_path):
    hide = """
import sys
sys.modules.update(dict.fromkeys(("torch", "matplotlib", "sklearn", "scipy", "pandas")))
from mgm.__main__ import main
main()
"""
    words = ["show", str(WALK), "--masks", "all", "--out", str(tmp_path / "a.png")]
    done = subprocess.run([sys.executable, "-c", hide, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "a.png").size[1] == (1 + len(MASKS)) * 74 + 6
