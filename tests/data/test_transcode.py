"""Copies encoded again show the frames of their sources."""

import shutil
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from mgm.data.transcode import GOP, encode
from mgm.video import open_video, probe_video, read_clip
from mgm.video.motion import UPRIGHT
from tests.helpers.videos import REPORTED, moving_square, rotate_metadata, write_video


def copy_of(path: str, short_side: int = 256) -> str:
    copy = f"{path}.copy.mp4"
    encode(probe_video(path), Path(copy), short_side, BytesIO())
    return copy


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a.astype(float) - b.astype(float)))))


def test_a_video_gives_the_same_file_every_time(tmp_path):
    """With x264's macroblock tree, copies of such a video differ on a CPU with AVX-512."""
    rng = np.random.default_rng(0)
    ground_HWC = cv2.GaussianBlur(rng.integers(0, 255, (128, 170, 3)).astype(np.float32), (0, 0), 3)
    ground_HWC = 255 * (ground_HWC - ground_HWC.min()) / np.ptp(ground_HWC)
    frames = [
        np.roll(ground_HWC, 2 * t, 1).astype(np.uint8) // 2
        + rng.integers(0, 20, ground_HWC.shape, np.uint8)
        for t in range(50)
    ]
    write_video(tmp_path / "source.mp4", np.stack(frames))
    copies = {Path(copy_of(str(tmp_path / "source.mp4"))).read_bytes() for _ in range(8)}
    assert len(copies) == 1


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),  # full range
        ("full.mp4", {"pix_fmt": "yuvj420p"}),
        ("rgb.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("deep.mp4", {"pix_fmt": "yuv420p10le"}),
        ("varying.mp4", {"times": np.cumsum(np.arange(24) % 5 + 20)}),
    ],
)
def test_a_copy_shows_the_frames_of_its_source(tmp_path, name, settings):
    source = write_video(tmp_path / name, moving_square(24, 64, 96), **settings)
    copy, indices = copy_of(source), range(24)
    info = probe_video(copy)
    assert (info.frames, info.height, info.width, info.codec, info.has_vectors) == (
        24,
        64,
        96,
        "h264",
        True,
    )
    assert info.fps == pytest.approx(probe_video(source).fps, rel=1e-3)
    theirs, ours = (read_clip(path, indices, motion=False).frames_THWC for path in (source, copy))
    # crf 20 and 4:2:0 chroma leave an error of 3 to 7. A shift by one frame leaves 30. A wrong
    # colour range moves the mean by 8.
    assert rms(theirs, ours) < 8
    assert rms(theirs[1:], ours[:-1]) > 20
    assert abs(theirs.mean() - ours.mean()) < 2


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_copy_is_upright(tmp_path, clockwise):
    source = rotate_metadata(
        write_video(tmp_path / "turned.mp4", moving_square(8, 64, 96)), clockwise, 64, 96
    )
    theirs, ours = (
        read_clip(path, range(8), motion=False).frames_THWC for path in (source, copy_of(source))
    )
    assert ours.shape == theirs.shape
    assert rms(theirs, ours) < 8  # as in the test above
    with open_video(copy_of(source)) as video:
        assert {picture.rotation for picture in video.pictures(motion=False)} == {UPRIGHT}


def test_a_copy_has_short_groups_and_no_b_frame_that_others_need(tmp_path):
    copy = copy_of(write_video(tmp_path / "long.webm", moving_square(2 * GOP + 3), "libvpx-vp9"))
    with open_video(copy) as video:
        kinds = "".join(picture.kind for picture in video.pictures(motion=False))
        assert video.skips_nonref
        wanted = range(0, GOP, 6)
        decoded = [picture.index for picture in video.pictures(0, False, wanted)]
    assert kinds == 2 * ("I" + 5 * "BBBBBP" + "BBBBP") + "IBP"
    assert decoded == list(wanted), "no B-picture, nor the P-picture that ends the group"


def test_the_copy_of_a_recording_without_a_rate_lasts_as_long(tmp_path):
    source = shutil.copy(REPORTED / "recorder-vp8.webm", tmp_path)
    info, copy = probe_video(source), probe_video(copy_of(source))
    assert (copy.frames, copy.fps) == (90, pytest.approx(info.fps, rel=1e-4))


def test_a_large_video_is_scaled(tmp_path):
    source = write_video(tmp_path / "large.mp4", moving_square(3, 288, 400, side=200))
    frames_THWC = read_clip(copy_of(source), range(3), motion=False).frames_THWC
    assert frames_THWC.shape == (3, 256, 356, 3)
    theirs = read_clip(source, range(3), motion=False).frames_THWC
    scaled_THWC = np.stack(
        [cv2.resize(frame_HWC, (356, 256), interpolation=cv2.INTER_AREA) for frame_HWC in theirs]
    )
    assert rms(scaled_THWC, frames_THWC) < 12  # measured: 9, from another filter and crf 20
