"""Centre crops from the shared store equal those from the files, bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.crops import open_crops, share_crops
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import Clips, Views
from mgm.video import BatchOptions, Cache, training_loader
from mgm.video import test_loader as view_loader

CLIPS = Clips(frames=4, size=48, stride=2, crop="centre", flip=False)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    params = Synthetic(classes=2, train_per_class=3, test_per_class=1, size=64, frames=12)
    return generate(params, tmp_path_factory.mktemp("crops") / "drawn")


def assert_equal(batches, others, count):
    for _, one, other in zip(range(count), batches, others, strict=False):
        for name, value in one._asdict().items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, name)), name


@pytest.fixture
def shared(index) -> Cache:
    cache = Cache(0)
    share_crops(cache, index.root, index.videos, 48)
    assert len(cache.crops) == len(index.videos)
    return cache


@pytest.mark.parametrize("cells", ["centre", "max"])
@pytest.mark.parametrize("motion", ["vectors", None])
def test_training_batches_and_test_views_are_those_of_the_files(
    index, shared, motion, cells, monkeypatch
):
    directions = motion is not None
    given = {"seed": 3, "batch": 4}
    how = BatchOptions(motion, directions=directions, cells=cells)
    files = [
        batch
        for _, batch in zip(range(3), training_loader(index.train, CLIPS, 2, **given, how=how))
    ]
    views = list(
        view_loader(index.test, CLIPS, 2, Views(temporal=2, spatial=1), 4, BatchOptions(motion))
    )
    # From here on, opening a file fails.
    monkeypatch.setattr("mgm.video.read.open_pass", None)
    assert_equal(
        files, training_loader(index.train, CLIPS, 2, **given, how=replace(how, cache=shared)), 3
    )
    again = view_loader(
        index.test, CLIPS, 2, Views(temporal=2, spatial=1), 4, BatchOptions(motion, cache=shared)
    )
    assert_equal(views, again, len(views))


def test_other_crops_and_sizes_are_cut_from_the_files(index, shared):
    for clips in (
        CLIPS.model_copy(update={"crop": "multiscale"}),
        CLIPS.model_copy(update={"flip": True}),
        CLIPS.model_copy(update={"size": 32}),
    ):
        batches = (
            training_loader(index.train, clips, 2, seed=1, batch=6, how=BatchOptions(cache=cache))
            for cache in (None, shared)
        )
        assert_equal(*batches, 2)


def test_a_store_is_made_once_and_anew_for_other_videos(index, tmp_path):
    folder = Path(shutil.copytree(index.root, tmp_path / "drawn"))
    store = open_crops(folder, index.videos, 48)
    (place,) = folder.glob("crops-48-*")
    before = place.stat().st_mtime_ns
    assert open_crops(folder, index.videos, 48)
    assert place.stat().st_mtime_ns == before
    others = [replace(video, content="other") for video in index.videos]
    assert open_crops(folder, others, 48)
    assert len([*folder.glob("crops-48-*")]) == 2
    clip = store.clip(index.videos[0].path, np.array([0, 5]))
    assert clip.frames_THWC.shape == (2, 48, 48, 3)
    place.write_bytes(b"cut short")
    assert open_crops(folder, index.videos, 48) is None


def test_what_cannot_be_stored_is_read_from_the_files(index, tmp_path, monkeypatch):
    uneven = [replace(index.videos[0], frames=7), *index.videos[1:]]
    assert open_crops(tmp_path, uneven, 48) is None
    gone = [replace(video, path="gone.mp4") for video in index.videos]
    assert open_crops(tmp_path, gone, 48) is None
    monkeypatch.setattr("mgm.data.crops.LARGEST_MB", 0.1)
    assert open_crops(tmp_path, index.videos, 48) is None
    assert not [*tmp_path.glob("crops-*")]
