"""`mgm prepare --copy`: copies are written again if they are missing, cut or older.

A stopped call continues.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.copies import check_files, copy_videos
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.data.tracks import write_tracks
from mgm.errors import UserError
from mgm.video import probe_video, read_clip
from mgm.video.track import track_path
from tests.helpers.videos import moving_square, write_video


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


def test_a_source_that_breaks_is_listed_and_done_once_it_is_replaced(sources, tmp_path):
    avi, webm = (
        next(video for video in sources.videos if video.path.endswith(suffix))
        for suffix in (".avi", ".webm")
    )
    whole = {video: Path(video.path).read_bytes() for video in (avi, webm)}
    Path(avi.path).write_bytes(whole[avi][: len(whole[avi]) * 9 // 10])
    Path(webm.path).write_bytes(b"")
    index = copy_videos(sources, tmp_path / "out", processes=2)
    assert len(index.videos) == 4
    reasons = dict(index.excluded)
    assert "the index has" in reasons[sources.name(avi)]
    assert "has 0 bytes, the index has" in reasons[sources.name(webm)]
    assert len(times(tmp_path / "out" / "videos")) == 4, (
        "no part of them is there, hidden files aside or not"
    )

    for video, data in whole.items():
        Path(video.path).write_bytes(data)
    index = copy_videos(sources, tmp_path / "out")
    assert (len(index.videos), index.excluded) == (6, ())


@pytest.mark.parametrize("text", ["[]", "null", "5", "{}"])
def test_odd_settings_are_one_line(sources, tmp_path, text):
    (tmp_path / "copies.json").write_text(text)
    with pytest.raises(UserError, match=f"{tmp_path}.*: .*--out"):
        copy_videos(sources, tmp_path)


def test_a_split_without_videos_is_no_index(sources, tmp_path):
    for video in sources.test:
        Path(video.path).write_bytes(b"")
    with pytest.raises(UserError, match="0 of the 4 .*test split"):
        copy_videos(sources, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_stops_and_a_rerun_completes(sources, tmp_path, processes):
    """A full disk, imitated by a limit on file sizes, stops the call; a rerun completes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"videos/cats: .*\d \(a\) #1"):
            copy_videos(sources, tmp_path / "out", processes=processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert times(tmp_path / "out" / "videos") == {}
    assert not (tmp_path / "out" / "index.json").exists()
    assert len(copy_videos(sources, tmp_path / "out").videos) == 6


@pytest.mark.slow
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
        "--copy",
        "mp4",
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
    (tmp_path / "mine" / "videos").mkdir(parents=True)
    with pytest.raises(UserError, match="mine/videos: .*--out"):
        copy_videos(sources, tmp_path / "mine")
    copy_videos(sources, tmp_path / "out")
    with pytest.raises(UserError, match="out: .* 256.* 320"):
        copy_videos(sources, tmp_path / "out", 320)
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
    index = copy_videos(replace(sources, videos=(*renamed, *sources.videos[3:])), tmp_path / "out")
    paths = {Path(video.path) for video in index.videos}
    assert len(paths) == 6
    assert all(
        path.is_relative_to(tmp_path / "out" / "videos") and path.is_file() for path in paths
    )
    assert tmp_path / "out" / "videos" / "cats" / "a.mp4" in paths


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--short-side", "320"], "--short-side is for --copy, which is not given"),
        (["--copy", "mp4", "--motion", "none"], "--copy writes tracks too"),
    ],
)
def test_options_are_not_ignored(tmp_path, options, says):
    words = ["prepare", "k400", "--source", str(tmp_path), "--out", str(tmp_path / "out")]
    assert says in str(CliRunner().invoke(app, [*words, *options]).exception)


@pytest.fixture
def copied(sources, tmp_path):
    """Return OUT, and a function that prepares it again and returns its index."""

    def again():
        return copy_videos(
            index_folder(tmp_path / "videos", tmp_path / "out" / "source"),
            tmp_path / "out",
        )

    again()
    return tmp_path / "out", again


def test_another_call_writes_only_what_is_missing_or_older_than_its_source(copied, tmp_path):
    out, again = copied
    digest, before = read_index(out).digest, times(out / "videos")
    assert again().digest == digest
    assert times(out / "videos") == before
    first = read_index(out).videos[0]
    Path(first.path).unlink()
    source = next((tmp_path / "videos" / "dogs").glob("*.mp4"))
    write_video(source, moving_square(24, 64, 80, seed=5))
    index = again()
    written = {name for name, time in times(out / "videos").items() if time != before[name]}
    changed = {index.name(video) for video in index.videos if video.frames == 24}
    assert written == {index.name(first), *changed}
    assert len(changed) == 1


def test_cut_and_older_copies_are_named_before_a_run_and_written_again(copied):
    out, again = copied
    index, before = read_index(out), times(out / "videos")
    check_files(out, index)
    path = Path(index.videos[0].path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: has "):
        check_files(out, index)
    assert again().digest == index.digest
    assert path.read_bytes() == whole
    source = next(v for v in read_index(out / "source").videos if "cats/0" in v.path)
    later = before[index.name(index.videos[0])] + 10**12
    data = bytearray(Path(source.path).read_bytes())
    data[-1] ^= 1
    Path(source.path).write_bytes(data)
    os.utime(source.path, ns=(later, later))
    with pytest.raises(UserError, match="not a copy of its source"):
        check_files(out, index)
    again()
    check_files(out, index)


def test_copies_and_tracks_with_other_times_are_still_of_their_sources(copied):
    """rsync, git and a camera's wrong clock change the times of files, and not what they hold."""
    out, again = copied
    index = read_index(out)
    codec = [Path(track_path(video.track, "codec")) for video in index.videos]
    before = [path.read_bytes() for path in codec]
    age(codec)
    check_files(out, index, "codec")
    age(codec)
    write_tracks(out)
    age(codec)
    again()
    assert [path.read_bytes() for path in codec] == before
    # Those of the copy would be other vectors than those of its source.
    codec[0].unlink()
    with pytest.raises(UserError, match="mgm prepare"):
        write_tracks(out)
    assert not codec[0].exists()


def age(paths):
    for path in paths:
        os.utime(path, ns=(0, 0))


def test_a_copy_of_another_video_is_named(copied):
    """Copies of 20 and of 24 frames change places."""
    out, again = copied
    source = next(v for v in read_index(out / "source").videos if v.path.endswith(".mp4"))
    write_video(source.path, moving_square(24, 64, 80, seed=9))
    index = again()
    one, other = (next(v for v in index.videos if v.frames == count) for count in (20, 24))
    first, second = Path(one.path).read_bytes(), Path(other.path).read_bytes()
    Path(one.path).write_bytes(second)
    Path(other.path).write_bytes(first)
    with pytest.raises(UserError, match="has .* bytes, the index has"):
        check_files(out, index)
    assert again().digest == index.digest
    assert Path(one.path).read_bytes() == first
