"""croissant.json is valid for the format's own library, which reads the same videos as mgm does."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mgm.data.folder import index_folder
from mgm.data.index import Video, read_index
from mgm.data.shards import Settings, write_shards
from mgm.reading import file_digest
from tests.helpers.videos import moving_square, write_video

pytestmark = pytest.mark.slow  # mlcroissant takes seconds to import


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, Path]:
    """Return the folders of an index of six videos and of their shards."""
    root = tmp_path_factory.mktemp("sets")
    for label in "ab":
        (root / "videos" / label).mkdir(parents=True)
        for seed in range(3):
            write_video(
                root / "videos" / label / f"{seed}.mp4",
                moving_square(8, 64, 80, (5, 3), seed=ord(label) + seed),
                gop=4,
            )
    index_folder(root / "videos", root / "out" / "source")
    write_shards(read_index(root / "out" / "source"), root / "out", Settings(short_side=64))
    return root / "out" / "source", root / "out"


@pytest.mark.parametrize("which", [0, 1], ids=["index", "shards"])
def test_it_is_valid_and_holds_the_same_records(places, which):
    import mlcroissant

    index = read_index(places[which])
    dataset = mlcroissant.Dataset(places[which] / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    # Warnings: licence, citation, date and version are unknown.
    assert len(dataset.metadata.ctx.issues.warnings) <= 4
    names = [field.name for field in fields(Video) if field.name not in ("content", "labels")]
    read = [
        {name: _plain(record[f"videos/{name}"]) for name in names}
        for record in dataset.records("videos")
    ]
    wanted = [replace(video, path=index.name(video)) for video in index.videos]
    assert read == [{name: getattr(video, name) for name in names} for video in wanted]
    classes = [_plain(record["classes/name"]) for record in dataset.records("classes")]
    assert tuple(classes) == index.classes


def test_shards_stand_in_it_by_their_digests(places):
    out = places[1]
    files = {
        file["contentUrl"]: file["sha256"]
        for file in json.loads((out / "croissant.json").read_text())["distribution"]
    }
    shards = [f"shards/{path.name}" for path in (out / "shards").glob("*.tar")]
    assert files == {name: file_digest(out / name) for name in ("index.csv", *shards)}


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value
