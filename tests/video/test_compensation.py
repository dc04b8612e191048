"""What a frame shows that its vectors do not predict, and masks that follow it."""

from pathlib import Path

import numpy as np
import pytest

import mgm
from mgm.errors import NoMotion, UserError
from mgm.masking import Grid
from mgm.video.compensation import _doubled
from tests.helpers import slow_masks
from tests.helpers.videos import moving_square, pan, write_matrix, write_video


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residuals")
    frames_THWC = np.stack([*pan(2.37, 12)])
    return write_video(folder / "v.mp4", frames_THWC, bf=2, refs=3, crf=18)


@pytest.mark.parametrize("codec", ["libx264", "mpeg1video"])
def test_a_residual_is_far_less_than_the_change_between_frames(tmp_path, codec):
    frames_THWC = np.stack([*pan(2.5, 10)])
    own = write_video(tmp_path / "v.mkv", frames_THWC, codec, bf=0, b_frames=0, qmin=2, qmax=3)
    clip = mgm.read(own, range(10), residual=True)
    assert (clip.residual_THW.dtype, clip.residual_THW.shape) == (np.int16, (10, 96, 128))
    assert clip.intra_THW.shape == (10, 12, 16)
    assert clip.intra_THW[0].all()
    assert clip.intra_THW[2:].mean() < 0.4
    change_THW = np.diff(clip.frames_THWC[..., 1].astype(int), axis=0)
    inner = np.s_[3:, 16:-16, 16:-16]
    left = np.abs(clip.residual_THW[inner]).mean()
    assert left < np.abs(change_THW[2:, 16:-16, 16:-16]).mean() / 4


def test_an_object_that_appears_is_in_the_residual_alone(tmp_path):
    frames_THWC = moving_square(8, 96, 128, step=(0, 0), side=32)
    frames_THWC[:5, 32:64, 8:40] = 60
    own = write_video(tmp_path / "v.mp4", frames_THWC, bf=0, scenecut=0)
    clip = mgm.read(own, [5], residual=True)
    left_HW = np.abs(clip.residual_THW[0])
    inside = left_HW[32:64, 8:40].mean()
    left_HW[24:72, :48] = 0
    assert inside > 10 * left_HW.mean() + 5


def test_only_the_requested_frames_in_any_order_and_upright(path, tmp_path):
    every = mgm.read(path, residual=True)
    some = mgm.read(path, [7, 2, 7], residual=True)
    np.testing.assert_array_equal(some.residual_THW, every.residual_THW[[7, 2, 7]])
    np.testing.assert_array_equal(some[1].intra_THW, every.intra_THW[[2]])
    turned_path = tmp_path / "turned.mp4"
    turned_path.write_bytes(Path(path).read_bytes())
    turned = mgm.read(write_matrix(turned_path, -1, 0, 0, -1), residual=True)
    np.testing.assert_array_equal(turned.residual_THW, every.residual_THW[:, ::-1, ::-1])
    np.testing.assert_array_equal(turned.intra_THW, every.intra_THW[:, ::-1, ::-1])


def test_a_cut_residual_lies_on_the_cut_frames(path):
    whole = mgm.read(path, [3, 4], residual=True)
    cut = whole.cut(mgm.Crop(0, 32, 96, 96, flip=True), 96)
    np.testing.assert_array_equal(cut.residual_THW, whole.residual_THW[:, :, 127:31:-1])
    np.testing.assert_array_equal(cut.intra_THW, whole.intra_THW[:, :, 15:3:-1])


def test_half_pixels_are_those_of_h264():
    luma_HW = np.random.default_rng(0).integers(0, 256, (12, 14)).astype(np.uint8)
    six = [1, -5, 20, 20, -5, 1]
    found = _doubled(luma_HW).astype(int)
    for y in range(2, 9):
        for x in range(2, 11):
            block = luma_HW[y - 2 : y + 4, x - 2 : x + 4].astype(int)
            across = (np.dot(block[2], six) + 16) >> 5
            down = (np.dot(block[:, 2], six) + 16) >> 5
            both = (np.dot(six, block @ six) + 512) >> 10
            known = np.clip([luma_HW[y, x], across, down, both], 0, 255)
            own = found[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel()
            assert np.abs(known - own).max() <= 1


def test_what_has_no_residual_says_so(path, tmp_path):
    other = write_video(tmp_path / "v.webm", moving_square(3), "libvpx-vp9")
    with pytest.raises(NoMotion, match="no motion vectors"):
        mgm.read(other, [1], residual=True)
    fields = write_video(
        tmp_path / "i.mp4", moving_square(6), flags="+ildct+ilme", x264_params="tff=1"
    )
    with pytest.raises(UserError, match=r"i\.mp4: frame 1 is interlaced, .*bwdif"):
        mgm.read(fields, [1], residual=True)
    with pytest.raises(UserError, match="needs the residual; read the clip by residual=True"):
        mgm.masks(mgm.read(path, [1, 2]).cut_to(96), "codec-fused")
    with pytest.raises(UserError, match="mask codec-residual needs a clip"):
        mgm.masks(mgm.track(path)[:2], "codec-residual", grid=(6, 6))


@pytest.mark.parametrize("name", ["codec-residual", "codec-fused"])
def test_a_mask_of_the_residual_matches_its_slow_version(path, name):
    clip = mgm.read(path, range(2, 10), residual=True).cut_to(96)
    speed_THW = clip.motion.at_centres.speed_THW
    for seed, tubelet in ((0, 1), (3, 2)):
        masked_SHW = mgm.masks(clip, name, seed, tubelet=tubelet)
        score = getattr(slow_masks, name.replace("-", "_"))(clip.residual_THW, speed_THW, tubelet)
        grid = Grid(8 // tubelet, 6, 6)
        known = slow_masks.codec_clip(grid, 0.75, seed, score)
        np.testing.assert_array_equal(masked_SHW, np.reshape(known, masked_SHW.shape))
