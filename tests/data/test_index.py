import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from mgm.data.copies import check_files
from mgm.data.index import (
    Index,
    Video,
    _checksum,
    content_digest,
    read_index,
    write_index,
)
from mgm.errors import UserError
from tests.helpers.errors import refused


def make(root: Path, **changes) -> Index:
    rows = [
        ("a/x.mp4", 0, "train"),
        ("a/y, z.mp4", 0, "test"),
        ("b/x.mp4", 1, "train"),
        ("b/ü.mp4", 1, "test"),
    ]
    videos = tuple(
        Video(str(root / name), label, split, name, 24, 29.97, 64, 48, "h264", True, 100)
        for name, label, split in rows
    )
    videos = tuple(
        dataclasses.replace(video, **changes) if video.label else video for video in videos
    )
    return Index(
        root,
        ("a", "b"),
        videos,
        (("a/broken.mp4", "is not a video"),),
        content_digest(root, ("a", "b"), videos),
        "split as given",
    )


def test_what_is_written_is_read(tmp_path):
    index = make(tmp_path / "videos")
    write_index(index, tmp_path / "index")
    assert read_index(tmp_path / "index") == index
    assert [index.name(video) for video in index.train] == ["a/x.mp4", "b/x.mp4"]
    assert [index.name(video) for video in index.test] == ["a/y, z.mp4", "b/ü.mp4"]
    header, first, *_ = (tmp_path / "index" / "index.csv").read_text(encoding="utf-8").splitlines()
    assert header == "path,label,split,group,frames,fps,width,height,codec,has_vectors,bytes"
    assert first == "a/x.mp4,0,train,a/x.mp4,24,29.97,64,48,h264,True,100"


def test_videos_may_lie_beside_the_index_that_lists_them(tmp_path):
    videos = make(tmp_path / "data" / "videos").videos
    index = Index(tmp_path / "data" / "index", ("a", "b"), videos, (), "0" * 12, "")
    write_index(index, index.root)
    assert "../videos/a/x.mp4,0," in (index.root / "index.csv").read_text(encoding="utf-8")
    assert read_index(index.root) == index
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    assert read_index(tmp_path / "elsewhere" / "index").videos[0].path == str(
        tmp_path / "elsewhere" / "videos" / "a" / "x.mp4"
    )


def test_the_digest_is_of_the_content(tmp_path):
    digest = make(tmp_path / "one").digest
    assert (
        digest == make(tmp_path / "two").digest == make(tmp_path / "one", group="g", fps=1.0).digest
    )
    others = [
        make(tmp_path, **change).digest
        for change in (
            {"bytes": 101},
            {"label": 0},
            {"split": "train"},
            {"path": str(tmp_path / "c")},
        )
    ]
    assert len({digest, *others}) == 5


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("index.json", None, "index.json:"),
        ("index.csv", None, "index.csv:"),
        ("index.json", lambda text: text[:40], "is not JSON"),
        ("index.json", lambda text: "[]", "index.json:"),
        ("index.json", lambda text: text.replace('"checksum"', '"old"'), "index.json: checksum"),
        ("index.csv", lambda text: text.replace("label", "class"), "index.csv"),
        ("index.csv", lambda text: text.rsplit("\n", 2)[0], "index.csv"),
        ("index.csv", lambda text: text.replace("29.97", "fast"), "index.csv"),
    ],
)
def test_a_broken_index_names_its_file(tmp_path, name, change, says):
    write_index(make(tmp_path), tmp_path)
    path = tmp_path / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with refused(says, str(path.parent)):
        read_index(tmp_path)


def test_an_index_of_other_columns_says_so(tmp_path):
    write_index(make(tmp_path), tmp_path)
    path, about = tmp_path / "index.csv", json.loads((tmp_path / "index.json").read_text())
    path.write_text(path.read_text(encoding="utf-8").replace("label", "class"), encoding="utf-8")
    about["checksum"] = _checksum(about["classes"], path)
    (tmp_path / "index.json").write_text(json.dumps(about))
    with refused(f"{path}: its columns"):
        read_index(tmp_path)


def test_files_that_are_gone_or_have_changed_are_counted_and_the_first_is_named(tmp_path):
    index = make(tmp_path)
    for video in index.videos:
        Path(video.path).parent.mkdir(exist_ok=True)
        Path(video.path).write_bytes(bytes(100))
    check_files(tmp_path, index)
    Path(index.videos[1].path).write_bytes(bytes(99))
    Path(index.videos[2].path).unlink()
    Path(index.videos[3].path).unlink()
    with pytest.raises(UserError, match="y, z.mp4: .*99.*100.* 2 .* 1 "):
        check_files(tmp_path, index)
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match="x.mp4: .* 4 videos 4 are missing"):
        check_files(tmp_path, index)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("index.csv", "a/x.mp4,0,train", "a/x.mp4,1,train"),
        ("index.csv", '"a/y, z.mp4",0,test', '"a/y, z.mp4",1,test'),
        ("index.csv", "b/x.mp4,1,train", "b/x.mp4,1,test"),
        ("index.csv", "a/x.mp4,0,train,a/x.mp4,24", "a/x.mp4,0,train,a/x.mp4,12"),
        ("index.csv", "train,a/x.mp4", "train,another group"),
        ("index.json", '"a",', '"b",'),
    ],
)
def test_what_was_changed_after_writing_is_refused(tmp_path, file, before, after):
    write_index(make(tmp_path / "videos"), tmp_path)
    path = tmp_path / file
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    changed = text.replace(before, after)
    if before == '"a",':  # swap the two classes
        changed = changed[::-1].replace('"b"'[::-1], '"a"'[::-1], 1)[::-1]
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.(csv|json)"):
        read_index(tmp_path)
