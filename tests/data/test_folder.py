import os
import random

import pytest

from mgm.data.folder import list_folder, split_by_hash
from mgm.data.lists import Row
from mgm.data.prepare import look_alike
from mgm.errors import UserError
from tests.helpers.errors import refused


def rows(listing) -> dict[str, tuple[str, str]]:
    """Return {name: (class, split)} of a listing."""
    return {video.name: (listing.classes[video.label], video.split) for video in listing.videos}


def test_class_folders(touch):
    source = touch("run/a.mp4", "run/deep/b.AVI", "walk/c.webm", "loose.mp4", "walk/notes.txt")
    touch(".hidden/d.mp4", "walk/.e.mp4")
    made = list_folder(source)
    assert {name: label for name, (label, _) in rows(made).items()} == {
        "run/a": "run", "run/deep/b": "run", "walk/c": "walk",
    }  # fmt: skip
    assert made.excluded == (("loose.mp4", "is not in a class folder, so it has no label"),)


def test_a_flat_folder_has_no_labels(touch):
    made = list_folder(touch("a.mp4", "b.mp4", "c.mkv"))
    assert made.classes == ("unlabelled",)
    assert len(made.videos) == 3


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Train", "VAL"), ("training", "validation"), ("train_set", "dev")]
)
def test_folders_of_splits_are_splits(touch, names):
    made = list_folder(touch(*(f"{name}/{label}/x.mp4" for name in names for label in ("a", "b"))))
    assert made.classes == ("a", "b")
    for name, split in zip(names, ("train", "test"), strict=True):
        assert rows(made)[f"{name}/a/x"] == ("a", split)


def test_a_video_next_to_the_class_folders_of_a_split_is_named(touch):
    made = list_folder(touch("train/a/1.mp4", "train/2.mp4", "test/a/3.mp4", "4.mp4"))
    assert {*rows(made)} == {"train/a/1", "test/a/3"}
    assert [name for name, _ in made.excluded] == ["4.mp4", "train/2.mp4"]


@pytest.mark.parametrize("where", ["{split}/{label}", "set/{split}/{label}", "{label}/{split}"])
def test_folders_of_splits_elsewhere_are_no_classes(touch, where):
    """As train, test and more at the top, in a folder of the download, or below each class."""
    places = [
        where.format(split=split, label=label) for split in ("train", "test") for label in "ab"
    ]
    with pytest.raises(UserError, match="folders of splits"):
        list_folder(touch("more/a/1.mp4", *(f"{place}/1.mp4" for place in places)))


def test_of_val_and_test_one_is_tested_on_and_the_other_is_counted(touch):
    source = touch("train/a/1.mp4", "val/a/2.mp4", "test/a/3.mp4", "test/a/4.mp4")
    made = list_folder(source)
    assert set(rows(made)) == {"train/a/1", "test/a/3", "test/a/4"}
    assert "val: 1 videos are not used" in made.note
    made = list_folder(source, test="val")
    assert rows(made) == {"train/a/1": ("a", "train"), "val/a/2": ("a", "test")}
    assert "test: 2 videos are not used" in made.note
    with pytest.raises(UserError, match="--test val"):
        list_folder(touch("train/a/1.mp4", "test/a/3.mp4", below="two"), test="val")


def test_a_lone_split_folder_or_a_class_called_train_is_no_split(touch):
    lone = list_folder(touch(*(f"train/{label}/{n}.mp4" for label in "ab" for n in range(9))))
    assert lone.classes == ("a", "b")
    assert {split for _, split in rows(lone).values()} == {"train", "test"}
    vehicles = list_folder(touch("train/1.mp4", "bus/2.mp4", below="vehicles"))
    assert vehicles.classes == ("bus", "train")


@pytest.mark.parametrize(
    ("groups", "share"),
    [(5, (0.2, 0.34)), (10, (0.17, 0.26)), (50, (0.18, 0.23)), (500, (0.19, 0.21))],
)
def test_about_a_fifth_of_each_class_is_tested_on(tmp_path, groups, share):
    labels = range(max(4000 // groups, 20))
    rows = [
        Row("0.mp4", f"c{label}", "", f"{label} {n}") for label in labels for n in range(groups)
    ]
    split = [row.split for row in split_by_hash(rows)]
    assert share[0] < split.count("test") / len(split) < share[1]
    for label in labels:
        assert {*split[label * groups : (label + 1) * groups]} == {"train", "test"}


def test_a_split_is_a_function_of_the_names(touch):
    """Neither order, other classes, nor an earlier call with fewer videos matters."""
    names = [f"c{label}/{n:02}.mp4" for label in range(4) for n in range(12)]
    rows = [Row(name, name[:2]) for name in names]
    whole = {row.path: row.split for row in split_by_hash(rows)}
    draw = random.Random(0)
    for _ in range(20):
        draw.shuffle(rows)
        assert {row.path: row.split for row in split_by_hash(rows)} == whole
    made = list_folder(touch(*names))
    assert {video.source: video.split for video in made.videos} == whole
    lone = {row.path: row.split for row in split_by_hash([r for r in rows if r.label == "c1"])}
    assert lone.items() <= whole.items()
    # Others move only where a class's ends change.
    few = {row.path: row.split for row in split_by_hash(draw.sample(rows, 40))}
    assert sum(whole[path] != split for path, split in few.items()) <= 8


def test_persons_of_several_classes_are_whole(tmp_path):
    rows = [Row("0.mp4", f"c{n % 3}", "", f"person {n // 4}") for n in range(80)]
    side = {}
    for row in split_by_hash(rows):
        side.setdefault(row.group, set()).add(row.split)
    assert {len(own) for own in side.values()} == {1}
    assert {*map(min, side.values())} == {"train", "test"}


def test_two_files_that_differ_in_their_suffix_have_two_names(touch):
    assert {*rows(list_folder(touch("a/1.mp4", "a/1.avi", "b/1.mp4")))} == {
        "a/1.mp4", "a/1.avi", "b/1",
    }  # fmt: skip


def test_a_link_to_its_own_parent_adds_no_video(touch):
    source = touch("a/1.mp4", "b/2.mp4")
    (source / "a/up").symlink_to(source)
    # Nor does a second way to a folder, which is told: its videos have one class.
    (source / "c").symlink_to("a")
    made = list_folder(source)
    assert {*rows(made)} == {"a/1", "b/2"}
    assert "2 links to folders that are read already (a/up, c)" in made.note


def test_groups_that_look_alike_are_on_one_side(tmp_path):
    for group in range(40):
        own = [
            Row("0.mp4", "a", "", name) for name in (f"P{group}", f"p 0{group}", f"p\u00a0{group}")
        ]
        others = [Row("0.mp4", "a", "", f"q{n}") for n in range(9)]
        assert len({row.split for row in split_by_hash([*own, *others])[:3]}) == 1


@pytest.mark.parametrize(
    "name",
    [
        "می\u200cروم",
        "👨\u200d👩",
        "走る\u3000人",
        "jump\u00a0rope",
        "a\u202fb",
        "ü",
        "👍🏽",
        "#1",
        "a;b",
    ],
)
def test_a_class_may_have_any_letter_that_is_seen(touch, name):
    made = list_folder(touch(f"{name}/1.mp4", f"{name}/2.mp4", "b/3.mp4"))
    assert {*made.classes} == {name, "b"}
    assert not made.excluded


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        (b"caf\xe9", "U+DCE9"), (b"a\tb", "U+0009"), ("a\u200bb".encode(), "U+200B"),
        ("a\u200c".encode(), "U+200C"), ("a \u200db".encode(), "U+200D"),
        ("a\u202eb".encode(), "U+202E"), ("a\u2028b".encode(), "U+2028"),
    ],
)  # fmt: skip
def test_a_name_with_an_unseen_letter_is_left_out_with_its_code_point(touch, name, mark):
    source = touch("a/1.mp4", "a/2.mp4", "b/2.mp4")
    (source / os.fsdecode(name)).mkdir()
    (source / os.fsdecode(name) / "3.mp4").touch()
    made = list_folder(source)
    assert made.classes == ("a", "b")
    ((_, reason),) = made.excluded
    assert mark in reason


def test_hidden_folders_and_those_of_systems_are_counted(touch):
    source = touch("a/1.mp4", "b/2.mp4", "a/@eaDir/1.mp4/thumb.mp4", "#recycle/a/3.mp4")
    touch("lost+found/4.mp4", ".trash/5.mp4", "a/._1.mp4", "a/.notes.txt")
    made = list_folder(source)
    assert made.classes == ("a", "b")
    assert (
        "5 hidden videos are not used (#recycle, ._1.mp4, .trash, @eaDir, lost+found)" in made.note
    )


def touched(folder, name) -> str:
    (folder / name).touch()
    return name


def test_a_csv(touch):
    source = touch("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.bin")
    (source / "videos.csv").write_bytes(
        "\ufeffgroup,path,label,split\r\np1,a/1.mp4,no,train\r\np1,./a/2.mp4,nab,Train\r\n"
        'p2,b/3.mp4,"007",val\r\np3,b/4.bin,0x,val\r\n'.encode()
    )
    made = list_folder(source)
    assert made.classes == ("007", "0x", "nab", "no")
    assert rows(made) == {
        "a/1": ("no", "train"), "a/2": ("nab", "train"), "b/3": ("007", "test"),
        "b/4.bin": ("0x", "test"),
    }  # fmt: skip
    assert {video.group for video in made.videos} == {"p1", "p2", "p3"}
    assert rows(list_folder(source / "videos.csv")) == rows(made)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file,label\na.mp4,x\n", "line 1 is not PATH.*the column of the videos is `path`"),
        ("path,label\na.mp4,x\nb.mp4,NaN\n", "line 3: label 'NaN' says that it is missing"),
        ("path,label,group\na.mp4,x,g\nb.mp4,x,\n", r"line 3 has no group.*\(1 of 2 lack it"),
        ("path,split,group\na.mp4,train,P 1\nb.mp4,test,p01\n", "group p01, or 'P 1', which looks"),
        ("path,label\na.mp4,x\na.mp4,y\n", "line 3: lists a.mp4 as y, and .*line 2 as x.*--first"),
        ("path,label\nno.mp4,x\n", "0 of the 1 listed videos: no.mp4"),
        ("path,split,group\na.mp4,train,g\nb.mp4,test,g\n", "line 3: group g is in train"),
    ],
)
def test_a_wrong_csv_is_one_line(touch, text, fault):
    source = touch("a.mp4", "b.mp4")
    (source / "videos.csv").write_text(text)
    with pytest.raises(UserError, match=fault):
        list_folder(source)


@pytest.mark.parametrize(("suffix", "separator", "frames"), [("csv", ",", ""), ("txt", " ", "9")])
def test_lists_of_paths_and_labels(touch, suffix, separator, frames):
    """Lists as VideoMAE (csv) and mmaction2 (txt) have them."""
    source = touch("deep/my clip.mp4", "deep/b.mkv", "deep/c.mp4", "deep/twice.mp4", "twice.mp4")

    def line(*cells):
        return separator.join(filter(None, (cells[0], frames, cells[1])))

    for name, lines in {
        f"kinetics_train_list_videos.{suffix}": [line("my clip.mp4", "10"), line("b.mp4", "9")],
        f"kinetics_val_list_videos.{suffix}": [
            *(line("deep/c", "9"), line("gone.mp4", "9"), line("x/twice.mp4", "10"))
        ],
    }.items():
        (source / name).write_text("\r\n".join(lines) + "\r\n")
    made = list_folder(source)
    assert made.classes == ("9", "10")
    assert rows(made) == {
        "my clip": ("10", "train"), "b": ("9", "train"), "deep/c": ("9", "test"),
    }  # fmt: skip
    assert [video.source for video in made.videos][:2] == ["deep/my clip.mp4", "deep/b.mkv"]
    assert "absent: 2 test of the 5 listed videos (gone.mp4, x/twice.mp4)" in made.note
    assert "2 videos were found in other folders than listed" in made.note


def test_an_absent_video_is_replaced_by_no_other(touch):
    """The folder is given; the name has two files; or another row lists the only file."""
    source = touch("cat/1.mp4", "cat/3.mp4", "dog/4.mp4", "x/5.mp4", "y/5.mp4", "old/1.mp4")
    listed = ["cat/1.mp4,cat,train", "dog/3.mp4,dog,train", "dog/4.mp4,dog,test"]
    listed += ["5.mp4,dog,train", "4.mp4,cat,test"]
    (source / "videos.csv").write_text("\n".join(["path,label,split", *listed]))
    made = list_folder(source)
    assert [video.source for video in made.videos] == ["cat/1.mp4", "dog/4.mp4"]
    assert (
        "absent: 2 train and 1 test of the 5 listed videos (dog/3.mp4, 5.mp4, 4.mp4)" in made.note
    )


def test_lists_of_absolute_paths(touch):
    """VideoMAE's lists have the paths of the machine that they were made on."""
    source = touch("train/a.mp4", "val/b.mp4", "val/c.mp4")
    (source / "train.csv").write_text(f"{source}/train/a.mp4 0\n")
    (source / "val.csv").write_text("/of/another/val/b.mp4 1\n/of/another/train/c.mp4 1\n")
    made = list_folder(source)
    assert rows(made) == {"train/a": ("0", "train"), "val/b": ("1", "test")}
    assert "absent: 1 test of the 3" in made.note


def test_a_clip_in_two_lists_is_named_with_the_way_out(touch):
    source = touch("a.mp4", "b.mp4")
    (source / "train.txt").write_text("a.mp4 0\nb.mp4 1\n")
    (source / "test.txt").write_text("b.mp4 1\na.mp4 0\na.mp4 0\n")
    with pytest.raises(
        UserError, match=r"train.txt: line 1: lists a.mp4 .*test.txt: line 2 .*--first"
    ):
        list_folder(source)
    (source / "train.txt").write_text("a.mp4 0\n")
    made = list_folder(source, first=True)
    assert rows(made) == {"b": ("1", "test"), "a": ("0", "test")}
    assert "2 rows list a video again, or a group" in made.note


def test_lists_as_ucf101_has_them(touch):
    """Numbered lists, class names in a file, and a list of a test split without labels."""
    source = touch("A/1.avi", "A/2.avi", "B/3.avi", "B/4.avi")
    (source / "classInd.txt").write_bytes(b"1 A\r\n2 B\r\n")
    (source / "trainlist01.txt").write_text("A/1.avi 1\nB/3.avi 2\n")
    (source / "testlist01.txt").write_text("A/2.avi\nB/4.avi\n")
    (source / "trainlist02.txt").write_text("A/2.avi 1\n")
    made = list_folder(source)
    assert rows(made) == {
        "A/1": ("A", "train"), "B/3": ("B", "train"), "A/2": ("A", "test"), "B/4": ("B", "test"),
    }  # fmt: skip
    assert made.excluded == (("trainlist02.txt", "is of split 2, and not used"),)
    # Without names, the folders still say which label is which.
    (source / "classInd.txt").unlink()
    assert rows(list_folder(source))["B/4"] == ("2", "test")
    (source / "testlist01.txt").write_text("A/2.avi\nC/4.avi\n")
    with pytest.raises(UserError, match=r"testlist01.txt: line 2 has no label"):
        list_folder(source)


def test_class_names_that_contradict_the_folders_are_refused(touch):
    """As mmaction2's lists, which count from 0, with UCF101's names, which count from 1."""
    source = touch("A/1.avi", "B/2.avi", "C/3.avi")
    (source / "classInd.txt").write_text("1 A\n2 B\n3 C\n")
    (source / "train.txt").write_text("B/2.avi 1\n")
    (source / "test.txt").write_text("C/3.avi 2\n")
    with pytest.raises(UserError, match=r"test.txt: line 1: label 2 is class B, in folder C"):
        list_folder(source)
    (source / "train.txt").write_text("A/1.avi 0\nB/2.avi 1\n")
    made = list_folder(source)
    assert "classInd.txt does not number these classes, and is not used" in made.note
    assert made.classes == ("0", "1", "2")


def test_a_list_is_used_or_named(touch):
    source = touch("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4", "notes.txt", "train_log.txt")
    (source / "labels.txt").write_text("a/1.mp4 0\n")
    (source / "train_log.txt").write_text("began\nended\n")
    made = list_folder(source)
    assert made.classes == ("a", "b")
    assert [name for name, _ in made.excluded] == ["labels.txt", "train_log.txt"]
    (source / "test.txt").write_text("a/1.mp4 0\n")
    with pytest.raises(UserError, match=r"has lists \(test.txt\), and none of train"):
        list_folder(source)
    (source / "train.txt").write_text("a/2.mp4 0\nb/3.mp4\n")
    with pytest.raises(UserError, match="train.txt: line 2 has 0 numbers"):
        list_folder(source)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("labels.csv", "path,label\na/1.mp4,x\n".encode("utf-16"), "is not text in UTF-8"),
        ("labels.json", b'{"a/1.mp4": "x"}', "lists videos, and is not used"),
        ("train.txt", b"a/1 8 0\na/2\n", "line 2 is not PATH"),
        ("train.txt", b"", "lists no video"),
        ("._train.txt", b"\0\xff", ""),
    ],
)
def test_what_may_be_a_list_is_named(touch, name, data, reason):
    source = touch("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4")
    (source / name).write_bytes(data)
    os.mkfifo(source / "pipe.csv")
    (source / "folder.txt").mkdir()
    excluded = list_folder(source).excluded
    assert [left for left, _ in excluded] == [name] * bool(reason)
    assert all(reason in why for _, why in excluded)


def test_a_list_of_a_split_is_never_left_out(touch):
    source = touch("a/1.mp4", "b/2.mp4", "test.txt")
    (source / "train.txt").write_bytes("a/1.mp4 0\n".encode("utf-16"))
    with pytest.raises(UserError, match="train.txt: is not text in UTF-8"):
        list_folder(source)
    (source / "train.txt").unlink()
    (source / "train.txt").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match="train.txt"):
        list_folder(source)


def test_a_word_for_no_label_is_a_class_if_a_list_of_classes_or_a_folder_says_so(touch):
    source = touch("a/1.mp4", "a/2.mp4", "None/3.mp4", "None/4.mp4")
    assert list_folder(source).classes == ("None", "a")
    (source / "videos.csv").write_text("path,label\na/1.mp4,a\na/2.mp4,None\n")
    with pytest.raises(UserError, match="line 3: label 'None' .* 1 of 2 rows"):
        list_folder(source)
    (source / "classInd.txt").write_text("1 a\n2 None\n")
    assert list_folder(source).classes == ("None", "a")


@pytest.mark.parametrize("names", [("clips_train", "clips_val"), ("TRAIN data", "k400 test")])
def test_top_folders_that_have_a_word_of_a_split_are_splits(touch, names):
    made = list_folder(
        touch(*(f"{name}/{c}/{n}.mp4" for name in names for c in "ab" for n in "12"))
    )
    assert made.classes == ("a", "b")
    assert {split for name, (_, split) in rows(made).items() if name.startswith(names[1])} == {
        "test"
    }
    touch("more/a/1.mp4")
    with pytest.raises(UserError, match="folders of splits"):
        list_folder(touch("more/a/1.mp4"))


def test_folders_with_the_same_folders_below_are_told(touch):
    made = list_folder(touch(*(f"part{n}/{c}/1.mp4" for n in (1, 2) for c in ("run", "walk"))))
    assert "all class folders have the same folders below (run, walk)" in made.note


def test_what_is_no_video_is_counted_by_suffix_and_texts_at_any_depth_are_named(touch):
    source = touch(
        "a/1.mp4", "a/2.f4v", "b/3.MOD", "b/4.xyz", "b/5.xyz", "c/6.jpg", "b/deep/note.txt"
    )
    (source / "b/deep/labels.csv").write_text("path,label\n1.mp4,x\n")
    made = list_folder(source)
    assert {*rows(made)} == {"a/1", "a/2", "b/3"}
    assert "other files: 1 with suffix .jpg (c), 2 with suffix .xyz (b)" in made.note
    ((name, reason),) = made.excluded
    assert name == "b/deep/labels.csv"
    assert "pass it as --source" in reason


def test_each_video_has_a_name_of_its_own(touch):
    """Two files differ in their suffix alone, and a third one is called as one of them."""
    source = touch("c/a.mp4", "c/a.avi", "c/a.mp4.mkv", "c/b.mp4", "d/e.mp4", "d/f.mp4")
    names = {video.name for video in list_folder(source).videos}
    assert names == {"c/a.mp4", "c/a.avi", "c/a.mp4.mkv", "c/b", "d/e", "d/f"}


@pytest.mark.parametrize("text", ["", "file_name,label\n", "# nothing\n"])
def test_metadata_without_rows_does_not_hide_the_folders(touch, text):
    source = touch("c/a.mp4", "c/b.mp4", "d/e.mp4", "d/f.mp4")
    (source / "metadata.csv").write_text(text)
    assert list_folder(source).classes == ("c", "d")


def test_a_class_file_that_is_not_needed_is_not_read(touch):
    source = touch("a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (source / "train.txt").write_text("a.mp4 0\nb.mp4 1\n")
    (source / "test.txt").write_text("c.mp4 0\nd.mp4 1\n")
    (source / "classes.txt").write_text("0 dog\n1 cat\n")
    (source / "labels_old.txt").write_bytes(b"\xff\xfe 0")
    assert list_folder(source).classes == ("cat", "dog")


def test_a_column_that_is_read_over_has_whole_numbers_in_each_copy(touch):
    path = touch("a.mp4", "b.mp4") / "videos.csv"
    path.write_text("path,label,,\na.mp4,0,junk,\nb.mp4,1,,\n")
    with refused(f"{path}: line 2", "'junk'"):
        list_folder(path.parent)


def test_metadata_of_val_alone_is_without_a_split(touch):
    source = touch(*(f"validation/{n}.mp4" for n in range(8)))
    lines = [f"{n}.mp4,{'ab'[n % 2]}" for n in range(8)]
    (source / "validation" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    assert {video.split for video in list_folder(source).videos} == {"train", "test"}


def test_a_line_of_metadata_with_a_column_twice_is_named(touch):
    path = touch("a.mp4", "b.mp4") / "metadata.jsonl"
    twice = '{"file_name": "b.mp4", "label": "x", "label": "y"}'
    path.write_text(f'{{"file_name": "a.mp4", "label": "x"}}\n{twice}\n')
    with refused(f"{path}: line 2", "label twice"):
        list_folder(path.parent)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_as_hugging_face_has_it(touch, kind):
    source = touch(*(f"{split}/{n}.mp4" for split in ("train", "test") for n in range(4)))
    for split in ("train", "test"):
        lines = {
            "csv": ["file_name,label", *(f"{n}.mp4,{'ab'[n % 2]}" for n in range(4))],
            "jsonl": [f'{{"label": "{"ab"[n % 2]}", "file_name": "{n}.mp4"}}' for n in range(4)],
        }[kind]
        (source / split / f"metadata.{kind}").write_text("\n".join(lines))
    made = list_folder(source)
    assert rows(made) == {
        f"{split}/{n}": ("ab"[n % 2], split) for split in ("train", "test") for n in range(4)
    }
    assert not made.excluded


def test_prepared_folders_are_no_sources(touch):
    source = touch("a/1.mp4", "b/2.mp4", "out/videos/00/a.mp4", "out/prepare.lock")
    # A copy may lack the lock.
    touch("b/set/videos/11/3.mp4", "b/set/index.csv", "b/set/index.json")
    assert {*rows(list_folder(source))} == {"a/1", "b/2"}
    # Neither for a video that is gone, nor where a list names their files.
    table = source / "videos.csv"
    table.write_text(
        "path,label\n"
        + "".join(f"{path},x\n" for path in ("a/1.mp4", "b/2.mp4", "3.mp4", "out/videos/00/a.mp4"))
    )
    made = list_folder(table)
    assert {*rows(made)} == {"a/1", "b/2"}
    assert "absent: 1 of the 4 listed videos (3.mp4)" in made.note
    assert [name for name, _ in made.excluded] == ["out/videos/00/a.mp4"]
    with pytest.raises(UserError, match="out: is what `mgm prepare` wrote"):
        list_folder(source / "out")


def test_a_video_is_not_found_in_a_folder_of_the_other_split(touch):
    source = touch("train/1.mp4", "val/2.mp4", "val/3.mp4")
    (source / "train.txt").write_text("1.mp4 0\n2.mp4 1\n")
    (source / "val.txt").write_text("3.mp4 0\n")
    made = list_folder(source)
    assert {*rows(made)} == {"1", "3"}
    assert "absent: 1 train" in made.note


def test_classes_that_look_alike():
    names = ["walk", "Walk", "sit down", "sit\u00a0down", "run", "run\u200b", "jump"]
    names += ["Straße", "STRASSE", "p 1", "P01"]
    assert [len(group) for group in look_alike(names)] == [2, 2, 2, 2, 2]
    assert look_alike(["walk", "run", "walks"]) == []
