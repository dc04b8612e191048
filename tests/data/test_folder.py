import hashlib
import os
from unicodedata import normalize

import pytest

from mgm.data.folder import Row, list_folder, listing
from mgm.data.prepare import look_alike, store_names
from mgm.errors import UserError


def rows(listing) -> dict[str, tuple[str, str]]:
    """Return {name: (class, split)} of a listing."""
    return {entry.name: (listing.classes[entry.label], entry.split) for entry in listing.entries}


def test_class_folders(touch):
    source = touch("run/a.mp4", "run/deep/b.AVI", "walk/c.webm", "loose.mp4", "walk/notes.txt")
    touch(".hidden/d.mp4", "walk/.e.mp4")
    made = list_folder(source)
    assert {name: label for name, (label, _) in rows(made).items()} == {
        "run/a": "run", "run/deep/b": "run", "walk/c": "walk",
    }  # fmt: skip
    assert made.excluded == [("loose.mp4", "is not in a class folder, so it has no label")]


def test_a_flat_folder_has_no_labels(touch):
    made = list_folder(touch("a.mp4", "b.mp4", "c.mkv"))
    assert made.classes == ("unlabelled",)
    assert len(made.entries) == 3


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Train", "VAL"), ("training", "validation"), ("train_set", "dev")]
)
def test_folders_of_splits_are_splits(touch, names):
    made = list_folder(touch(*(f"{name}/{label}/x.mp4" for name in names for label in ("a", "b"))))
    assert made.classes == ("a", "b")
    for name, split in zip(names, ("train", "test"), strict=True):
        assert rows(made)[f"{name}/a/x"] == ("a", split)


@pytest.mark.parametrize("where", ["{split}/{label}", "set/{split}/{label}", "{label}/{split}"])
def test_folders_of_splits_elsewhere_are_no_classes(touch, where):
    """As train, test and more at the top, in a folder of the download, or below each class."""
    places = [
        where.format(split=split, label=label) for split in ("train", "test") for label in "ab"
    ]
    with pytest.raises(UserError, match="folders of splits"):
        list_folder(touch("more/a/1.mp4", *(f"{place}/1.mp4" for place in places)))


def test_a_validation_split_is_left_out_next_to_a_test_split(touch):
    made = list_folder(touch("train/a/1.mp4", "val/a/2.mp4", "test/a/3.mp4"))
    assert set(rows(made)) == {"train/a/1", "test/a/3"}


def test_a_lone_split_folder_or_a_class_called_train_is_no_split(touch):
    lone = list_folder(touch(*(f"train/{label}/{n}.mp4" for label in "ab" for n in range(9))))
    assert lone.classes == ("a", "b")
    assert {split for _, split in rows(lone).values()} == {"train", "test"}
    vehicles = list_folder(touch("train/1.mp4", "bus/2.mp4", below="vehicles"))
    assert vehicles.classes == ("bus", "train")


def test_a_hash_of_the_group_chooses_a_fifth(touch, tmp_path):
    names = [f"c{label}/{n}.mp4" for label in range(4) for n in range(100)]
    whole = rows(list_folder(touch(*names)))
    test = [name for name, (_, split) in whole.items() if split == "test"]
    assert 55 < len(test) < 105
    # Another video changes no other's split.
    more = rows(list_folder(touch("c0/new.mp4")))
    assert {name: more[name] for name in whole} == whole
    first = next(name for name in names if name[:-4] in test)
    assert int(hashlib.sha256(first.encode()).hexdigest(), 16) % 5 == 0


def test_every_class_of_several_groups_is_trained_and_tested_on(touch):
    names = [f"c{label}/{n}.mp4" for label in range(40) for n in range(2)]
    splits = rows(list_folder(touch(*names))).values()
    assert {*splits} == {(f"c{n}", split) for n in range(40) for split in ("train", "test")}


def test_groups_are_never_divided(tmp_path):
    made = listing(
        tmp_path,
        [
            Row(touched(tmp_path, f"{n}.mp4"), "ab"[n % 2], "", f"person {n // 4}")
            for n in range(80)
        ],
        "",
    )
    splits = {}
    for entry in made.entries:
        splits.setdefault(entry.group, set()).add(entry.split)
    assert {len(of) for of in splits.values()} == {1}


def test_persons_of_several_classes_leave_no_class_in_one_split(tmp_path):
    """Moving one class's person may not take another class out of a split."""
    for layout in range(50):
        persons = [f"{layout}-{n}" for n in range(5)]
        of_class = {
            f"c{n}": [persons[n], persons[(n + 1) % 5], persons[(n + 2) % 5]] for n in range(5)
        }
        listed = [
            Row(touched(tmp_path, f"{label}-{person}.mp4"), label, "", person)
            for label, own in of_class.items()
            for person in own
        ]
        splits = {}
        for entry in listing(tmp_path, listed, "").entries:
            splits.setdefault(entry.label, set()).add(entry.split)
        assert {*map(len, splits.values())} == {2}


def test_a_link_to_its_own_parent_adds_no_video(touch):
    source = touch("a/1.mp4", "b/2.mp4")
    (source / "a/up").symlink_to(source)
    assert {*rows(list_folder(source))} == {"a/1", "b/2"}


def test_a_class_whose_name_cannot_be_printed_is_left_out(touch):
    source = touch("a/1.mp4", "b/2.mp4")
    (source / os.fsdecode(b"caf\xe9")).mkdir()
    (source / os.fsdecode(b"caf\xe9/3.mp4")).touch()
    made = list_folder(source)
    assert made.classes == ("a", "b")
    assert len(made.excluded) == 1


def touched(folder, name) -> str:
    (folder / name).touch()
    return name


def test_a_csv(touch):
    source = touch("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.bin")
    (source / "videos.csv").write_bytes(
        "\ufeffgroup,path,label,split\r\np1,a/1.mp4,None,train\r\np1,./a/2.mp4,NA,Train\r\n"
        'p2,b/3.mp4,"007",val\r\np3,b/4.bin,null,val\r\n'.encode()
    )
    made = list_folder(source)
    assert made.classes == ("007", "NA", "None", "null")
    assert rows(made) == {
        "a/1": ("None", "train"), "a/2": ("NA", "train"), "b/3": ("007", "test"),
        "b/4.bin": ("null", "test"),
    }  # fmt: skip
    assert {entry.group for entry in made.entries} == {"p1", "p2", "p3"}
    assert rows(list_folder(source / "videos.csv")) == rows(made)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("file,label\na.mp4,x\n", "line 1: the columns are file,label"),
        ("path,label\na.mp4,x,y\n", "line 2 has other values than the 2 columns"),
        ("path,split\na.mp4,later\n", "line 2: split 'later'"),
        ("path,split\na.mp4,train\nb.mp4,\n", "b.mp4: has no split"),
        ("path,label\na.mp4,x\na.mp4,y\n", "a.mp4 is listed twice"),
        ("path,label\na.mp4,x\nb.mp4,\n", "b.mp4 has no label"),
        ("path,label\na.mp4,caf\xe9\n", "is not text in UTF-8"),
        ("path,label\nno.mp4,x\n", "0 of the 1 listed videos: no.mp4"),
    ],
)
def test_a_wrong_csv_is_one_line(touch, text, fault):
    source = touch("a.mp4", "b.mp4")
    (source / "videos.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=fault):
        list_folder(source)


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", "])
@pytest.mark.parametrize("frames", ["", "120"])
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_lists_of_paths_and_labels(touch, separator, frames, suffix):
    """Lists as VideoMAE (csv) and mmaction2 (txt) have them, of files that lie elsewhere."""
    source = touch("deep/my clip.mp4", "deep/b.mkv", "deep/c.mp4", "deep/twice.mp4", "twice.mp4")

    def line(*cells):
        return separator.join(filter(None, (cells[0], frames, cells[1])))

    for name, lines in {
        f"kinetics_train_list_videos.{suffix}": [line("x/my clip.mp4", "10"), line("x/b.mp4", "9")],
        f"kinetics_val_list_videos.{suffix}": [
            *(line("deep/c", "9"), line("gone.mp4", "9"), line("x/twice.mp4", "10"))
        ],
    }.items():
        (source / name).write_text("\r\n".join(lines) + "\r\n")
    made = list_folder(source)
    assert made.classes == ("9", "10")
    assert rows(made) == {
        "x/my clip": ("10", "train"), "x/b": ("9", "train"), "deep/c": ("9", "test"),
    }  # fmt: skip
    assert [entry.source for entry in made.entries][:2] == ["deep/my clip.mp4", "deep/b.mkv"]
    assert "absent: 2 test of the 5 listed videos (gone.mp4, x/twice.mp4)" in made.note


def test_lists_of_absolute_paths(touch):
    """VideoMAE's lists have the paths of the machine that they were made on."""
    source = touch("train/a.mp4", "val/b.mp4")
    (source / "train.csv").write_text(f"{source}/train/a.mp4 0\n")
    (source / "val.csv").write_text("/of/another/machine/b.mp4 1\n")
    assert rows(list_folder(source)) == {"train/a": ("0", "train"), "val/b": ("1", "test")}


def test_ten_absent_videos_are_named(tmp_path):
    there = [Row(touched(tmp_path, f"{split}.mp4"), "x", split) for split in ("train", "test")]
    made = listing(tmp_path, [*there, *(Row(f"{n}.mp4", "x", "test") for n in range(12))], "")
    assert "12 test of the 14" in made.note
    assert "9.mp4, ..." in made.note
    assert "10.mp4" not in made.note


def test_classes_that_look_alike():
    names = [
        "walk",
        "Walk",
        "sit down",
        "sit\u00a0down",
        "run",
        "run\u200b",
        "jump",
        "Straße",
        "STRASSE",
    ]
    assert [len(group) for group in look_alike(names)] == [2, 2, 2, 2]
    assert look_alike(["walk", "run", "walks"]) == []


def test_names_that_differ_in_case_or_form_alone_get_a_digest(touch):
    names = ["a/Clip.mp4", "a/clip.mp4", "a/clip.avi", "A/x.mp4", normalize("NFC", "a/ü.mp4")]
    names += [normalize("NFD", "a/ü.mp4"), f"a/{'long' * 50}.mp4", "a/b.dis.mp4"]
    entries = list_folder(touch(*names)).entries
    made = store_names(entries)
    assert len({normalize("NFC", name).casefold() for name in made}) == len(names)
    assert all(len(name.encode()) < 180 and not name.endswith(".dis") for name in made)
    assert sum(name == entry.name for entry, name in zip(entries, made, strict=True)) == 3
    # The order of listing does not matter.
    assert store_names(entries[::-1]) == made[::-1]


def test_names_stay_inside_the_store(tmp_path):
    (tmp_path / "below").mkdir()
    touched(tmp_path, "x.mp4")
    absolute = str(tmp_path / "x.mp4")
    names = store_names(
        listing(tmp_path / "below", [Row("../x.mp4", "a"), Row(absolute, "b")], "").entries
    )
    assert len({*names}) == 2
    assert not any(".." in name or name.startswith("/") for name in names)
