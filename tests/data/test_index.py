import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mgm.data.index import Index, content_digest, read_index, write_index
from mgm.errors import UserError


@pytest.fixture
def index(tmp_path, stored):
    """Return an index that is written: two classes with a training and a test video each."""
    out = tmp_path / "set"
    videos = tuple(
        stored(out, f"{name}/{split}", label=label, split=split)
        for label, name in enumerate(("007", "None"))
        for split in ("train", "test")
    )
    index = Index(out, ("007", "None"), videos, (("broken.avi", "no video"),), "a note")
    write_index(index)
    return index


def test_an_index_is_read_as_it_was_written(index):
    assert read_index(index.root) == index
    assert [video.name for video in index.train] == ["007/train", "None/train"]


@pytest.mark.parametrize("name", ["None", "NA", "null", "007", "nan", " ", "a,b", 'say "hi"', "ü"])
def test_a_class_or_group_of_any_name_stays_itself(index, name):
    videos = tuple(video._replace(group=name) for video in index.videos)
    write_index(replace(index, classes=(name, "other"), videos=videos))
    read = read_index(index.root)
    assert read.classes == (name, "other")
    assert {video.group for video in read.videos} == {name}


def test_an_index_may_refer_to_the_videos_of_another_set(index, tmp_path):
    part = replace(index, root=tmp_path / "part", videos=index.videos[:2])
    write_index(part)
    (tmp_path / "moved").mkdir()
    for name in ("set", "part"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    video = read_index(tmp_path / "moved/part").videos[0]
    place = f"{video.file[:2]}/{video.file}"
    assert video.path == str(tmp_path / f"moved/set/videos/{place}.mp4")
    assert video.track() == str(tmp_path / f"moved/set/tracks/{place}.npz")
    assert video.track("dis") == str(tmp_path / f"moved/set/tracks/{place}.dis.npz")


def test_other_programs_find_each_video_by_its_path(index, tmp_path):
    part = replace(index, root=tmp_path / "part")
    write_index(part)
    for one in (index, part):
        with (one.root / "index.csv").open(newline="") as file:
            paths = [one.root / row["path"] for row in csv.DictReader(file)]
        assert [path.resolve() for path in paths] == [Path(video.path) for video in one.videos]


@pytest.mark.parametrize("of", [lambda video: video.path, lambda video: video.track()])
def test_a_missing_file_is_one_line(index, of):
    path = Path(of(index.videos[1]))
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: .*mgm prepare"):
        read_index(index.root)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-9],
        lambda text: text.replace(",train,", ",test,", 1),
        lambda text: text.replace(",25.0,", ",24.0,", 1),
        lambda text: text.replace("007/train,0", "007/train,x", 1),
        lambda text: "",
        lambda text: text.encode("utf-16"),
    ],
)
def test_a_changed_table_is_one_line(index, change):
    path = index.root / "index.csv"
    data = change(path.read_text())
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError, match=f"{path}: was changed after it was written.*mgm prepare"):
        read_index(index.root)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[" * 100_000, "\xff"])
def test_a_broken_index_is_one_line(index, text):
    path = index.root / "index.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=f"{path}: ") as caught:
        read_index(index.root)
    assert "\n" not in str(caught.value)


def test_an_index_that_is_changed_of_another_format_or_missing_is_refused(index):
    path = index.root / "index.json"
    text = path.read_text()
    for old, new in (("007", "008"), ("256", "128"), ("None", "none")):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match="index.json: was changed after it was written"):
            read_index(index.root)
    path.write_text(json.dumps(json.loads(text) | {"format": 2}))
    with pytest.raises(UserError, match="is of format 2, and this mgm reads 3"):
        read_index(index.root)
    path.unlink()
    with pytest.raises(UserError, match="no complete index"):
        read_index(index.root)


def test_the_digest_knows_the_content_and_not_the_place(index):
    classes, videos = index.classes, index.videos
    assert content_digest(classes, videos) == content_digest(classes, videos[::-1])
    moved = [video._replace(store="elsewhere", seen="7", bytes=1) for video in videos]
    assert content_digest(classes, moved) == index.digest
    for change in ({"label": 1}, {"split": "test"}, {"source_sha256": "x"}, {"name": "y"}):
        assert content_digest(classes, [videos[0]._replace(**change), *videos[1:]]) != index.digest
    assert content_digest(("007", "none"), videos) != index.digest
    assert content_digest(classes, videos, {"quality": 2}) != index.digest


def test_a_set_needs_both_splits(index):
    with pytest.raises(UserError, match=r"0 of the 2 videos are in the test split.*broken\.avi"):
        write_index(replace(index, videos=index.train))
