"""Published datasets in their official layouts, with the lists that the package carries."""

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.folder import stem
from mgm.data.index import Index, read_index, write_index
from mgm.data.published import READERS, carried, derive, list_published, task_digest
from mgm.drawn.params import CLASSES, Synthetic
from mgm.errors import UserError
from mgm.spec import GENERATED, PUBLISHED
from tests.helpers.errors import refused


def rows(listing) -> list[tuple[str, str, str, str]]:
    """Return (name, class, split, group) of each entry."""
    return [
        (video.name, listing.classes[video.label], video.split, video.group)
        for video in listing.videos
    ]


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "diving48"])
def test_the_carried_lists_have_the_official_counts(tmp_path, name):
    classes, listed = READERS[name](tmp_path, 1)
    counts, official = Counter(row.split for row in listed), PUBLISHED[name]
    assert (counts["train"], counts["test"]) == (official.train, official.test)
    assert len(classes) == official.classes
    assert {row.label for row in listed} <= {*classes}
    groups = {(row.group, row.split) for row in listed}
    assert len(groups) == len({group for group, _ in groups})


def test_every_official_split_of_ucf101_is_carried(tmp_path):
    counts = [Counter(row.split for row in READERS["ucf101"](tmp_path, n)[1]) for n in (1, 2, 3)]
    assert [(count["train"], count["test"]) for count in counts] == [
        (9_537, 3_783), (9_586, 3_734), (9_624, 3_696),
    ]  # fmt: skip


@pytest.mark.parametrize("below", ["", "UCF-101/", "deep/er/"])
@pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups"])
def test_ucf101_in_any_folder_and_either_spelling(touch, below, folder):
    archery = f"{below}Archery/v_Archery_g01_c01.avi"
    source = touch(archery, f"{below}{folder}/v_HandStandPushups_g08_c02.avi", f"{below}x.avi")
    listing = list_published("ucf101", source)
    assert [(name.casefold(), *rest[:2]) for name, *rest in rows(listing)] == [
        ("archery/v_archery_g01_c01", "Archery", "test"),
        ("handstandpushups/v_handstandpushups_g08_c02", "HandstandPushups", "train"),
    ]
    assert "absent: 9,536 train and 3,782 test of the 13,320 listed videos" in listing.note


def test_ucf101_with_its_own_lists(touch):
    source = touch("UCF-101/A/v_A_g01_c01.avi", "UCF-101/B/v_B_g08_c01.mp4")
    lists = source / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 A\r\n2 B\r\n")
    (lists / "trainlist02.txt").write_bytes(b"B/v_B_g08_c01.avi 2\r\n")
    (lists / "testlist02.txt").write_bytes(b"A/v_A_g01_c01.avi\r\n")
    assert rows(list_published("ucf101", source, 2)) == [
        ("B/v_B_g08_c01", "B", "train", "B/v_B_g08"), ("A/v_A_g01_c01", "A", "test", "A/v_A_g01"),
    ]  # fmt: skip


def test_an_open_quote_takes_no_row_of_kinetics(touch):
    source, columns = touch("a.mp4"), "label,youtube_id,time_start,time_end,split"
    lines = [columns, '"a,AAAAAAAAAAA,1,2,train', 'b",BBBBBBBBBBB,1,2,train']
    (source / "train.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match="train.csv: line 2: .*put quotes around whole cells"):
        list_published("k400", source)


def test_hmdb51(touch):
    line = carried("hmdb51_split1.txt.xz").splitlines()[0]
    path = line.split()[0]
    assert rows(list_published("hmdb51", touch(f"hmdb51_org/{path}")))[0][:3] == (
        stem(path), "brush_hair", "train",
    )  # fmt: skip
    source = touch("jump/Film_jump_1.avi", "jump/Film_jump_2.avi", "jump/Other_jump_1.avi")
    (source / "splits").mkdir()
    (source / "splits" / "jump_test_split2.txt").write_text(
        "Film_jump_1.avi 1 \nFilm_jump_2.avi 0 \nOther_jump_1.avi 2 \n"
    )
    assert rows(list_published("hmdb51", source, 2)) == [
        ("jump/Film_jump_1", "jump", "train", "jump/Film"),
        ("jump/Other_jump_1", "jump", "test", "jump/Other"),
    ]
    with pytest.raises(UserError, match="split 1 only"):
        list_published("hmdb51", source, 3)


def test_the_sets_own_lists_come_first(touch):
    """They lie beside the class folders, with the word `test` in their names."""
    names = [f"Film{n}_{label}_{n}.avi" for label in ("jump", "run") for n in range(3)]
    source = touch(*(f"{name.split('_')[1]}/{name}" for name in names))
    for label in ("jump", "run"):
        lines = [f"Film{n}_{label}_{n}.avi {n}" for n in range(3)]
        (source / f"{label}_test_split1.txt").write_text(" \n".join(lines))
    found = rows(list_published("hmdb51", source))
    assert [(name, split) for name, _, split, _ in found] == [
        (f"{label}/Film{n}_{label}_{n}", split)
        for label in ("jump", "run") for n, split in ((1, "train"), (2, "test"))
    ]  # fmt: skip


def test_the_first_row_of_a_double_may_count(touch):
    name = "abcdefghijk_000001_000011.mp4"
    source, header = (
        touch(f"train/{name}", f"val/{name}"),
        "label,youtube_id,time_start,time_end,split\n",
    )
    for split in ("train", "val"):
        (source / f"{split}.csv").write_text(f"{header}zumba,abcdefghijk,1,11,{split}\n")
    with pytest.raises(UserError, match="group abcdefghijk is in train .*--first"):
        list_published("k400", source)
    listing = list_published("k400", source, first=True)
    assert [row[0] for row in rows(listing)] == ["train/abcdefghijk_000001_000011"]


def test_diving48(touch):
    name = json.loads(carried("diving48_v2.json.xz"))["Diving48_V2_test"][0]["vid_name"]
    ((found, _, split, group),) = rows(list_published("diving48", touch(f"rgb/{name}.mp4")))
    assert (found, split, group) == (f"rgb/{name}", "test", name.rpartition("_")[0])


@pytest.mark.parametrize("folder", ["labels/", ""])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_ssv2(touch, folder, prefix):
    source = touch("20bn/41.webm", "20bn/50.mp4", "20bn/5.webm", "20bn/7.webm")
    closing, moving = {"template": "Closing [something]"}, {"template": "Moving [something] away"}
    for name, value in {
        "labels": {"Closing something": "1", "Moving something away": "0"},
        "train": [{"id": "41"} | moving, {"id": "50"} | closing, {"id": "51"} | closing],
        "validation": [{"id": "5"} | closing],
        "test": [{"id": "7"}],
    }.items():
        path = source / f"{folder}{prefix}{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    listing = list_published("ssv2", source)
    assert listing.classes == ("Moving something away", "Closing something")
    assert [row[:3] for row in rows(listing)] == [
        ("41", "Moving something away", "train"), ("50", "Closing something", "train"),
        ("5", "Closing something", "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["annotations/", ""])
def test_k400(touch, folder):
    source = touch(
        "train/abcdefghijk_000001_000011.mp4", "class folder/-bcdefghijk_000010_000020.mkv"
    )
    (source / folder).mkdir(exist_ok=True)
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    (source / f"{folder}train.csv").write_text(
        header + 'air drumming,abcdefghijk,1,11,train,0\n"air, drumming",gone5678901,1,11,train,1\n'
    )
    (source / f"{folder}validate.csv").write_text(header + "zumba,-bcdefghijk,10,20,val,0\n")
    (source / f"{folder}test.csv").write_text(header + "zumba,tbcdefghijk,10,20,test,0\n")
    listing = list_published("k400", source)
    assert listing.classes == ("air drumming", "air, drumming", "zumba")
    assert rows(listing) == [
        ("train/abcdefghijk_000001_000011", "air drumming", "train", "abcdefghijk"),
        ("val/-bcdefghijk_000010_000020", "zumba", "test", "-bcdefghijk"),
    ]


def test_lists_of_paths_and_labels_go_before_the_carried_ones(touch):
    source = touch("a.avi", "b.avi")
    for number, (train, val) in enumerate([("a", "b"), ("b", "a")], start=1):
        (source / f"ucf101_train_split_{number}_videos.txt").write_text(f"{train}.avi 0\n")
        (source / f"ucf101_val_split_{number}_videos.txt").write_text(f"{val}.avi 1\n")
    assert [row[:3] for row in rows(list_published("ucf101", source, 2))] == [
        ("b", "0", "train"), ("a", "1", "test"),
    ]  # fmt: skip


def test_a_source_without_lists_or_videos_is_one_line(touch):
    with pytest.raises(UserError, match="no lists of SSv2"):
        list_published("ssv2", touch("1.webm"))
    with pytest.raises(UserError, match="0 of the 13,320 listed videos: ApplyEyeMakeup"):
        list_published("ucf101", touch("x.avi"))


@pytest.fixture
def prepared(tmp_path, stored):
    """Return a function that writes an index: videos are (name, class, split)."""

    def prepared(folder, classes, videos, drawn=None, digest="d"):
        out = tmp_path / folder
        made = tuple(
            stored(out, name, label=classes.index(label), split=split)
            for name, label, split in videos
        )
        write_index(Index(out, tuple(classes), made, named=digest, drawn=drawn))
        return out

    return prepared


def test_a_set_of_videos_is_not_replaced_by_a_derived_one(prepared, tmp_path):
    mine = prepared("mine", ["run"], [("r1", "run", "train"), ("r2", "run", "test")])
    first = derive("shared", mine, mine, tmp_path / "first")
    with refused(f"{mine}: has videos of its own"):
        derive("shared", mine, mine, mine)
    for source, target in ((first.root, mine), (mine, first.root)):
        with refused(f"{first.root}: is what the set is made of"):
            derive("shared", source, target, first.root)
    assert read_index(first.root) == first


def test_a_new_study_of_videos_without_labels_needs_others(prepared, tmp_path):
    mine = prepared(
        "mine", ["unlabelled"], [("a", "unlabelled", "train"), ("b", "unlabelled", "test")]
    )
    words = ["new-study", "--root", str(mine), "--out", str(tmp_path / "s.yaml")]
    done = CliRunner().invoke(app, words)
    assert "has one class (unlabelled), and probes need two" in str(done.exception)
    assert not (tmp_path / "s.yaml").exists()


def test_mini_k200_is_a_part_of_k400(prepared, tmp_path):
    train, test = (carried(f"mini_k200_{split}.txt.xz").split()[0] for split in ("train", "test"))
    videos = [
        (f"train/{train}_000001_000011", "a", "train"), (f"val/{test}_000001_000011", "b", "test"),
        ("train/other678901_000001_000011", "b", "train"), (f"val/{train}_000002_000012", "a", "test"),
    ]  # fmt: skip
    index = derive("mini-k200", prepared("k400", ["a", "b"], videos), None, tmp_path / "mini")
    assert [video.name for video in index.videos] == [name for name, _, _ in videos[:2]]
    assert index == read_index(tmp_path / "mini")
    assert "2 videos of 85,000 listed ids" in index.note


def test_domain_adaptation_follows_the_published_lists(prepared, tmp_path):
    ucf = [
        ("UCF-101/Biking/v_Biking_g08_c01", "Biking", "train"),
        ("RockClimbingIndoor/v_RockClimbingIndoor_g08_c01", "RockClimbingIndoor", "train"),
        ("Archery/v_Archery_g01_c01", "Archery", "test"),
    ]
    lines = carried("pda.csv.xz").splitlines()
    listed = [line.split(",") for line in lines if "ucf14-hmdb7,test,1" in line]
    hmdb = [(stem(listed[0][3]), "dive", "test"), ("dive/unlisted", "dive", "train")]
    source = prepared("ucf101", ["Archery", "Biking", "RockClimbingIndoor"], ucf, digest="one")
    target = prepared("hmdb51", ["dive"], hmdb, digest="two")
    index = derive("ucf14-hmdb7", source, target, tmp_path / "out")
    assert index.classes[:2] == ("RockClimbingIndoor", "Diving")
    assert index.classes[7:10] == ("Punch", "PushUps", "Biking")
    assert [(index.classes[video.label], video.split) for video in index.videos] == [
        ("Biking", "train"), ("RockClimbingIndoor", "train"), ("Diving", "test"),
    ]  # fmt: skip
    assert index.digest == task_digest("ucf14-hmdb7", "one", "two")
    with pytest.raises(UserError, match="--target"):
        derive("ucf14-hmdb7", source, None, tmp_path / "other")


@pytest.mark.parametrize("task", ["ucf14-hmdb7", "hmdb14-ucf7"])
def test_generated_sets_share_their_classes_by_name(prepared, tmp_path, task):
    folders, params = [], []
    for kind in PUBLISHED[task].derived_from:
        drawn = Synthetic(kind=kind)
        videos = [
            (f"{split}{n}", name, split)
            for n, name in enumerate(drawn.names)
            for split in ("train", "test")
        ]
        fields = drawn.model_dump(mode="json")
        folders.append(prepared(kind, drawn.names, videos, fields, drawn.digest))
        params.append(drawn)
    index = derive(task, *folders, tmp_path / "out")
    assert index.classes == CLASSES[params[0].kind]
    assert (len(index.train), len(index.test)) == (14, 7)
    goal = read_index(folders[1])
    assert {index.classes[video.label] for video in index.test} == {*goal.classes} & {
        *index.classes
    }
    # The digest is known before anything is drawn.
    assert index.digest == task_digest(task, *(each.digest for each in params))
    assert index.note.startswith(GENERATED)


def test_a_task_keeps_its_digest():
    assert task_digest("ucf14-hmdb7", "8bdfbb08085a", "ab1118cbe121") == "72e68e22bdb7"


def test_any_two_prepared_sets_may_share_classes_by_name(prepared, tmp_path):
    both = [("r1", "run", "train"), ("r2", "run", "test"), ("w1", "walk", "train")]
    source = prepared("mine", ["run", "walk"], both, digest="one")
    goal = [("x1", "walk", "test"), ("x2", "walk", "train"), ("j1", "jump", "test")]
    target = prepared("yours", ["jump", "walk"], goal, digest="two")
    index = derive("shared", source, target, tmp_path / "out")
    assert index.classes == ("walk", "run")
    found = [(video.name, index.classes[video.label], video.split) for video in index.videos]
    assert found == [("r1", "run", "train"), ("w1", "walk", "train"), ("x1", "walk", "test")]
    assert index.digest == task_digest("shared", "one", "two")
    swum = [("s1", "swim", "test"), ("s2", "swim", "train")]
    other = prepared("other", ["swim"], swum)
    with pytest.raises(UserError, match="no class has the name"):
        derive("shared", source, other, tmp_path / "none")
