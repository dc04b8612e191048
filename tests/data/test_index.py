import csv
import json
from dataclasses import replace

import pytest

from mgm.data.index import (
    About,
    Index,
    content_digest,
    read_index,
    read_rows,
    write_index,
    write_rows,
)
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
    digest = content_digest(("007", "None"), videos)
    index = Index(out, ("007", "None"), videos, (("broken.avi", "no video"),), digest, "a note")
    write_index(index)
    return index


def test_an_index_is_read_as_it_was_written(index):
    assert read_index(index.root) == index
    assert [video.name for video in index.train] == ["007/train", "None/train"]


@pytest.mark.parametrize("name", ["None", "NA", "null", "007", "nan", " ", "a,b", 'say "hi"', "ü"])
def test_a_class_or_group_of_any_name_stays_itself(index, name):
    videos = tuple(replace(video, group=name) for video in index.videos)
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
    assert video.path == str(tmp_path / "moved/set/videos/007/train.mp4")
    assert video.track() == str(tmp_path / "moved/set/tracks/007/train.npz")
    assert video.track("dis") == str(tmp_path / "moved/set/tracks/007/train.dis.npz")


@pytest.mark.parametrize("kind", ["videos/007/test.mp4", "tracks/None/train.npz"])
def test_a_missing_file_is_one_line(index, kind):
    path = index.root / kind
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: .*mgm prepare"):
        read_index(index.root)


def written_again(index, **changes) -> None:
    """Write index.json with other fields, and the seal that belongs to them."""
    path = index.root / "index.json"
    about = About.model_validate(json.loads(path.read_text()) | changes)
    path.write_text(about.model_copy(update={"seal": about.computed()}).model_dump_json())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text[:-9], "was changed after it was written"),
        (lambda text: text.replace(",train,", ",test,"), "was changed after it was written"),
        (lambda text: text.replace(",train,", ",Train,", 1), "line 2: split: "),
        (lambda text: text.replace("007/train,0", "007/train,x", 1), "line 2: label: "),
        (lambda text: text.replace(",25.0,", ",nan,", 1), "line 2: fps: "),
        (lambda text: text.replace(",5,", ",5.50E+00,", 1), "line 2: bytes: "),
        (lambda text: text.replace(",25.0", "", 1), "line 2 has 19 cells, not 20"),
        (lambda text: text.replace("store", "shop", 1), "its columns are not store,name"),
        (lambda text: "", "its columns are not"),
        (lambda text: text.encode("utf-16"), "invalid start byte"),
    ],
)
def test_a_changed_table_is_one_line(index, change, fault):
    path = index.root / "index.csv"
    data = change(path.read_text())
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError, match=f"{path}: .*{fault}.*mgm prepare"):
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
    for old, new in (("007", "008"), ("a note", "another"), ("no video", "none"), ("256", "128")):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match="index.json: was changed after it was written"):
            read_index(index.root)
    path.write_text(text)
    written_again(index, format=1)
    with pytest.raises(UserError, match="is of format 1, and this mgm reads 2"):
        read_index(index.root)
    written_again(index, format=2, classes=["007"])
    with pytest.raises(UserError, match="None/train has label 1 of no class"):
        read_index(index.root)
    path.unlink()
    with pytest.raises(UserError, match="no complete index"):
        read_index(index.root)


def test_a_row_that_was_cut_short_is_left_out(index, tmp_path):
    path = index.root / "rows.csv"
    write_rows(path, index.videos)
    text = path.read_text()
    for end in (-1, -20, -70):
        path.write_text(text[:end])
        assert read_rows(path) == list(index.videos[:-1])
    with path.open(newline="") as file:
        assert "source_sha256" in next(csv.reader(file))


def test_the_digest_knows_the_content_and_not_the_place(index):
    classes, videos = index.classes, index.videos
    assert content_digest(classes, videos) == content_digest(classes, videos[::-1])
    moved = [replace(video, store="elsewhere", source_mtime=7, bytes=1) for video in videos]
    assert content_digest(classes, moved) == index.digest
    for change in ({"label": 1}, {"split": "test"}, {"source_sha256": "x"}, {"name": "y"}):
        assert content_digest(classes, [replace(videos[0], **change), *videos[1:]]) != index.digest
    assert content_digest(("007", "none"), videos) != index.digest
    assert content_digest(classes, videos, {"quality": 2}) != index.digest


def test_a_set_needs_both_splits(index):
    with pytest.raises(UserError, match=r"0 of the 2 videos are in the test split.*broken\.avi"):
        write_index(replace(index, videos=index.train))
