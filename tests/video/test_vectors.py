import numpy as np
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import NoMotion, UserError
from mgm.stages.inspect import interlaced_lines
from mgm.video import inspect_video, probe_video, read_track
from mgm.video.vectors import write_vectors
from tests.helpers.videos import REPORTED, encrypt, moving_square, write_clap, write_video


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
    assert found.has_mv == 19 / 20
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


def test_the_arrays_of_a_file_are_those_that_are_read(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(20, 100, 76, side=32), bf=2)
    write_vectors(path, tmp_path / "v.npz")
    track = read_track(path)
    with np.load(tmp_path / "v.npz") as arrays:
        assert tuple(arrays["kinds_T"]) == track.kinds_T
        assert (arrays["height"], arrays["width"]) == (100, 76)
        motion = track[arrays["index_N"]]
        assert motion.has_mv_T.all()
        np.testing.assert_array_equal(arrays["motion_NHW2"], motion.vectors_THW2)
        np.testing.assert_array_equal(arrays["distance_NHW"], motion.distance_THW)
    with pytest.raises(UserError, match=r"v\.csv: .*\.npz"):
        write_vectors(path, tmp_path / "v.csv")


def test_a_codec_without_vectors_is_not_written(tmp_path):
    path = write_video(tmp_path / "v.mkv", moving_square(4, 64, 64), codec="ffv1")
    with pytest.raises(NoMotion):
        write_vectors(path, tmp_path / "v.npz")
    assert not (tmp_path / "v.npz").exists()


def test_fields_are_warned_of(tmp_path):
    drawn = moving_square(6, 96, 128)
    for codec, options in (
        ("mpeg4", {"flags": "+ildct+ilme"}),
        ("libx264", {"x264_params": "interlaced=1"}),
        ("mpeg2video", {"flags": "+ildct+ilme"}),
    ):
        path = write_video(tmp_path / "v.mp4", drawn, codec, **options)
        assert "warning" in inspect_video(path).describe()
        assert len(interlaced_lines([probe_video(path)], tmp_path)) == 1
        plain = write_video(tmp_path / "plain.mp4", drawn, codec)
        assert "warning" not in inspect_video(plain).describe()
        assert not interlaced_lines([probe_video(plain)], tmp_path)


def test_copies_of_interlaced_video_are_warned_of(tmp_path):
    """A copy is progressive, but its track has the vectors of the source."""
    for place in ("a", "b"):
        (tmp_path / "videos" / place).mkdir(parents=True)
        for number in range(3):
            drawn = moving_square(6, 96, 128, seed=number)
            path = tmp_path / "videos" / place / f"{number}.mp4"
            write_video(path, drawn, x264_params="interlaced=1")
    words = ["prepare", "folder", "--source", str(tmp_path / "videos")]
    words += ["--out", str(tmp_path / "out"), "--copy", "mp4", "--processes", "1"]
    for command in (words, ["inspect", str(tmp_path / "out")]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert "videos are interlaced" in done.output


def test_cropping_by_the_container_is_warned_of(tmp_path):
    """Players show 144 x 112 of the Matroska file's 192 x 144 pixels."""
    assert "warning" in inspect_video(REPORTED / "pixelcrop.mkv").describe()
    path = write_video(tmp_path / "v.mp4", moving_square(6, 96, 128))
    for size, is_warned in (((128, 96), False), ((120, 96), True)):
        write_clap(path, tmp_path / "cropped.mp4", *size)
        assert ("warning" in inspect_video(tmp_path / "cropped.mp4").describe()) == is_warned


def test_an_encrypted_file_is_called_so(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_square(6, 96, 128))
    encrypt(path, tmp_path / "encrypted.mp4")
    for read in (inspect_video, probe_video, read_track):
        with pytest.raises(UserError, match="encrypted"):
            read(tmp_path / "encrypted.mp4")
