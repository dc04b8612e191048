from dataclasses import replace
from pathlib import Path

from mgm.data.index import Index, Video, content_digest, read_index, write_index
from mgm.data.published.derived import carried_ids, index_mini_k200
from tests.helpers.errors import refused


def k400(folder: Path, names: list[tuple[str, int, str]]) -> Index:
    """Write an index of K400 with these (name, label, split)s. Its files need not exist."""
    classes = tuple(f"class {number}" for number in range(400))
    videos = tuple(
        Video(str(folder / name), label, split, name, 300, 30.0, 340, 256, "h264", True, 100)
        for name, label, split in names
    )
    index = Index(folder, classes, videos, (), content_digest(folder, classes, videos), "")
    write_index(index, folder)
    return index


def test_the_videos_of_the_published_ids_are_kept(tmp_path):
    ids = {split: sorted(names) for split, names in carried_ids().items()}
    odd = next(name for name in ids["train"] if "_" in name and name.startswith("-"))
    names = [
        (f"train/a/{odd}_000010_000020.mp4", 7, "train"),
        (f"train/b/{ids['train'][-1]}_000000_000010.mkv", 399, "train"),
        ("train/b/AAAAAAAAAAA_000000_000010.mp4", 399, "train"),  # in K400 only
        (f"train/b/{ids['test'][2]}_000000_000010.mp4", 3, "train"),  # not a training id
        (f"val/a/{ids['test'][5]}_000000_000010.mp4", 7, "test"),
        ("val/a/notes.mp4", 7, "test"),
    ]
    whole = k400(tmp_path / "k400", names)
    index = index_mini_k200(tmp_path / "k400", tmp_path / "mini")
    assert read_index(tmp_path / "mini") == index
    # Tracks are K400's.
    track_of = {video.path: video.track for video in read_index(tmp_path / "k400").videos}
    for video in read_index(tmp_path / "mini").videos:
        assert video.track == track_of[video.path]
    assert index.videos == (whole.videos[0], whole.videos[1], whole.videos[4])
    assert (index.classes, index.root) == (whole.classes, whole.root)
    assert index.digest != whole.digest
    assert (
        "2 of 80,000 train videos are there, 1 of 5,000 test videos are there; the others are in "
        "missing.txt" in index.note
    )
    missing = set((tmp_path / "mini" / "missing.txt").read_text().splitlines())
    assert len(missing) == 85_000 - 3
    assert missing == {f"{split}/{name}" for split in ids for name in ids[split]} - {
        f"train/{odd}",
        f"train/{ids['train'][-1]}",
        f"test/{ids['test'][5]}",
    }


def test_an_index_without_its_videos_says_so(tmp_path):
    def fails(*says):
        with refused(*says):
            index_mini_k200(tmp_path / "k400", tmp_path / "mini")
        assert not (tmp_path / "mini").exists()

    fails("k400", "mgm prepare")
    whole = k400(tmp_path / "k400", [("train/a/00000100000_000000_000002.mp4", 0, "train")])
    fails("index.csv: has 0 of the 80,000 training videos")
    write_index(
        replace(whole, videos=(replace(whole.videos[0], path=str(tmp_path / "k400" / "x.mp4")),)),
        tmp_path / "k400",
    )
    fails("0 of its 1 files are named ID_START_END.ext")
