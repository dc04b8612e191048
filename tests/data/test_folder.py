import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgm.data import opening
from mgm.data.copies import copy_videos
from mgm.data.folder import draw_test_groups, index_folder
from mgm.data.index import SPLITS, read_index, require_labels
from mgm.data.prepare import prepare_tracks
from mgm.data.tracks import has_track
from mgm.errors import UserError
from mgm.spec import Data, Finetune, Pretrain, Probe
from tests.helpers.errors import refused


@pytest.fixture
def video(generated):
    """Return a function that copies a generated video to a path."""
    sources = iter(generated[1].videos)

    def copy(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(sources).path, path)

    return copy


@pytest.fixture
def videos(tmp_path, video):
    """Return a folder with two class folders of five videos each."""
    for name in ("cats", "dogs"):
        for number in range(5):
            video(tmp_path / "videos" / name / f"{number}.mp4")
    return tmp_path / "videos"


def fails(source: Path, *says: str) -> None:
    with refused(*says):
        index_folder(source, source.parent / "out")
    assert not (source.parent / "out" / "index.json").exists()


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_videos_without_labels_have_one_class(tmp_path, video):
    """A flat folder, and a list of paths."""
    for number in range(5):
        video(tmp_path / "flat" / f"{number}.mp4")
    paths = [str(path) for path in sorted((tmp_path / "flat").iterdir())]
    for source in (tmp_path / "flat", write(tmp_path / "list.csv", "path", *paths)):
        index = index_folder(source, tmp_path / "out")
        assert index == read_index(tmp_path / "out")
        assert index.classes == ("unlabelled",)
        assert Counter(video.split for video in index.videos) == {"train": 4, "test": 1}
        require_labels(index, Pretrain(data=Data(dataset="mine")))
        for stage in (Probe, Finetune):
            with refused("has 1 class, and", "needs at least 2"):
                require_labels(index, stage(data=Data(dataset="mine")))


def test_one_folder_per_class(videos, tmp_path):
    index = index_folder(videos, tmp_path / "out")
    assert index == read_index(tmp_path / "out")
    assert index.classes == ("cats", "dogs")
    assert Counter((video.label, video.split) for video in index.videos) == {
        (0, "train"): 4,
        (0, "test"): 1,
        (1, "train"): 4,
        (1, "test"): 1,
    }
    assert "seed 0" in index.note
    assert "2 of 10 groups" in index.note
    first = index.videos[0]
    assert (index.name(first), first.group, first.frames, first.codec, first.has_vectors) == (
        "cats/0.mp4",
        "cats/0.mp4",
        8,
        "h264",
        True,
    )
    assert first.bytes == os.path.getsize(first.path)


def test_the_split_is_the_seeds(videos, tmp_path):
    splits = [
        tuple(video.split for video in index_folder(videos, tmp_path / f"{n}", seed).videos)
        for n, seed in enumerate([0, 0, 1, 2, 3])
    ]
    assert splits[0] == splits[1]
    assert len(set(splits)) > 1


def test_hidden_files_are_skipped_and_others_listed_with_a_reason(videos, tmp_path, video):
    write(videos / "cats" / ".DS_Store", "x")
    (videos / "cats" / ".git").mkdir()
    write(videos / "cats" / ".git" / "x.mp4", "x")
    write(videos / "README.md", "x")
    write(videos / "cats" / "notes.txt", "x")
    video(videos / "dogs" / "deep" / "er" / "x.mp4")
    (videos / "dogs" / "empty.mp4").touch()
    (videos / "dogs" / "link.mp4").symlink_to("nowhere.mp4")
    whole = (videos / "dogs" / "0.mp4").read_bytes()
    (videos / "dogs" / "short.mp4").write_bytes(whole[: len(whole) // 2])
    index = index_folder(videos, tmp_path / "out")
    assert [name for name, _ in index.excluded] == [
        "README.md",
        "cats/notes.txt",
        "dogs/empty.mp4",
        "dogs/link.mp4",
        "dogs/short.mp4",
    ]
    assert all(reason and str(videos) not in reason for _, reason in index.excluded)
    assert "dogs/deep/er/x.mp4" in map(index.name, index.videos)
    assert read_index(tmp_path / "out").excluded == index.excluded


def test_one_video_in_both_splits_is_named(videos, tmp_path):
    rows = [f"{path},{path.parent.name},train" for path in sorted(videos.glob("*/[0-3].mp4"))]
    rows += [f"{path},{path.parent.name},test" for path in sorted(videos.glob("*/4.mp4"))]
    lines = ["path,label,split", *rows]
    note = index_folder(write(tmp_path / "a.csv", *lines), tmp_path / "a").note
    assert "warning" not in note
    os.link(videos / "cats" / "0.mp4", tmp_path / "linked.mp4")
    lines += [f"{tmp_path / 'linked.mp4'},dogs,test"]
    note = index_folder(write(tmp_path / "b.csv", *lines), tmp_path / "b").note
    assert "1 videos are in train and in test" in note
    assert "linked.mp4" in note


def test_a_long_name_gets_its_track_and_its_copy(videos, tmp_path):
    long = "t" * 236 + ".mp4"
    os.rename(videos / "cats" / "0.mp4", videos / "cats" / long)
    index = prepare_tracks(lambda out: index_folder(videos, out), tmp_path / "out", 1)
    assert len(index.videos) == 10
    assert all(has_track(video) for video in index.videos)
    assert len(copy_videos(index, tmp_path / "copies").videos) == 10


def test_a_video_of_which_half_decodes_is_left_out(videos, tmp_path):
    """As an interrupted download into a file of full size leaves it."""
    path = videos / "cats" / "0.mp4"
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    start = max(start, end - (end - start) * 6 // 10)
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    index = prepare_tracks(lambda out: index_folder(videos, out), tmp_path / "out", 1)
    assert (len(index.videos), [name for name, _ in index.excluded]) == (9, ["cats/0.mp4"])


def test_an_index_does_not_lead_tracks_out_of_its_dataset(videos, tmp_path):
    index_folder(videos, tmp_path / "out")
    place = tmp_path / "out" / "index.json"
    place.write_text(place.read_text().replace('"tracks": "tracks"', '"tracks": "../x"'))
    with refused(f"{place}: ", "../x"):
        read_index(tmp_path / "out")


def test_previews_are_neither_videos_nor_classes_and_are_counted(videos, tmp_path, video):
    plain = index_folder(videos, tmp_path / "plain")
    for place in ("@eaDir", "cats/@eaDir/0.mp4", "dogs/deep/.thumbnails", "Thumbnails/x"):
        video(videos / place / "preview.mp4")
        video(videos / place / "another.mp4")
    index = index_folder(videos, tmp_path / "out")
    assert (index.digest, index.classes) == (plain.digest, plain.classes)
    skipped = dict(set(index.excluded) - set(plain.excluded))
    assert skipped.keys() == {"@eaDir", "cats/@eaDir", "dogs/deep/.thumbnails", "Thumbnails"}
    assert all("2 files" in reason for reason in skipped.values())


def test_one_label_in_two_forms_of_unicode_is_one_class(tmp_path, video):
    """macOS and Linux write the same name in NFD and in NFC."""
    composed, decomposed = "gr\u00fcn", "gru\u0308n"
    for name in (f"{composed}/1.mp4", f"{decomposed}/2.mp4", "rot/3.mp4", "rot/4.mp4"):
        video(tmp_path / "videos" / name)
    index = index_folder(tmp_path / "videos", tmp_path / "out")
    assert index.classes == (composed, "rot")
    assert Counter(video.label for video in index.videos) == {0: 2, 1: 2}
    # The CSV names each file, and its label, in the other form.
    rows = [f"{decomposed}/1.mp4,{composed}", f"{composed}/2.mp4,{decomposed}"]
    rows += ["rot/3.mp4,rot", "rot/4.mp4,rot"]
    table = write(tmp_path / "videos" / "videos.csv", "path,label", *rows)
    (tmp_path / "videos" / composed / "2.mp4").unlink(missing_ok=True)
    assert index_folder(table, tmp_path / "listed").digest == index.digest
    # Both forms of a path are one file.
    write(table, "path,label", *rows, f"{composed}/1.mp4,rot")
    with pytest.raises(UserError, match="line 6 names .* a second time"):
        index_folder(table, tmp_path / "twice")


def test_files_of_a_group_stay_on_one_side_and_marks_without_groups_are_mentioned(tmp_path, video):
    for number in range(8):
        label = ("Biking", "Diving")[number % 2]
        video(tmp_path / "videos" / label / f"v_{label}_g{number // 4:02}_c{number:02}.mp4")
    alone = index_folder(tmp_path / "videos", tmp_path / "alone")
    assert len({video.group for video in alone.videos}) == 8
    assert alone.note.count("warning") == 1
    assert "such as g00" in alone.note
    index = index_folder(tmp_path / "videos", tmp_path / "out", groups=r"_(g\d+)_")
    sides = {split: {v.group for v in index.videos if v.split == split} for split in SPLITS}
    assert sorted(map(tuple, sides.values())) == [("g00",), ("g01",)]
    assert "warning" not in index.note
    # Groups of a CSV need no marks.
    rows = [f"{index.name(v)},{index.classes[v.label]},{v.group}" for v in index.videos]
    table = write(tmp_path / "videos" / "videos.csv", "path,label,group", *rows)
    assert index_folder(table, tmp_path / "listed").videos == index.videos
    with pytest.raises(UserError, match="has a column group"):
        index_folder(table, tmp_path / "both", groups="g")
    table.unlink()
    with pytest.raises(UserError, match="'person.' is found in none"):
        index_folder(tmp_path / "videos", tmp_path / "none", groups="person.")


def test_a_csv_gives_labels_splits_and_groups(tmp_path, video):
    names = ["x, 1.mp4", "sub/2.mp4", "3.mp4", "4.mp4"]
    for name in names:
        video(tmp_path / "v" / name)
    table = write(
        tmp_path / "v" / "videos.csv",
        "label,path,group,split",
        'b,"x, 1.mp4",g1,train',
        "a,sub/2.mp4,g1,train",
        "b,3.mp4,g2,test",
        "a,4.mp4,g3,test",
    )
    index = index_folder(table, tmp_path / "out")
    assert index.classes == ("a", "b")
    assert [(index.name(v), v.label, v.group, v.split) for v in index.videos] == [
        ("x, 1.mp4", 1, "g1", "train"),
        ("sub/2.mp4", 0, "g1", "train"),
        ("3.mp4", 1, "g2", "test"),
        ("4.mp4", 0, "g3", "test"),
    ]
    assert index.note == "split as given"
    # The folder that holds videos.csv gives the same index.
    assert index_folder(tmp_path / "v", tmp_path / "other").digest == index.digest


def test_paths_of_a_csv_may_be_absolute_or_lead_elsewhere(tmp_path, video):
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        video(tmp_path / "far" / name)
    (tmp_path / "lists").mkdir()
    lines = [
        f"{tmp_path}/far/a/1.mp4,10",
        "../far/a/2.mp4,10",
        "../far/b/1.mp4,9",
        "../far/b/2.mp4,9",
    ]
    index = index_folder(
        write(tmp_path / "lists" / "mine.csv", "path,label", *lines), tmp_path / "out"
    )
    assert index.classes == ("9", "10")  # numbers are sorted by value
    assert index.root == tmp_path / "far"
    assert index.name(index.videos[0]) == "a/1.mp4"


def test_numbers_that_are_equal_are_ordered_by_their_text(tmp_path, video):
    """`1` and `01` are two classes, and their order does not depend on the hash seed of strings."""
    for number in range(8):
        video(tmp_path / f"{number}.mp4")
    labels = ["1", "01", "001", "0"]
    write(
        tmp_path / "videos.csv",
        "path,label\n" + "".join(f"{number}.mp4,{labels[number % 4]}\n" for number in range(8)),
    )
    assert index_folder(tmp_path, tmp_path.parent / f"{tmp_path.name}-out").classes == (
        "0",
        "001",
        "01",
        "1",
    )


def test_links_are_followed_once_and_what_cannot_be_read_is_said(
    videos, tmp_path, video, monkeypatch
):
    video(tmp_path / "elsewhere" / "new.mp4")
    (videos / "cats" / "linked").symlink_to(tmp_path / "elsewhere")
    (videos / "cats" / "loop").symlink_to(videos / "cats")
    (videos / "itself").symlink_to(videos / "itself")
    os.rename(videos / "dogs" / "4.mp4", os.path.join(os.fsencode(videos / "dogs"), b"\xff.mp4"))
    (videos / "dogs" / "locked").mkdir()
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    index = index_folder(videos, tmp_path / "out")
    assert "cats/linked/new.mp4" in map(index.name, index.videos)
    reasons = dict(index.excluded)
    assert set(reasons) == {"cats/loop", "itself", "dogs/\\udcff.mp4", "dogs/locked"}
    assert "Permission denied" in reasons["dogs/locked"]
    assert "UTF-8" in reasons["dogs/\\udcff.mp4"]


def test_a_linked_folder_keeps_its_name(videos, tmp_path):
    (tmp_path / "link").symlink_to(videos)
    index = index_folder(tmp_path / "link", tmp_path / "out")
    assert index.root == tmp_path / "link"
    assert read_index(tmp_path / "out") == index


def test_an_unchanged_folder_is_not_opened_or_written_again(videos, tmp_path, monkeypatch):
    opened, written = [], tmp_path / "out" / "index.json"
    monkeypatch.setattr(
        opening,
        "_open_some",
        lambda root, names, real=opening._open_some: opened.extend(names) or real(root, names),
    )
    first = index_folder(videos, tmp_path / "out")
    before = written.stat().st_mtime_ns
    assert index_folder(videos, tmp_path / "out") == first
    assert (len(opened), written.stat().st_mtime_ns) == (10, before)
    os.utime(videos / "cats" / "0.mp4", ns=(1, 1))
    assert index_folder(videos, tmp_path / "out") == first
    assert opened[10:] == ["cats/0.mp4"]
    (videos / "cats" / "0.mp4").unlink()
    assert index_folder(videos, tmp_path / "out").digest != first.digest
    last = index_folder(videos, tmp_path / "out", seed=1)
    (tmp_path / "out" / "index.csv").unlink()
    assert index_folder(videos, tmp_path / "out", seed=1) == last == read_index(tmp_path / "out")
    assert len(opened) == 11


def test_what_cannot_be_indexed_says_so(tmp_path, videos, video):
    fails(tmp_path / "nowhere", "nowhere: no such file or folder")
    (tmp_path / "bare").mkdir()
    write(tmp_path / "bare" / "a.txt", "x")
    fails(tmp_path / "bare", "class 'unlabelled' has 1 videos, and 0 can be read", "a.txt")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "no videos, no class folders and no videos.csv")
    with pytest.raises(UserError, match=f"{videos / 'index'}: "):
        index_folder(videos, videos / "index")
    (videos / "birds").mkdir()
    fails(videos, "birds: is a class folder without videos")
    write(videos / "birds" / "a.mp4", "not a video")
    fails(videos, "class 'birds' has 1 videos, and 0 can be read", "birds/a.mp4")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "line 1: "),
        (["path,label"], "lists 0 videos"),
        (["path,class", "1.mp4,a"], "line 1: "),
        (["path,label,label", "1.mp4,a,b"], "line 1: "),
        (["1.mp4,a", "2.mp4,b"], "line 1: "),
        (["path,label", "1.mp4,a", "9.mp4,b", "8.mp4,b"], "2 of 3"),
        (["path,label", "1.mp4,a", "1.mp4,b"], "line 3"),
        (["path,label", "1.mp4,a,b"], "line 2 has 3"),
        (["label,path", "a"], "line 2 has 1"),
        (["path,label", "1.mp4,"], "line 2"),
        (["path,label,split", "1.mp4,a,val"], "line 2"),
        (
            ["path,label,split,group", "1.mp4,a,train,g", "2.mp4,b,test,g"],
            "group 'g' is in train and in test",
        ),
    ],
)
def test_a_csv_that_cannot_be_followed_says_so(tmp_path, video, lines, says):
    for name in "12":
        video(tmp_path / f"{name}.mp4")
    fails(write(tmp_path / "list.csv", *lines), "list.csv", says)


@pytest.mark.parametrize("split", ["", ",train"])
def test_both_splits_need_a_video(tmp_path, video, split):
    for name in "12":
        video(tmp_path / f"{name}.mp4")
    lines = [f"path,label{',split' if split else ''}", f"1.mp4,a{split}", f"2.mp4,b{split}"]
    fails(write(tmp_path / "list.csv", *lines), "0 of the 2 readable videos are in the test split")


def test_classes_missing_on_a_side_are_noted(tmp_path, video):
    for name in "12345":
        video(tmp_path / "v" / f"{name}.mp4")
    table = write(
        tmp_path / "v" / "l.csv",
        "path,label,split",
        "1.mp4,a,train",
        "2.mp4,b,train",
        "3.mp4,b,test",
        "4.mp4,c,test",
        "5.mp4,b,test",
    )
    assert (
        index_folder(table, tmp_path / "out").note
        == "split as given; no train videos of c; no test videos of a"
    )


groups = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 12).map(str)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(groups, st.integers(0, 5))
def test_classes_of_several_groups_are_on_both_sides(videos, seed):
    try:
        test = draw_test_groups(videos, seed)
    # With shared groups a split may not exist. With groups of one class it always does.
    except UserError:
        videos = [(label, label + group) for label, group in videos]
        test = draw_test_groups(videos, seed)
    assert test == draw_test_groups(videos[::-1], seed)
    for label in {label for label, _ in videos}:
        mine = {group for other, group in videos if other == label}
        assert mine - test, "a class without training videos"
        assert (len(mine) < 2) == (not mine & test) or len(mine) < 2


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(2, 80), min_size=1), st.integers(0, 5))
def test_files_of_their_own_group_are_split_80_to_20(counts, seed):
    videos = [
        (label, f"{label}{number}") for label, count in counts.items() for number in range(count)
    ]
    test = draw_test_groups(videos, seed)
    for label, count in counts.items():
        assert abs(sum(name[0] == label for name in test) - max(1, 0.2 * count)) <= 0.6


def test_groups_that_cannot_be_kept_apart_say_so():
    # With two of the three groups, a split has all videos of some class.
    with pytest.raises(UserError, match="class 'b': .* 2 groups"):
        draw_test_groups(
            [("a", "1"), ("a", "2"), ("b", "2"), ("b", "3"), ("c", "3"), ("c", "1")], seed=0
        )
