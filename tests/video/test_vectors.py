"""All vectors of a file are those that `read_clip` finds frame by frame."""

import numpy as np
import pytest

from mgm.video import read_clip
from mgm.video.vectors import read_vectors
from tests.helpers.videos import moving_square, rotate_metadata, write_video


@pytest.mark.parametrize(("codec", "turned"), [("libx264", 0), ("libx264", 90), ("mpeg4", 0)])
def test_as_read_clip_finds_them(tmp_path, codec, turned):
    path = write_video(tmp_path / "v.mp4", moving_square(24, 72, 100), codec, b_frames=2, gop=10)
    if turned:
        rotate_metadata(path, turned, 72, 100)
    vectors, clip = read_vectors(path), read_clip(path, range(24))
    assert np.array_equal(vectors.index_N, np.flatnonzero(clip.has_motion_T))
    assert 0 < len(vectors.index_N) < 24
    assert np.array_equal(vectors.motion_NHW2, clip.motion_THW2[clip.has_motion_T])
    assert np.array_equal(vectors.distance_NHW, clip.distance_THW[clip.has_motion_T])
    assert (vectors.height, vectors.width) == (clip.height, clip.width)
    assert len(vectors.kinds_T) == 24
    n = len(vectors.index_N) // 2
    assert vectors.speed[n, 4, 5] == pytest.approx(np.linalg.norm(vectors.motion_NHW2[n, 4, 5]) / vectors.distance_NHW[n, 4, 5])
    assert vectors.speed.max() > 1


def test_a_codec_without_vectors_has_none(tmp_path):
    vectors = read_vectors(write_video(tmp_path / "v.webm", moving_square(6), codec="libvpx-vp9"))
    assert (len(vectors.kinds_T), len(vectors.index_N)) == (6, 0)
    assert vectors.speed.size == 0
