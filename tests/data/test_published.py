"""Published datasets, in the layouts that their users have.

Videos that are there are indexed; missing ones are listed and counted.
"""

from functools import partial
from pathlib import Path

import pytest

from mgm.data.index import read_index
from mgm.data.prepare import summary
from mgm.data.published import index_published
from mgm.data.published.json_lists import index_ssv2
from mgm.data.published.k400 import index_k400
from mgm.data.published.text_lists import carried_hmdb51_lists as hmdb51_lists
from mgm.data.published.text_lists import carried_ucf101_lists as carried_lists
from mgm.data.published.text_lists import index_hmdb51, index_ucf101
from mgm.spec import PUBLISHED
from tests.helpers.errors import refused


def rows(index) -> list[tuple[str, int, str, str]]:
    return [(index.name(video), video.label, video.split, video.group) for video in index.videos]


def missing(out: Path) -> list[str]:
    return (out / "missing.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("folder", ["labels/", ""])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_ssv2_lists_of_either_name_are_read(build, tmp_path, folder, prefix):
    closing, moving = (
        {"template": template, "label": "x"}
        for template in ("Closing [something]", "Moving [something] away")
    )
    lists = {
        "labels": {"Closing something": "1", "Moving something away": "0"},
        "train": [{"id": "41"} | moving, {"id": "50"} | closing, {"id": "51"} | closing],
        "validation": [{"id": "5"} | closing],
        "test": [{"id": "7"}, {"id": "8"}],
    }
    lists = {f"{folder}{prefix}{name}.json": value for name, value in lists.items()}
    index = index_ssv2(
        build("v/41.mp4", "v/50.mp4", "v/5.mp4", "v/7.mp4", lists=lists), tmp_path / "out"
    )
    assert index.classes == ("Moving something away", "Closing something")
    assert rows(index) == [
        ("v/41.mp4", 0, "train", "41"),
        ("v/50.mp4", 1, "train", "50"),
        ("v/5.mp4", 1, "test", "5"),
    ]
    assert (index.excluded, missing(tmp_path / "out")) == ((), ["51.webm"])
    for said in (
        "2 of 3 train videos are there, 1 of 1 test videos are there",
        "the lists in the source differ from the official 168,913 train and 24,777 test videos",
        "1 others are in neither split",
    ):
        assert said in index.note


def test_diving48_by_its_own_lists_and_by_the_carried_ones(build, tmp_path):
    def dive(name, label) -> dict:
        return {"vid_name": name, "label": label, "start_frame": 0, "end_frame": 8}

    names, index_diving48 = (
        ("-a_b_00001", "-a_b_00002", "c_00001"),
        partial(index_published, "diving48"),
    )
    lists = {
        "Diving48_V2_train.json": [dive(names[0], 0), dive(names[1], 1), dive("d_00007", 0)],
        "Diving48_V2_test.json": [dive(names[2], 1)],
        "Diving48_vocab.json": [
            ["Back", "15som", "NoTwis", "PIKE"],
            ["Forward", "15som", "NoTwis", "TUCK"],
        ],
    }
    index = index_diving48(
        build(*(f"rgb/{name}.mp4" for name in names), lists=lists), tmp_path / "out"
    )
    assert index.classes == ("Back, 15som, NoTwis, PIKE", "Forward, 15som, NoTwis, TUCK")
    assert [row[1:] for row in rows(index)] == [
        (0, "train", "-a_b"),
        (1, "train", "-a_b"),
        (1, "test", "c"),
    ]
    assert missing(tmp_path / "out") == ["rgb/d_00007.mp4"]
    assert "differ from the official 15,027 train and 1,970 test videos" in index.note
    assert "shorter" not in index.note

    index = index_diving48(
        build("rgb/-mmq0PT-u8k_00155.mp4", "rgb/8qRmKunCjtY_00016.mp4"), tmp_path / "carried"
    )
    assert [row[1:] for row in rows(index)] == [
        (0, "train", "-mmq0PT-u8k"),
        (0, "test", "8qRmKunCjtY"),
    ]
    assert "1 of 15,027 train videos are there, 1 of 1,970 test videos are there" in index.note
    assert "official" not in index.note
    assert (
        "2 videos are shorter than the lists say (rgb/-mmq0PT-u8k_00155.mp4 has 8 of 48 frames)"
        in index.note
    )


@pytest.mark.parametrize("below", ["hmdb51_org/", "", "hmdb51/videos/"])
def test_a_part_of_hmdb51_is_indexed_by_the_carried_lists(build, tmp_path, below):
    lists = hmdb51_lists()
    # One video for each odd character; more would be opened in several processes.
    odd = {
        char: entry
        for entry in lists.entries.values()
        for char in set(entry.name) & set("()[]#;!&+@")
    }
    assert len(odd) == 10
    some = [
        *dict.fromkeys(odd.values()),
        next(entry for entry in lists.entries.values() if entry.split == "test"),
    ]
    names = [entry.name for entry in some] + [f"{sorted(lists.unused)[0]}.avi"]
    index = index_hmdb51(build(*(below + name for name in names)), tmp_path / "out")
    assert (index.classes, index.excluded) == (lists.classes, ())
    assert set(rows(index)) == {
        (below + entry.name, entry.label, entry.split, entry.group) for entry in some
    }
    assert "1 others are in neither split, as the lists say" in index.note
    assert len(missing(tmp_path / "out")) == sum(PUBLISHED["hmdb51"].official) - len(some)


@pytest.mark.parametrize("split", [1, 2])
def test_hmdb51_lists_beside_the_videos_are_followed_with_their_marks(build, tmp_path, split):
    lists = {
        "jump": "a_jump_0.avi 1 \r\nb_jump_0.avi 2 \r\nc_jump_0.avi 0 \r\n",
        "hug": "a b_hug_0.avi 1\n\nd_hug_0.avi 2\n",
    }
    names = (
        "jump/a_jump_0.avi",
        "jump/b_jump_0.avi",
        "jump/c_jump_0.avi",
        "hug/a b_hug_0.avi",
        "hug/d_hug_0.mp4",
    )
    source = build(
        *names, lists={f"splits/{name}_test_split{split}.txt": text for name, text in lists.items()}
    )
    index = index_hmdb51(source, tmp_path / "out", split)
    assert index.classes == ("hug", "jump")
    assert set(rows(index)) == {
        (names[0], 1, "train", "jump/a"),
        (names[1], 1, "test", "jump/b"),
        (names[3], 0, "train", "hug/a b"),
        (names[4], 0, "test", "hug/d"),
    }
    assert (
        "the lists in the source differ from the official 3,570 train and 1,530 test videos"
        in index.note
    )
    with refused("*_test_split3.txt"):
        index_hmdb51(source, tmp_path / "out", 3)


HERE = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi",
    "HandstandPushups/v_HandStandPushups_g07_c01.avi",
    "YoYo/v_YoYo_g25_c01.avi",
)


@pytest.mark.parametrize("below", ["UCF-101/", ""])
def test_a_part_of_ucf101_is_indexed_and_the_rest_is_listed(build, tmp_path, below):
    source = build(*(below + name for name in HERE))
    index = index_ucf101(source, tmp_path / "out")
    assert index == read_index(tmp_path / "out")
    assert len(index.classes) == 101
    assert rows(index) == [
        (HERE[0], 0, "test", "v_ApplyEyeMakeup_g01"),
        (HERE[1], 0, "train", "v_ApplyEyeMakeup_g08"),
        (HERE[2], 36, "test", "v_HandStandPushups_g07"),  # 37 in classInd.txt, which counts from 1
        (HERE[3], 100, "train", "v_YoYo_g25"),
    ]
    assert len(missing(tmp_path / "out")) == 13_320 - 4
    assert {*missing(tmp_path / "out"), *HERE} == {
        entry.name for entry in carried_lists(1).entries.values()
    }
    assert (
        "2 of 9,537 train videos are there, 2 of 3,783 test videos are there; the others are in "
        "missing.txt" in index.note
    )
    assert summary(index).endswith("classes without videos: 98")
    other = {
        video.path: video.split for video in index_ucf101(source, tmp_path / "two", split=2).videos
    }
    assert [other[video.path] for video in index.videos] == ["train", "test", "train", "train"]


K400 = (  # class, id, start, split
    ("massaging person's head", "-Ab_0#x1234", 7, "train"),
    ("massaging person's head", "AAAAAAAAAAA", 110, "train"),
    ("petting animal (not cat)", "BBBBBB_12_3", 0, "train"),
    ("petting animal (not cat)", "CCCCCCCCCCC", 0, "val"),
)
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
ANNOTATIONS = HEADER + "".join(
    f"{label},{name},{start},{start + 1},{split},0\n" for label, name, start, split in K400
)
ARRANGEMENTS = {
    "class folders": "{split}/{label}/{name}_{start:06}_{end:06}.mp4",
    "underscores": "{split}/{under}/{name}_{start:06}_{end:06}.mkv",
    "flat": "{split}/{name}_{start:06}_{end:06}.mp4",
    "one folder": "videos/{name}_{start}_{end}.webm",
    "classes alone": "{label}/{name}_{start:06}_{end:06}.MP4",
}


@pytest.fixture
def k400(build, tmp_path):
    """Return a function that indexes videos of K400 with these annotations."""
    return lambda *names, text=ANNOTATIONS, **more: index_k400(
        build(*names, lists={"annotations/a.csv": text} | more), tmp_path / "out"
    )


@pytest.mark.parametrize("pattern", ARRANGEMENTS.values(), ids=ARRANGEMENTS)
def test_every_arrangement_of_k400_is_read_alike(k400, pattern):
    names = [
        pattern.format(
            label=label,
            under=label.replace(" ", "_"),
            name=name,
            start=start,
            end=start + 1,
            split=split,
        )
        for label, name, start, split in K400
    ]
    index = k400(*names)
    assert index.classes == ("massaging person's head", "petting animal (not cat)")
    assert rows(index) == [
        (name, int(label.startswith("petting")), "test" if split == "val" else "train", identity)
        for name, (label, identity, _, split) in zip(names, K400, strict=True)
    ]
    assert index.excluded == ()
    assert "3 of 3 train videos are there, 1 of 1 test videos are there" in index.note


def test_dead_links_of_k400_are_counted_and_listed(k400, tmp_path):
    """Rows of the test split are ignored, with or without their clips and classes.

    Other tables are ignored too.
    """
    lists = {
        "annotations/test.csv": HEADER + ",DDDDDDDDDDD,5,15,test,0\n,EEEEEEEEEEE,5,15,test,0\n",
        "annotations/x.csv": "path,label\n",
    }
    here, aside = (
        ["train/AAAAAAAAAAA_000110_000111.mp4", "val/CCCCCCCCCCC_000000_000001.mp4"],
        "test/DDDDDDDDDDD_000005_000015.mp4",
    )
    index = k400(*here, aside, "train/FFFFFFFFFFF_000000_000010.mp4", "train/holiday.mp4", **lists)
    assert [row[:2] for row in rows(index)] == [(here[0], 0), (here[1], 1)]
    assert missing(tmp_path / "out") == [
        "train/massaging person's head/-Ab_0#x1234_000007_000008.mp4",
        "train/petting animal (not cat)/BBBBBB_12_3_000000_000001.mp4",
    ]
    assert (
        "1 of 3 train videos are there, 1 of 1 test videos are there; the others are in missing.txt"
        in index.note
    )
    assert "1 others are in neither split" in index.note
    assert dict(index.excluded) == {
        "train/FFFFFFFFFFF_000000_000010.mp4": "is not in the lists of Kinetics-400",
        "train/holiday.mp4": "is not named as this dataset's videos are",
    }


def test_a_file_in_the_folder_of_another_class_is_left_out(k400):
    names = [
        f"train/petting animal (not cat)/{K400[0][1]}_7_8.mp4",
        "AAAAAAAAAAA_110_111.mp4",
        "any/CCCCCCCCCCC_0_1.mp4",
    ]
    index = k400(*names)
    assert [row[0] for row in rows(index)] == names[1:]
    ((name, reason),) = index.excluded
    assert name == names[0]
    assert reason.startswith(
        "is in the folder of class petting animal (not cat), but is annotated as massaging "
        "person's head"
    )


def test_short_files_and_videos_on_both_sides_are_counted(k400):
    text = (
        ANNOTATIONS.replace(",110,111,", ",110,120,")
        + "petting animal (not cat),AAAAAAAAAAA,30,31,val,0\n"
    )
    note = k400(
        "AAAAAAAAAAA_110_120.mp4", "AAAAAAAAAAA_30_31.mp4", "CCCCCCCCCCC_0_1.mp4", text=text
    ).note
    assert (
        "1 videos are shorter than the lists say (AAAAAAAAAAA_110_120.mp4 lasts 0.7 "
        "of 10 s)" in note
    )
    assert "1 source videos have clips on both sides of the split, as the lists say" in note
