"""Videos of one recording stay on one side of a split, or the user is warned."""

from pathlib import Path

import pytest

from mgm.data.folder import index_folder
from mgm.data.leaks import groups_by_name
from mgm.data.prepare import summary
from tests.helpers.videos import moving_square, write_video


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, moving_square(6, 64, 80, (3, 2), seed=seed))


def test_clips_of_one_group_in_their_names_stay_on_one_side(tmp_path):
    for label in ("Biking", "Diving"):
        for number in range(12):
            name = f"v_{label}_g{number // 3:02}_c{number % 3:02}.mp4"
            write(tmp_path / "videos" / label / name, number + 100 * (label == "Diving"))
    index = index_folder(tmp_path / "videos", tmp_path / "out")
    sides = {
        split: {
            Path(video.path).stem.split("_")[2] for video in index.videos if video.split == split
        }
        for split in ("train", "test")
    }
    assert all(sides.values())
    assert not sides["train"] & sides["test"]
    assert "such as g00" in summary(index)
    # Another expression, here one that matches whole names, takes its place.
    alone = index_folder(tmp_path / "videos", tmp_path / "alone", groups=".+")
    assert len({video.group for video in alone.videos}) == 24
    assert "every video is its own group" in summary(alone)
    # A given split is kept, and the clips on both sides are mentioned.
    rows = [f"{Path(video.path)},{video.label},{video.split}" for video in alone.videos]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert "warning" in summary(index_folder(tmp_path / "list.csv", tmp_path / "given"))


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["a/person01_run.mp4", "b/person01_box.mp4", "a/person02_run.mp4"], 2),
        (["a/g01_f1_s05_e01.mp4", "a/g01_f1_s05_e02.mp4", "a/g01_f1_s06_e01.mp4"], 2),
        (["a/match-Scene-001.mp4", "a/match-Scene-002.mp4", "a/film-Scene-001.mp4"], 2),
        ([f"{'ab'[n % 2]}/film{n % 6}_{n}.mp4" for n in range(24)], 6),
        # Two parts of a set are not two recordings.
        ([f"{'ab'[n % 2]}/set{n // 12}_{n}.mp4" for n in range(24)], None),
        # One group for a whole class separates nothing.
        (["a/kick_1.mp4", "a/kick_2.mp4", "b/push_1.mp4", "b/push_2.mp4"], None),
        (["a/1.mp4", "a/2.mp4", "b/3.mp4", "b/4.mp4"], None),
    ],
)
def test_marks_of_recordings_and_persons_are_found(names, groups):
    found = next(groups_by_name({name: [name[0]] for name in names}), None)
    assert (found and len(set(found.values()))) == groups


def test_clips_that_begin_alike_on_both_sides_are_mentioned(tmp_path):
    for number, split in enumerate(["train", "train", "test", "test"]):
        for label in "ab":
            write(tmp_path / f"{label}{split}{number}.mp4", number + 10 * (label == "b"))
    rows = [f"{path.name},{path.name[0]},{path.name[1:-5]}" for path in tmp_path.glob("*.mp4")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert "warning" not in index_folder(tmp_path / "list.csv", tmp_path / "out").note
    # The same scene, then another motion.
    write_video(tmp_path / "atest2.mp4", moving_square(6, 64, 80, (1, 0), seed=0))
    again = index_folder(tmp_path / "list.csv", tmp_path / "out")
    assert "1 of 4 test videos" in again.note
    assert "atest2.mp4 and atrain0.mp4" in again.note
