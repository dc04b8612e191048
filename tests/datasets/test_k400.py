import shutil
from pathlib import Path

import pytest

from mgm.datasets.published.k400 import index_k400
from mgm.errors import UserError
from tests.helpers.errors import refused

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
CLIPS = (  # class, id, start, split
    ("massaging person's head", "-Ab_0#x1234", 7, "train"),
    ("massaging person's head", "AAAAAAAAAAA", 110, "train"),
    ("petting animal (not cat)", "BBBBBB_12_3", 0, "train"),
    ("petting animal (not cat)", "CCCCCCCCCCC", 0, "val"),
)
ANNOTATIONS = HEADER + "".join(f"{label},{name},{start},{start + 1},{split},0\n" for label, name, start, split in CLIPS)


@pytest.fixture
def k400(tmp_path, published):
    """Builds a source of these videos' paths (0.7 s each), and annotations by the files' names."""
    video = published("k400").index.videos[0].path

    def build(*names: str, **annotations: str) -> Path:
        source = tmp_path / "k400"
        shutil.rmtree(source, ignore_errors=True)
        for name in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(video, source / name)
        for name, text in annotations.items():
            (source / "annotations").mkdir(exist_ok=True)
            (source / "annotations" / f"{name}.csv").write_text(text, encoding="utf-8")
        return source

    return build


ARRANGEMENTS = {
    "class folders": "{split}/{label}/{name}_{start:06}_{end:06}.mp4",
    "underscores": "{split}/{under}/{name}_{start:06}_{end:06}.mkv",
    "flat": "{split}/{name}_{start:06}_{end:06}.mp4",
    "one folder": "videos/{name}_{start}_{end}.webm",
    "classes alone": "{label}/{name}_{start:06}_{end:06}.MP4",
}


@pytest.mark.parametrize("pattern", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_every_arrangement_is_read_alike(k400, tmp_path, pattern):
    names = [
        pattern.format(label=label, under=label.replace(" ", "_"), name=name, start=start, end=start + 1, split=split)
        for label, name, start, split in CLIPS
    ]
    index = index_k400(k400(*names, all=ANNOTATIONS), tmp_path / "out")
    assert index.classes == ("massaging person's head", "petting animal (not cat)")
    assert [(index.name(video), video.label, video.split, video.group) for video in index.videos] == [
        (name, int(label.startswith("petting")), "test" if split == "val" else "train", identity)
        for name, (label, identity, _, split) in zip(names, CLIPS, strict=True)
    ]
    assert index.excluded == ()
    assert "3 of 3 train videos are there, 1 of 1 test videos are there" in index.note
    assert "the annotations have 2 classes, those published 400" in index.note


def test_dead_links_are_counted_and_listed(k400, tmp_path):
    """As K400 always is. Rows of the test split are no part of it, whether the clips are there or not, and may lack a class."""
    extra = HEADER + ",DDDDDDDDDDD,5,15,test,0\n,EEEEEEEEEEE,5,15,test,0\n"
    source = k400(
        "train/AAAAAAAAAAA_000110_000111.mp4", "val/CCCCCCCCCCC_000000_000001.mp4", "test/DDDDDDDDDDD_000005_000015.mp4",
        "train/FFFFFFFFFFF_000000_000010.mp4", "train/holiday.mp4", all=ANNOTATIONS, test=extra, other="path,label\nx,y\n",
    )  # fmt: skip
    index = index_k400(source, tmp_path / "out")
    assert {index.name(video): video.label for video in index.videos} == {
        "train/AAAAAAAAAAA_000110_000111.mp4": 0,
        "val/CCCCCCCCCCC_000000_000001.mp4": 1,
    }
    assert (tmp_path / "out" / "missing.txt").read_text().splitlines() == [
        "train/massaging person's head/-Ab_0#x1234_000007_000008.mp4",
        "train/petting animal (not cat)/BBBBBB_12_3_000000_000001.mp4",
    ]
    assert "1 of 3 train videos are there, 1 of 1 test videos are there; the others are in missing.txt" in index.note
    assert "1 others are in neither split" in index.note
    assert dict(index.excluded) == {
        "train/FFFFFFFFFFF_000000_000010.mp4": "is not in the lists of Kinetics-400",
        "train/holiday.mp4": "is not named as this dataset's videos are",
    }


def test_a_file_in_another_class_s_folder_is_left_out(k400, tmp_path):
    names = [f"train/petting animal (not cat)/{CLIPS[0][1]}_7_8.mp4", "AAAAAAAAAAA_110_111.mp4", "any/CCCCCCCCCCC_0_1.mp4"]
    index = index_k400(k400(*names, all=ANNOTATIONS), tmp_path / "out")
    assert {index.name(video) for video in index.videos} == set(names[1:])
    ((name, reason),) = index.excluded
    assert name == names[0]
    assert reason.startswith("lies in the folder of class petting animal (not cat), but is annotated as massaging person's head")


def test_shorter_files_than_annotated_are_counted(k400, tmp_path):
    text = ANNOTATIONS.replace(",110,111,", ",110,120,")
    source = k400("-Ab_0#x1234_7_8.mp4", "AAAAAAAAAAA_110_120.mp4", "CCCCCCCCCCC_0_1.mp4", all=text)
    note = index_k400(source, tmp_path / "out").note
    assert "1 videos are more than a second shorter than annotated (AAAAAAAAAAA_110_120.mp4 lasts 0.7 of 10 s)" in note


def test_a_video_on_both_sides_of_the_split_is_counted(k400, tmp_path):
    text = ANNOTATIONS + "petting animal (not cat),AAAAAAAAAAA,30,40,val,0\n"
    source = k400("AAAAAAAAAAA_110_111.mp4", "AAAAAAAAAAA_30_40.mp4", "CCCCCCCCCCC_0_1.mp4", all=text)
    assert "1 source videos have clips on both sides of the split, as the lists say" in index_k400(source, tmp_path / "out").note


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no annotations (1 csv files, none with these columns"),
        (HEADER, "has no annotations"),
        ("label,youtube_id\na,b\n", "has no annotations"),
        (HEADER + "a,b,1,2\n", "all.csv: line 2: has 4 values for 6 columns"),
        (HEADER + "a,b,1,2,trian,0\n", "all.csv: line 2: split 'trian' is none of train, val"),
        (HEADER + "a,b,x,2,train,0\n", "all.csv: line 2: time_start is 'x', not a number of seconds"),
        (HEADER + "a,b,10,2,train,0\n", "all.csv: line 2: ends at second 2 and starts at second 10"),
        (HEADER + "a,../b,1,2,train,0\n", "all.csv: line 2: '../b' is not the plain name of a video"),
        (HEADER + "a/../..,b,1,2,train,0\n", "line 2: 'a/../..' is not the plain name"),
        (HEADER + "a,b,1,2,train,0\na,b,1.0,2.0,val,0\n", "all.csv: line 3: names val/a/b_000001_000002.mp4 a second time"),
        (HEADER + "a,b,1,2,train,0\nA,c,1,2,val,0\n", "all.csv: line 3: class 'A' is none of the 1 that have training videos"),
    ],
)
def test_annotations_that_cannot_be_followed_name_file_and_line(k400, tmp_path, text, says):
    with refused(says):
        index_k400(k400("b_1_2.mp4", all=text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_annotations_and_no_text(k400, tmp_path):
    with pytest.raises(UserError, match=r"has no annotations \(0 csv files.*label,youtube_id,time_start,time_end,split"):
        index_k400(k400("b_1_2.mp4"), tmp_path / "out")
    source = k400("b_1_2.mp4", all="")
    (source / "annotations" / "all.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"all.csv: is not text in UTF-8"):
        index_k400(source, tmp_path / "out")
