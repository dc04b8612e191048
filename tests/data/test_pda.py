import shutil
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from mgm.data.folder import index_folder
from mgm.data.index import read_index, write_index
from mgm.data.prepare import summary
from mgm.data.published.derived import TASKS, carried_lists, index_pda, pda_digest
from mgm.data.published.text_lists import index_ucf101
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import CLASSES, Synthetic
from mgm.video import probe_video
from tests.helpers.errors import refused

UCF14 = (
    "RockClimbingIndoor",
    "Diving",
    "Fencing",
    "GolfSwing",
    "HandstandWalking",
    "SoccerPenalty",
    "PullUps",
    "Punch",
    "PushUps",
    "Biking",
    "HorseRiding",
    "Basketball",
    "Archery",
    "WalkingWithDog",
)


@pytest.fixture(scope="module")
def looks_alike(tmp_path_factory):
    """Return tiny generated look-alikes of UCF101 and HMDB51: {kind: folder}."""
    home = tmp_path_factory.mktemp("alike")
    for kind in ("ucf101", "hmdb51"):
        generate(
            Synthetic(kind=kind, train_per_class=2, test_per_class=1, size=32, frames=2),
            home / kind,
        )
    return {kind: home / kind for kind in ("ucf101", "hmdb51")}


@pytest.mark.parametrize(
    ("task", "source", "target"),
    [("ucf14-hmdb7", "ucf101", "hmdb51"), ("hmdb14-ucf7", "hmdb51", "ucf101")],
)
def test_generated_sets_share_their_classes_by_name(looks_alike, tmp_path, task, source, target):
    index = index_pda(task, looks_alike[source], looks_alike[target], tmp_path / "out")
    assert read_index(tmp_path / "out") == index
    origin, goal = read_index(looks_alike[source]), read_index(looks_alike[target])
    assert index.classes == CLASSES[source]
    assert set(index.classes[:7]) < set(goal.classes)
    assert not set(index.classes[7:]) & set(goal.classes)
    assert [(video.path, index.classes[video.label]) for video in index.train] == [
        (video.path, origin.classes[video.label]) for video in origin.train
    ]
    assert [(video.path, index.classes[video.label]) for video in index.test] == [
        (video.path, goal.classes[video.label]) for video in goal.test if video.label < 7
    ]
    params = [
        Synthetic(kind=kind, train_per_class=2, test_per_class=1, size=32, frames=2)
        for kind in (source, target)
    ]
    # The digest is known before anything is drawn.
    assert index.digest == pda_digest(task, *(each.digest for each in params))
    assert "by name" in index.note
    assert probe_video(index.videos[-1].path).frames == 2


def test_the_digest_knows_task_source_and_target():
    digests = {
        pda_digest(task, source, target) for task in TASKS for source in "ab" for target in "ab"
    }
    assert len(digests) == 8
    assert pda_digest("ucf14-hmdb7", "8bdfbb08085a", "ab1118cbe121") == "72e68e22bdb7"


@pytest.fixture
def real(tmp_path, looks_alike):
    """Return a function that builds folders of UCF101 and HMDB51, and their indices.

    The folders have tiny files under listed names. The function returns the folders of both
    indices, UCF101's first.
    """
    videos = cycle(read_index(looks_alike["ucf101"]).videos)

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(videos).path, path)

    def build(ucf, hmdb):
        for name in ucf:
            put(tmp_path / "videos" / "UCF-101" / name)
        lines = ["path,label,split"]
        for name, split in hmdb:
            put(tmp_path / "videos" / "hmdb51_org" / name)
            lines.append(f"hmdb51_org/{name},{name.partition('/')[0]},{split}")
        (tmp_path / "videos" / "videos.csv").write_text("\n".join(lines) + "\n")
        index_ucf101(tmp_path / "videos", tmp_path / "ucf101")
        index_folder(tmp_path / "videos" / "videos.csv", tmp_path / "hmdb51")
        return tmp_path / "ucf101", tmp_path / "hmdb51"

    return build


def some(task: str, split: str) -> list[str]:
    """Return the first listed video of each class of a split."""
    return list(dict(reversed(carried_lists(task).videos[split])).values())[::-1]


# A test video of the source, and a video of a class in neither task.
OTHERS = [
    "Archery/v_Archery_g01_c01.avi",
    "YoYo/v_YoYo_g08_c01.avi",
]


def test_published_lists_decide_for_ucf14_hmdb7(real, tmp_path):
    ucf, hmdb = some("ucf14-hmdb7", "train"), some("ucf14-hmdb7", "test")
    drill = "climb/training_video_of_the_target.avi"
    folders = real(
        [*ucf[:-1], *OTHERS],
        [*((name, "test") for name in hmdb), (drill, "train"), ("wave/a.avi", "test")],
    )
    index = index_pda("ucf14-hmdb7", *folders, tmp_path / "out")
    assert read_index(tmp_path / "out") == index
    assert index.classes == UCF14
    assert [video.label for video in index.train] == list(range(13))
    assert [video.label for video in index.test] == list(range(7))
    assert [
        Path(video.path).relative_to(tmp_path / "videos").as_posix() for video in index.videos
    ] == [*(f"UCF-101/{name}" for name in ucf[:-1]), *(f"hmdb51_org/{name}" for name in hmdb)]
    assert all(Path(video.path).is_file() for video in index.videos)
    assert (
        "published lists of ucf14-hmdb7: 13 of 1,324 train videos are there, 7 of 210 test videos "
        "are there" in index.note
    )
    assert "missing.txt" in index.note
    missing = (tmp_path / "out" / "missing.txt").read_text(encoding="utf-8").splitlines()
    assert len(missing) == 1324 + 210 - 20
    assert ucf[-1] in missing
    assert not set(missing) & {*ucf[:-1], *hmdb}
    assert "classes without videos: 1" in summary(index)


def test_what_disagrees_is_one_clear_line(real, looks_alike, tmp_path):
    task, out = "ucf14-hmdb7", tmp_path / "out"
    ucf, hmdb = some(task, "train"), some(task, "test")
    ucf_index, hmdb_index = real(
        [*ucf, *OTHERS], [*((name, "test") for name in hmdb), ("wave/a.avi", "train")]
    )
    whole, targets = read_index(ucf_index), read_index(hmdb_index)
    alike = read_index(looks_alike["hmdb51"])
    made = {
        "lacking": replace(
            targets, classes=tuple(name for name in targets.classes if name != "pullup"), videos=()
        ),
        "wrong": replace(whole, videos=tuple(replace(video, label=100) for video in whole.videos)),
        "few": replace(whole, videos=whole.videos[-1:]),
        "partial": replace(
            alike, videos=tuple(video for video in alike.videos if video.label != 2)
        ),
    }
    for name, index in made.items():
        write_index(index, tmp_path / name)
    alike = looks_alike["ucf101"]
    for source, target, said in (
        (ucf_index, tmp_path / "lacking", f"{tmp_path}/lacking/index.json: lacks class pullup"),
        (hmdb_index, ucf_index, "8 and 101 classes, 0 of them shared"),
        (tmp_path / "nowhere", hmdb_index, "nowhere"),
        (alike, alike, "14 and 14 classes, 14 of them shared"),
        (alike, hmdb_index, "index.json: lacks class RockClimbingIndoor"),
        (tmp_path / "wrong", hmdb_index, f"{ucf[0]} has class YoYo"),
        (tmp_path / "few", hmdb_index, "has 0 of the 1,324 videos"),
        (alike, tmp_path / "partial", "has no test video of class going_sideways"),
    ):
        with refused(said):
            index_pda(task, source, target, out)
        assert not (out / "index.json").exists()
