"""Behaviour that all published sets share.

Files are looked up and counted, missing ones are listed, and paths that lead outside are refused.
"""

import os

from mgm.data.index import read_index
from mgm.data.published.listed import Entry, Lists, find_videos, index_listed
from mgm.data.published.text_lists import index_ucf101
from tests.helpers.errors import refused

# Names that HMDB51 and K400 have, or could.
ODD = (
    "-dash",
    "a b",
    "(c) [d]",
    "#e;f!",
    "& 'g' \"h\"",
    "naïve ダンス",
    "100%_x",
)


# A layout with lists beside the videos, as UCF101 has.
TRAIN = [f"{name}/v_{name}_g08_c0{clip}.avi" for name in ("Biking", "Diving") for clip in (1, 2)]
TEST = ["Biking/v_Biking_g01_c01.avi", "Diving/v_Diving_g01_c01.avi"]
LISTS = {
    "ucfTrainTestlist/classInd.txt": "1 Biking\n2 Diving\n",
    "ucfTrainTestlist/trainlist01.txt": "".join(
        f"{name} {1 + name.startswith('D')}\n" for name in TRAIN
    ),
    "ucfTrainTestlist/testlist01.txt": "\n".join(TEST),
}


def test_what_is_not_there_or_not_whole_is_listed(build, tmp_path):
    stranger = "Biking/x.avi"
    source = build(*TRAIN[1:], *TEST, stranger, lists=LISTS)
    broken = source / TRAIN[1]
    broken.write_bytes(broken.read_bytes()[:100])
    index = index_ucf101(source, tmp_path / "out")
    assert index == read_index(tmp_path / "out")
    assert [index.name(video) for video in index.videos] == [*TRAIN[2:], *TEST]
    assert (tmp_path / "out" / "missing.txt").read_text() == f"{TRAIN[0]}\n"
    (first, why), (second, reason) = index.excluded
    assert (first, second) == (TRAIN[1], stranger)
    assert why
    assert reason.startswith("is not in the lists of ")
    assert "3 of 4 train videos are there, 2 of 2 test videos are there; the others" in index.note


def test_a_source_without_the_videos_says_so(build, tmp_path):
    def fails(source, *says):
        with refused(*says):
            index_ucf101(source, tmp_path / "out")
        assert not (tmp_path / "out" / "index.json").exists()

    fails(tmp_path / "nowhere", "nowhere: no such folder")
    fails(build(lists=LISTS), "holds no video")
    fails(build("cats/cat.mp4", lists=LISTS), "0 of the 6 videos of ", "and 1 others")
    fails(build(TRAIN[0], lists=LISTS), "0 of the 1 readable videos are in the test split")


def test_odd_names_pass_and_are_found_again(build, tmp_path):
    source = build(
        *(f"{name}/{name}.mp4" for name in ODD), ".hidden/x.mp4", "a b/.x.mp4", "a b/x.mp4.part"
    )
    entries = {
        f"{name}/{name}": Entry(
            f"{name}/{name}.mp4", number % 2, ("train", "test")[number % 2], name
        )
        for number, name in enumerate(ODD)
    }
    index_listed(
        find_videos(source, "{0}/{1}".format), Lists(("a", "b"), entries), tmp_path / "out", "odd"
    )
    again = read_index(tmp_path / "out")
    assert (again.excluded, (tmp_path / "out" / "missing.txt").read_text()) == ((), "")
    assert {video.group for video in again.videos} == set(ODD)
    assert all(os.path.getsize(video.path) == video.bytes for video in again.videos)


def test_of_several_files_of_a_video_one_is_used(build, tmp_path):
    """A re-encoded copy or a replacement from CVDF is used instead of the source.

    The unused files are counted.
    """
    names = ("1.webm", "1.mp4", "2.webm", "val/3.mp4", "replacement_for_corrupted_k400/3.mp4")
    found = find_videos(build(*names), lambda _, name: name)
    assert found.name_of == {
        "1": "1.mp4",
        "2": "2.webm",
        "3": "replacement_for_corrupted_k400/3.mp4",
    }
    assert found.spare == ["val/3.mp4", "1.webm"]
    entries = {name: Entry(name, 0, "test" if name == "3" else "train", name) for name in "123"}
    index = index_listed(found, Lists(("a",), entries), tmp_path / "out", "set")
    assert "2 further files of the same videos are not used, such as val/3.mp4" in index.note
