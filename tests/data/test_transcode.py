import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.data.opening import open_all
from mgm.data.prepare import read_shard
from mgm.data.transcode import GOP, encode, transcode
from mgm.errors import UserError
from mgm.video import open_video, probe_video, read_clip
from mgm.video.motion import UPRIGHT
from tests.helpers.videos import moving_square, rotate_metadata, write_video


def copy_of(path: str, short_side: int = 256) -> str:
    copy = f"{path}.copy.mp4"
    with open(copy, "wb") as file:
        encode(path, file, short_side)
    return copy


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a.astype(float) - b.astype(float)))))


def times(root: Path) -> dict[str, int]:
    """Return when each file below a folder was written, hidden files included."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def sources(tmp_path):
    """Return the index of six small videos of two classes, in three codecs."""
    for label in ("cats", "dogs"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for number, (suffix, codec) in enumerate(
            (("avi", "mpeg4"), ("webm", "libvpx-vp9"), ("mp4", "libx264"))
        ):
            frames_THWC = moving_square(20, 64, 80, seed=number)
            write_video(
                tmp_path / "videos" / label / f"{number} (a) #1;-é.{suffix}", frames_THWC, codec
            )
    return index_folder(tmp_path / "videos", tmp_path / "sources")


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
        assert {picture.turn for picture in video.pictures(motion=False)} == {UPRIGHT}


def test_a_copy_has_short_groups_and_no_b_frame_that_others_need(tmp_path):
    copy = copy_of(write_video(tmp_path / "long.webm", moving_square(2 * GOP + 3), "libvpx-vp9"))
    with open_video(copy) as video:
        kinds = "".join(picture.kind for picture in video.pictures(motion=False))
        assert video.skips_nonref
        wanted = range(0, GOP, 4)
        decoded = [picture.index for picture in video.pictures(0, False, wanted)]
    assert kinds == "IBBBPBBBPBBBPBBP" * 2 + "IBP"
    assert decoded == list(wanted), "no B-picture, nor the P-picture that ends the group"


def test_a_large_video_is_scaled(tmp_path):
    source = write_video(tmp_path / "large.mp4", moving_square(3, 288, 400, side=200))
    frames_THWC = read_clip(copy_of(source), range(3), motion=False).frames_THWC
    assert frames_THWC.shape == (3, 256, 356, 3)
    theirs = read_clip(source, range(3), motion=False).frames_THWC
    scaled_THWC = np.stack(
        [cv2.resize(frame_HWC, (356, 256), interpolation=cv2.INTER_AREA) for frame_HWC in theirs]
    )
    assert rms(scaled_THWC, frames_THWC) < 12  # measured: 9, from another filter and crf 20


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "/", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UserError, match=f"--shard '{text}' "):
        read_shard(text)
    assert read_shard("4/4") == (4, 4)


def test_a_source_that_breaks_is_listed_and_done_once_it_is_replaced(sources, tmp_path):
    avi, webm = (
        next(video for video in sources.videos if video.path.endswith(suffix))
        for suffix in (".avi", ".webm")
    )
    whole = {video: Path(video.path).read_bytes() for video in (avi, webm)}
    Path(avi.path).write_bytes(whole[avi][: len(whole[avi]) * 9 // 10])
    Path(webm.path).write_bytes(b"")
    index = transcode(sources, tmp_path / "out", processes=2)
    assert len(index.videos) == 4
    reasons = dict(index.excluded)
    assert "of its 20 frames decode; replace the file" in reasons[sources.name(avi)]
    assert "cannot be read as a video" in reasons[sources.name(webm)]
    assert len(times(tmp_path / "out" / "videos")) == 4, (
        "no part of them is there, hidden files aside or not"
    )

    for video, data in whole.items():
        Path(video.path).write_bytes(data)
    index = transcode(sources, tmp_path / "out")
    assert (len(index.videos), index.excluded) == (6, ())


@pytest.mark.parametrize("text", ["[]", "null", "5", "{}"])
def test_odd_settings_are_one_line(sources, tmp_path, text):
    (tmp_path / "transcode.json").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}.*: .*--out"):
        transcode(sources, tmp_path)


def test_a_split_without_videos_is_no_index(sources, tmp_path):
    for video in sources.test:
        Path(video.path).write_bytes(b"")
    with pytest.raises(UserError, match="0 of the 4 .*test split"):
        transcode(sources, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_stops_and_a_rerun_completes(sources, tmp_path, processes):
    """A full disk, imitated by a limit on file sizes, stops the call; a rerun completes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"videos/cats: .*\d \(a\) #1"):
            transcode(sources, tmp_path / "out", processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert times(tmp_path / "out" / "videos") == {}
    assert not (tmp_path / "out" / "index.json").exists()
    assert len(transcode(sources, tmp_path / "out").videos) == 6


def test_a_kill_leaves_only_whole_videos_and_a_rerun_completes(generated, tmp_path):
    source, videos = tmp_path / "source", tmp_path / "out" / "videos"
    for video in generated[1].videos:
        (source / str(video.label)).mkdir(parents=True, exist_ok=True)
        for number in range(3):  # so that there is time for a kill
            shutil.copy(video.path, source / str(video.label) / f"{number} {Path(video.path).name}")
    total = 3 * len(generated[1].videos)
    command = [
        "prepare",
        "folder",
        "--source",
        str(source),
        "--out",
        str(tmp_path / "out"),
        "--transcode",
        "--processes",
        "2",
    ]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("mgm"), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(videos.glob("*/[!.]*"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    # Wait until the worker processes have ended too and have closed the pipe.
    process.communicate()
    assert not (tmp_path / "out" / "index.json").exists()
    left = list(videos.glob("*/[!.]*"))
    assert 3 <= len(left) < total
    for path in left:
        assert len(read_clip(path, range(probe_video(path).frames)).frames_THWC)
    (next(path for path in videos.iterdir() if path.is_dir()) / ".123.of a kill.mp4").touch()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    index = read_index(tmp_path / "out")
    assert (len(index.videos), index.excluded) == (total, ())
    assert len(times(videos)) == len(index.videos), "nothing hidden is left"


def test_another_folder_or_size_is_refused(sources, tmp_path):
    with pytest.raises(UserError, match="--short-side 224"):
        transcode(sources, tmp_path / "out", 224)
    (tmp_path / "mine" / "videos").mkdir(parents=True)
    with pytest.raises(UserError, match="mine/videos: .*--out"):
        transcode(sources, tmp_path / "mine")
    transcode(sources, tmp_path / "out")
    with pytest.raises(UserError, match="out: .* 256, .* 320"):
        transcode(sources, tmp_path / "out", 320)
    assert read_index(tmp_path / "out")


def test_every_source_has_a_copy_of_its_own_below_out(sources, tmp_path):
    """Sources that differ only in the suffix, or lie outside the root, have their own copies."""
    cats = [video for video in sources.videos if video.label == 0]
    names = ("cats/a.avi", "cats/a.webm", "../other/a.mp4")
    renamed = []
    for video, name in zip(cats, names, strict=True):
        path = os.path.normpath(sources.root / name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(video.path, path)
        renamed.append(replace(video, path=path))
    index = transcode(replace(sources, videos=(*renamed, *sources.videos[3:])), tmp_path / "out")
    paths = {Path(video.path) for video in index.videos}
    assert len(paths) == 6
    assert all(
        path.is_relative_to(tmp_path / "out" / "videos") and path.is_file() for path in paths
    )
    assert tmp_path / "out" / "videos" / "cats" / "a.mp4" in paths


@pytest.mark.parametrize(
    "option", [("--short-side", "320"), ("--processes", "2"), ("--shard", "1/2")]
)
def test_options_of_transcoding_are_not_ignored_without_it(tmp_path, option):
    result = CliRunner().invoke(
        app, ["prepare", "k400", "--source", str(tmp_path), "--out", str(tmp_path / "out"), *option]
    )
    assert f"{option[0]} is for --transcode or --shards, and neither is given" in str(
        result.exception
    )


def test_parts_follow_an_index_made_once_before_them(tmp_path):
    command = [
        "prepare",
        "k400",
        "--source",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--transcode",
        "--shard",
        "2/3",
    ]
    assert "so the folder has no complete index; run `mgm prepare`" in str(
        CliRunner().invoke(app, command).exception
    )


def test_a_source_that_is_replaced_at_an_equal_time_is_copied_again(sources, tmp_path):
    """Archives set equal times."""
    one, other = (tmp_path / "videos" / name / "0 (a) #1;-é.avi" for name in ("cats", "dogs"))
    write_video(other, moving_square(20, 64, 80, seed=5), "mpeg4")
    for path in (one, other):
        os.utime(path, (1e9, 1e9))
    before = transcode(index_folder(tmp_path / "videos", tmp_path / "sources"), tmp_path / "out")
    shutil.copy2(other, one)
    after = transcode(index_folder(tmp_path / "videos", tmp_path / "sources"), tmp_path / "out")
    copies = [read_clip(index.videos[0].path, [0]).frames_THWC for index in (before, after)]
    own = read_clip(str(one), [0]).frames_THWC
    assert rms(copies[1], own) < 5


def test_uncompressed_files_of_equal_size_differ_in_their_content(tmp_path):
    """They may have the same first, middle and last blocks."""
    frames_THWC = moving_square(8, 96, 96)
    other_THWC = frames_THWC.copy()
    other_THWC[2] = 255 - other_THWC[2]
    for name, pixels in (("a", frames_THWC), ("b", other_THWC)):
        write_video(tmp_path / f"{name}.avi", pixels, "rawvideo")
    videos, _ = open_all(tmp_path, ["a.avi", "b.avi"])
    assert videos["a.avi"].bytes == videos["b.avi"].bytes
    assert videos["a.avi"].content != videos["b.avi"].content
