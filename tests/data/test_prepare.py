import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data import prepare as module
from mgm.data.folder import list_folder
from mgm.data.index import DEFAULTS, Index, content_digest, read_index, write_index
from mgm.data.prepare import list_drawn, prepare, summary, unreferred, write_tracks
from mgm.drawn.params import Synthetic
from mgm.errors import UserError, as_user_error
from mgm.files import locked
from mgm.video import store
from mgm.video.decode import source_track
from mgm.video.store import read_clips
from mgm.video.track import Track
from tests.helpers.disk import full_disk
from tests.helpers.errors import refused


@pytest.fixture
def source(tmp_path, clip):
    """Return a folder of two classes of five videos. Contents count from 0."""
    for content in range(10):
        clip(tmp_path / "source" / "ab"[content % 2] / f"{content}.mp4", content)
    return tmp_path / "source"


def made(source: Path, out: Path, **options):
    return prepare(list_folder(source), out, processes=1, **options)


def track_of(video) -> Track:
    return Track(video.track())


def vectors(track: Track) -> np.ndarray:
    return track.motion(np.arange(len(track))).vectors_THW2


def written(index) -> dict[str, int]:
    """Return when each file of the videos was written."""
    return {
        path: os.stat(path).st_mtime_ns
        for video in index.videos
        for path in (video.path, video.track())
    }


def test_a_folder_is_decoded_once_into_videos_tracks_and_an_index(source, tmp_path):
    index = made(source, tmp_path / "out")
    assert read_index(tmp_path / "out") == index
    assert index.classes == ("a", "b")
    assert [video.name for video in index.videos] == sorted(
        f"{'ab'[content % 2]}/{content}" for content in range(10)
    )
    for video in index.videos:
        assert (video.frames, video.fps, video.width, video.height) == (8, 25, 48, 48)
        assert (video.codec, video.vectors) == ("h264", "source")
        known = vectors(source_track(source / video.source))
        np.testing.assert_array_equal(vectors(track_of(video)), known)
    frames = read_clips(index.videos[0].path, track_of(index.videos[0]), [np.arange(8)], None, 0)
    assert frames.shape == (1, 8, 48, 48, 3)


def test_content_that_changed_at_equal_size_and_time_is_prepared_anew(source, tmp_path):
    path = source / "a/0.mp4"
    first = made(source, tmp_path / "out")
    stat, data = path.stat(), bytearray(path.read_bytes())
    # Turn the picture by 180 degrees, in the header.
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = b"".join(
        number.to_bytes(4, "big", signed=True)
        for number in (-1 << 16, 0, 0, 0, -1 << 16, 0, 48 << 16, 48 << 16, 1 << 30)
    )
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    old = vectors(track_of(first.videos[0]))
    new = vectors(track_of(made(source, tmp_path / "out").videos[0]))
    np.testing.assert_array_equal(new, -old[:, ::-1, ::-1])


def test_equal_content_with_other_times_is_kept(source, tmp_path):
    index = made(source, tmp_path / "out")
    before = written(index)
    for path in source.rglob("*.mp4"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    again = made(source, tmp_path / "out")
    assert written(again) == before
    assert again.digest == index.digest
    assert again.videos[0].seen != index.videos[0].seen


def test_a_lost_file_is_written_again(source, tmp_path):
    index = made(source, tmp_path / "out")
    before = written(index)
    Path(index.videos[3].path).unlink()
    Path(index.videos[4].track()).write_bytes(b"")
    again = made(source, tmp_path / "out")
    assert again == index
    changed = {path for path, when in written(again).items() if when != before[path]}
    assert changed == {*written(replace(index, videos=index.videos[3:5]))}


def test_videos_that_cannot_be_read_are_left_out_and_listed(source, tmp_path, clip):
    whole = (source / "a/0.mp4").read_bytes()
    start, end = whole.index(b"mdat") + 4, whole.index(b"moov") - 4
    half = whole[: (start + end) // 2] + bytes(end - (start + end) // 2) + whole[end:]
    bad = {"a/empty.mp4": b"", "a/text.mp4": b"no video", "b/half.mp4": half}
    for name, data in bad.items():
        (source / name).write_bytes(data)
    (source / "b/link.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(source / "b/pipe.mp4")
    index = made(source, tmp_path / "out")
    reasons = dict(index.excluded)
    assert {*reasons} == {*bad, "b/link.mp4", "b/pipe.mp4"}
    assert all(reason and str(source) not in reason for reason in reasons.values())
    assert len(index.videos) == 10
    assert "5 files left out:" in summary(index)
    assert len(files(tmp_path / "out")) == 20
    # They are tried again. An equal index is not written again.
    about = os.stat(tmp_path / "out" / "index.json").st_mtime_ns
    assert made(source, tmp_path / "out") == index
    assert os.stat(tmp_path / "out" / "index.json").st_mtime_ns == about
    clip(source / "a/empty.mp4", 77)
    again = made(source, tmp_path / "out")
    assert len(again.videos) == 11
    assert "a/empty.mp4" not in dict(again.excluded)


def test_names_that_are_not_utf8_are_told(source, tmp_path):
    for name in (b"caf\xe9.mp4", b".caf\xe9/1.mp4", b"caf\xe9.csv"):
        path = Path(os.fsdecode(os.path.join(os.fsencode(source), name)))
        path.parent.mkdir(exist_ok=True)
        path.write_text("path,label\n")
    index = made(source, tmp_path / "out")
    assert {name for name, _ in index.excluded} == {r"caf\udce9.mp4", r"caf\udce9.csv"}
    assert r"1 hidden videos are not used (.caf\udce9)" in index.note
    assert read_index(tmp_path / "out") == index


def test_numbers_of_frames_are_no_labels(tmp_path, clip):
    for content, frames in enumerate((8, 9, 8, 9)):
        clip(tmp_path / f"source/{content}.mp4", content, frames=frames)
    lines = [f"{content}.mp4 {frames}" for content, frames in enumerate((8, 9, 8, 9))]
    (tmp_path / "source/list.txt").write_text("\n".join(lines))
    listing = list_folder(tmp_path / "source/list.txt")
    with refused("the labels are the videos' numbers of frames"):
        prepare(listing, tmp_path / "out", processes=1)
    lines[0] = "0.mp4 9"
    (tmp_path / "source/list.txt").write_text("\n".join(lines))
    assert prepare(list_folder(tmp_path / "source/list.txt"), tmp_path / "out", processes=1).classes


def test_a_set_without_test_videos_is_refused_before_any_is_decoded(source, tmp_path):
    (source / "videos.csv").write_text("path,split\na/0.mp4,train\nb/1.mp4,train\n")
    with pytest.raises(UserError, match="0 of the 2 videos are in the test split"):
        made(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["videos/mine.mp4", "index.csv"])
def test_files_of_others_are_not_touched(source, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match="is not from `mgm prepare`; choose another --out"):
        made(source, tmp_path / "out")
    assert path.read_text() == "mine"


def test_warnings(source, tmp_path, clip):
    clip(source / "A/same.mp4", 0)
    (source / "videos.csv").write_text(
        "path,label,split\na/0.mp4,a,train\nA/same.mp4,A,test\nb/1.mp4,b,train\n"
    )
    index = made(source, tmp_path / "out")
    index = replace(index, videos=(*index.videos[:-1], index.videos[-1]._replace(interlaced=0.75)))
    lines = [line for line in summary(index).splitlines() if line.startswith("warning: ")]
    assert [line.split(": ", 1)[1] for line in lines] == [
        "the classes 'A' and 'a' look alike",
        "1 test videos have the content of a training video, such as a/0 and A/same",
        "1 videos have interlaced pictures, such as b/1: 75%; deinterlace them first",
        "2 classes have videos in the train split alone, such as a, b",
        "1 classes have videos in the test split alone, such as A",
        "3 of 3 classes have fewer than 25 test videos, such as A; accuracies will be uncertain",
    ]


def test_the_space_is_told_from_the_first_videos(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "TRIED", 3)
    made(source, tmp_path / "enough")
    assert "The store will take about 0.000 GB" in capsys.readouterr().err
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(100))
    with pytest.raises(UserError, match="the store will take about .* and 0.0 GB are free"):
        made(source, tmp_path / "full")
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "full").rglob("*.mp4")}
    assert len(before) == 3
    index = made(source, tmp_path / "full")
    assert len(index.videos) == 10
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_full_disk_is_one_line_and_the_next_call_goes_on(source, tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large") as error:
        made(source, tmp_path / "out")
    assert "out/videos/" in str(as_user_error(error.value))
    assert len(made(source, tmp_path / "out").videos) == 10


@pytest.mark.slow
def test_a_killed_call_leaves_whole_files_and_the_next_goes_on(tmp_path, clip):
    """The main process is killed at random moments, while two workers write."""
    for number in range(14):
        clip(tmp_path / "source" / "ab"[number % 2] / f"{number}.mp4", number, frames=24, size=96)
    words = ["prepare", "folder", "--source", tmp_path / "source", "--processes", "2", "--out"]
    command = [sys.executable, "-m", "mgm", *map(str, words)]
    whole = contents(tmp_path / "once", command)
    rng, out, early = random.Random(0), tmp_path / "killed", 0
    # A kill on a busy machine may come too late. Then the next one starts anew.
    for _ in range(20):
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL)
        there = len(files(out))
        while len(files(out)) == there and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
        assert all(path.read_bytes() == whole[name] for name, path in files(out).items())
        early += len(files(out)) < len(whole)
        if early == 3:
            break
        if len(files(out)) == len(whole):
            shutil.rmtree(out)
    assert early == 3
    assert contents(out, command) == whole
    assert not [*out.rglob(".*")]
    for name in ("index.csv", "index.json"):
        assert (out / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def files(out: Path) -> dict[str, Path]:
    """Return the videos and tracks below a folder, by their paths in it."""
    return {
        path.relative_to(out).as_posix(): path
        for path in out.rglob("[!.]*")
        if path.suffix in (".mp4", ".npz")
    }


def contents(out: Path, command: list[str]) -> dict[str, bytes]:
    """Prepare, and return the content of each video and track, by path."""
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    read_index(out)
    return {name: path.read_bytes() for name, path in files(out).items()}


def test_ctrl_c_says_what_is_kept_and_the_next_call_goes_on(source, tmp_path, monkeypatch):
    out, write, done = tmp_path / "out", module.Writer.write, []

    def stopped(*words):
        if done:
            raise KeyboardInterrupt
        done.append(write(*words))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module.Writer, "write", stopped)
        ended = called(out, "--source", source)
    assert ended.exit_code
    assert f"{out}: stopped; what is done is kept" in ended.stderr
    [video] = (out / "videos").rglob("*.mp4")
    before = video.stat().st_mtime_ns
    assert called(out, "--source", source).exit_code == 0
    assert video.stat().st_mtime_ns == before


def test_two_callers_wait_for_one_another(source, tmp_path):
    results = []
    with locked(tmp_path / "out" / "prepare.lock", "the test"):
        thread = threading.Thread(target=lambda: results.append(made(source, tmp_path / "out")))
        thread.start()
        time.sleep(0.5)
        assert not results
        assert not (tmp_path / "out" / "videos").exists()
    thread.join(60)
    assert len(results[0].videos) == 10


def test_the_source_is_given(source):
    assert "needs --source" in str(called(source / "out").exception)


def called(out: Path, *words):
    """Call `mgm prepare folder`."""
    every = ["prepare", "folder", "--processes", "1", "--out", out, *words]
    return CliRunner().invoke(app, [*map(str, every)])


def test_flow_is_written_once_and_its_marker_goes_with_the_index(source, tmp_path, clip):
    index = made(source, out := tmp_path / "out")
    write_tracks(out, "dis", processes=1)
    flows = [Path(video.track("dis")) for video in index.videos]
    assert Track(flows[0]).facts.vectors == "dis"
    before = {path: path.stat().st_mtime_ns for path in flows}
    clip(source / "a/0.mp4", 50)
    index = made(source, out)
    assert not (out / "tracks-dis.json").exists()
    # A derived set has the same tracks.
    write_index(replace(index, root=tmp_path / "part"))
    for folder in (out, tmp_path / "part"):
        write_tracks(folder, "dis", processes=1)
        assert (folder / "tracks-dis.json").exists()
    assert Path(index.videos[0].track("dis")) not in flows
    assert {path: path.stat().st_mtime_ns for path in flows} == before


def test_check_finds_a_damaged_flow_which_is_written_anew(source, tmp_path, capsys):
    index = made(source, out := tmp_path / "out")
    write_tracks(out, "dis", processes=1)
    path = Path(index.videos[3].track("dis"))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole.replace(b"\x78", b"\x79"), b""):
        path.write_bytes(damaged)
        made(source, out)
        assert path.exists()
        assert made(source, out, check=True) == index
        assert f"{path}: " in capsys.readouterr().err
        assert not (out / "tracks-dis.json").exists()
        write_tracks(out, "dis", processes=1)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("index.csv", lambda text: ""),
        ("index.csv", lambda text: text.replace("a/0,0,", "a/0,1,").replace("b/1,1,", "b/1,0,")),
        ("index.json", lambda text: "[]"),
        ("index.json", lambda text: text.replace('"a"', '"c"')),
    ],
)
def test_a_broken_or_changed_index_is_repaired(source, tmp_path, name, change, capsys):
    index, path = made(source, tmp_path / "out"), tmp_path / "out" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=f"{name}: "):
        read_index(tmp_path / "out")
    assert made(source, tmp_path / "out") == index
    assert f"{name}: " in capsys.readouterr().err
    assert read_index(tmp_path / "out") == index


def damage(video) -> None:
    """Turn a bit of a stored picture, without a change of size or time."""
    path, stat = Path(video.path), os.stat(video.path)
    data = bytearray(path.read_bytes())
    data[int(track_of(video).offset_N[3]) + 200] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_check_reads_all_and_prepares_anew_what_is_damaged(source, tmp_path, capsys):
    index = made(source, tmp_path / "out")
    before, whole = written(index), Path(index.videos[2].path).read_bytes()
    damage(index.videos[2])
    # Nothing tells that the file has changed.
    assert made(source, tmp_path / "out") == index
    assert Path(index.videos[2].path).read_bytes() != whole
    assert made(source, tmp_path / "out", check=True) == index
    assert Path(index.videos[2].path).read_bytes() == whole
    assert f"{index.videos[2].path}: frame 3 is damaged" in capsys.readouterr().err
    changed = {path for path, when in written(index).items() if before[path] != when}
    assert changed == {*written(replace(index, videos=index.videos[2:3]))}
    made(source, tmp_path / "out", check=True)
    assert "damaged" not in capsys.readouterr().err


def test_what_content_brings_about_leaves_one_video_out(source, tmp_path, monkeypatch):
    fail_at(source / "a/2.mp4", OverflowError("big"), monkeypatch)
    index = made(source, tmp_path / "out")
    assert index.excluded == (("a/2.mp4", "cannot be read (OverflowError: big)"),)
    assert len(index.videos) == 9


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError(), av.error.OSError(28, "full")]
)
def test_what_the_machine_brings_about_ends_the_call(source, tmp_path, monkeypatch, error):
    fail_at(source / "a/2.mp4", error, monkeypatch)
    with pytest.raises(type(error)):
        made(source, tmp_path / "out")
    monkeypatch.undo()
    assert len(made(source, tmp_path / "out").videos) == 10


def fail_at(path: Path, error: Exception, monkeypatch) -> None:
    write = store.write_video

    def failing(source, *rest, **settings):
        if source == path:
            raise error
        return write(source, *rest, **settings)

    monkeypatch.setattr(store, "write_video", failing)


def decoded(monkeypatch) -> list[str]:
    """Return a list that gets the name of each source that is decoded."""
    names, write = list[str](), store.write_video

    def counting(source, *rest, **settings):
        names.append(source.name)
        return write(source, *rest, **settings)

    monkeypatch.setattr(store, "write_video", counting)
    return names


def test_equal_content_is_decoded_once_whatever_it_is_called(source, tmp_path, monkeypatch):
    shutil.copy(source / "a/0.mp4", source / "b/copy.mp4")
    names = decoded(monkeypatch)
    index = made(source, tmp_path / "out")
    assert len(names) == 10
    assert len({video.path for video in index.videos}) == 10
    (source / "a/2.mp4").rename(source / "b/renamed.mp4")
    (source / "b").rename(source / "c")
    again = made(source, tmp_path / "out")
    assert len(names) == 10
    assert again.classes == ("a", "c")
    assert again.digest != index.digest
    assert unreferred(again) == []


def test_other_settings_lie_beside_and_derived_sets_stay_right(source, tmp_path, monkeypatch):
    first = made(source, out := tmp_path / "out")
    parts = [
        replace(first, root=tmp_path / f"part {n}", videos=(first.test[n], first.train[n]))
        for n in range(2)
    ]
    for part in parts:
        write_index(part)
    small = made(source, out, short_side=32)
    assert {(video.width, video.height) for video in small.videos} == {(32, 32)}
    assert small.digest != first.digest
    assert "12 files of videos that left stay in" in summary(small)
    # What derived sets refer to is not removed.
    assert made(source, out, short_side=32, prune=True) == small
    assert [read_index(part.root) for part in parts] == parts
    names = decoded(monkeypatch)
    assert made(source, out) == first
    assert len(names) == 6


def test_files_of_videos_that_left_are_told_and_pruned(source, tmp_path, clip, capsys):
    made(source, out := tmp_path / "out")
    write_tracks(out, "dis", processes=1)
    (out / "videos/a").mkdir()
    # Of an older format.
    shutil.copy(source / "a/2.mp4", out / "videos/a/2.mp4")
    (source / "a/0.mp4").unlink()
    index = made(source, out)
    assert "1 videos leave the set, such as a/0" in capsys.readouterr().err
    [line] = [line for line in summary(index).splitlines() if "stay in" in line]
    assert "4 files of videos that left" in line
    assert len(files(out)) == 31
    done = called(out, "--source", source, "--prune")
    assert "stay in" not in done.stdout
    assert len(files(out)) == 27
    assert read_index(out) == index


def test_an_index_of_another_format_is_written_anew(source, tmp_path, capsys):
    index, path = made(source, tmp_path / "out"), tmp_path / "out/index.json"
    path.write_text(path.read_text().replace('"format": 3', '"format": 2'))
    before = written(index)
    assert made(source, tmp_path / "out") == index
    assert "is of format 2, and this mgm reads 3. All sources" in capsys.readouterr().err
    assert written(index) == before


def test_a_source_that_changes_while_it_is_read_is_left_out(source, tmp_path, monkeypatch, clip):
    write, path = store.write_video, source / "a/2.mp4"

    def changing(source, *rest, **settings):
        if source == path:
            clip(path, 60)
        return write(source, *rest, **settings)

    monkeypatch.setattr(store, "write_video", changing)
    index = made(source, tmp_path / "out")
    assert index.excluded == (("a/2.mp4", "changed while it was read"),)
    monkeypatch.undo()
    assert len(made(source, tmp_path / "out").videos) == 10


def test_the_same_drawn_set_is_not_written_again(tmp_path, monkeypatch):
    """Its vectors have one reference each, and its digest is known before it is made."""
    params = Synthetic(classes=2, train_per_class=2, test_per_class=1, size=32, frames=8)
    index = prepare(list_drawn(params), tmp_path, processes=1, drawn=params)
    assert (index.digest, index.settings) == (params.digest, DEFAULTS)
    names, before = decoded(monkeypatch), (tmp_path / "index.json").stat()
    assert prepare(list_drawn(params), tmp_path, processes=1, drawn=params) == index
    assert names == []
    assert (tmp_path / "index.json").stat() == before


def test_sets_whose_vectors_were_read_otherwise_are_others_and_stay(
    source, tmp_path, monkeypatch, capsys
):
    sets = list[Index]()
    for vectors in (1, 2):
        monkeypatch.setattr(module, "VECTORS", vectors)
        sets.append(made(source, tmp_path / "out"))
    first, second = sets
    assert "'vectors': 1}, and has" in capsys.readouterr().err
    assert first.digest != second.digest
    assert not {*written(first)} & {*written(second)}
    # Older indices say nothing of vectors. They and sets of other codecs have the digests of then.
    videos = [video._replace(codec="mpeg4") for video in second.videos]
    old = content_digest(first.classes, first.videos)
    assert content_digest(second.classes, videos, second.settings) == old
    write_index(replace(first, settings=DEFAULTS))
    assert read_index(tmp_path / "out").digest == old
