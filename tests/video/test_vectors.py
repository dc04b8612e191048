import pytest

from mgm.video import inspect_video, probe_video
from tests.helpers.videos import moving_square, write_video


def test_it_counts_pictures_and_measures_vectors(tmp_path):
    path = write_video(
        tmp_path / "v.mp4",
        moving_square(20, 128, 144, side=32),
        bf=2,
        refs=1,
        b_adapt=0,
        b_pyramid="none",
    )
    found = inspect_video(path)
    assert found.info == probe_video(path)
    assert sum(found.pictures.values()) == 20
    assert found.pictures["I"] == 1
    assert found.informed == 19 / 20
    assert (
        16 / 288 <= found.coverage <= 64 / 288
    )  # the square covers 16 cells of 288, its blocks up to four times as many
    assert found.concentration > 0.9
    assert found.speed == pytest.approx(4, abs=1)
    text = found.describe()
    for part in (
        path,
        "h264, 144 x 128, 20 frames, 25 per second, 0.8 s",
        "1 I",
        "on 95% of frames",
    ):
        assert part in text
