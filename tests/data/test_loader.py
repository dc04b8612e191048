"""Batches of training clips and test views, read from a store."""

import shutil
import sys
import zipfile
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import crop_image, resize_image

from mgm.data.clips import views_of
from mgm.data.index import Video, read_index
from mgm.data.loader import Reading, on_device, training_batches, view_batches
from mgm.errors import UserError
from mgm.masking import Grid, make_mask
from mgm.masking.paper import tube
from mgm.rng import clip_seed, generator
from mgm.spec import Augment, Clips, Mask, Views
from mgm.video import store, track
from mgm.video.augment import OPERATIONS, ClipAugmentation, operate
from mgm.video.store import read_clips
from mgm.video.track import read_track
from mgm.video.transform import random_crop, training_indices

CLIPS = Clips(frames=4, size=24, stride=2)
GRID = Grid(2, 3, 3)
MASKED = {"mask": Mask(name="mgm", ratio=0.5), "grid": GRID}


@pytest.fixture(scope="module")
def videos(data) -> tuple[Video, ...]:
    return read_index(data).train[:7]


@pytest.fixture
def copied(data, tmp_path) -> tuple[Video, ...]:
    """Return the videos of a copy that a test may damage."""
    shutil.copytree(data, tmp_path / "data")
    return read_index(tmp_path / "data").train[:7]


def batches(videos, count=4, batch=3, clips=CLIPS, seed=5, **options) -> list[dict]:
    """Return the first batches. Their memory is used again, so they are copied."""
    every = islice(training_batches(videos, clips, seed, batch, **options), count)
    # As on a GPU: of planes, only the crop counts.
    return list(map(as_frames, every))


def as_frames(batch):
    [(own, _)] = on_device(iter([batch]), 24, torch.device("cpu"))
    return {name: x.clone() for name, x in own.items()}


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


def motion_of(video, seed, index_T=None):
    if index_T is None:
        index_T = training_indices(CLIPS, video.frames, generator(seed, "sample"))
    crop = random_crop(CLIPS, video.height, video.width, seed)
    motion = read_track(video.track()).motion(index_T).under(crop, 24, (video.height, video.width))
    return index_T, crop, motion


@pytest.mark.parametrize("guidance", ["vectors", "shuffled"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_clip_is_a_function_of_seed_epoch_and_sample(videos, guidance, repeats):
    """Each clip is made again from its parts, and each epoch has each video once."""
    mask = MASKED["mask"].model_copy(update={"guidance": guidance})
    how = {"mask": mask, "grid": GRID, "augment": Augment(repeats=repeats)}
    rows = [
        {name: x[row] for name, x in batch.items()}
        for batch in batches(videos, count=7, **how)
        for row in range(3 * repeats)
    ]
    for position, row in enumerate(rows):
        epoch, sample = position // repeats // 7, int(row["sample_B"])
        video, seed, repeat = videos[sample], clip_seed(5, epoch, sample), position % repeats
        index_T = training_indices(CLIPS, video.frames, generator(seed, "sample"))
        if repeat:
            seed = clip_seed(seed, repeat, sample)
        _, crop, motion = motion_of(video, seed, index_T)
        if guidance == "shuffled":
            other = int(generator(seed, "guide").integers(6))
            other += other >= sample
            assert other != sample
            _, _, motion = motion_of(videos[other], clip_seed(seed, 0, other))
        magnitude_1SHW = motion.magnitude(2)[None]
        masked_BL = make_mask(mask, GRID, magnitude_1SHW, np.array([seed]))
        assert (row["seed_B"], row["label_B"], row["weight_B"]) == (seed, video.label, 1)
        (frames_THWC,) = read_clips(video.path, read_track(video.track()), [index_T], [crop], 24)
        assert np.array_equal(row["frames_BTHWC"].numpy(), frames_THWC)
        assert np.array_equal(row["masked_BL"].numpy(), masked_BL[0])
        # A patch has 8 x 8 pixels, so it is a cell.
        share = (magnitude_1SHW.ravel() * masked_BL[0]).sum() / magnitude_1SHW.sum()
        assert row["guide_hidden_B"] == pytest.approx(share if magnitude_1SHW.any() else 4 / 9)
    samples = [int(row["sample_B"]) for row in rows[::repeats]]
    epochs = [tuple(samples[7 * epoch : 7 * epoch + 7]) for epoch in range(3)]
    assert all(sorted(one) == list(range(7)) for one in epochs)
    assert len({*epochs}) == 3  # each epoch has an order of its own


def test_workers_and_the_first_step_change_nothing(videos):
    """Batches of one and of several parts. The pool is used several times."""
    for options in (
        {"batch": 3, **MASKED},
        {"batch": 20, "augment": Augment(repeats=2), **MASKED},
        {"batch": 2, "planes": True},
        {"batch": 5, "augment": Augment(rand="rand-m7-n4", erasing=0.5, repeats=2)},
    ):
        whole = batches(videos, 14, **options)
        assert_same(batches(videos, 14, workers=1, **options), whole)
        assert_same(batches(videos, 9, first_step=5, workers=3, **options), whole[5:])


def test_processes_have_parts_of_each_batch(videos):
    whole = batches(videos, batch=5, **MASKED)
    parts = [batches(videos, batch=5, share=(rank, 2), **MASKED) for rank in range(2)]
    joined = [{name: torch.cat([one[name], two[name]]) for name in one} for one, two in zip(*parts)]
    assert_same(joined, whole)


def test_an_augmented_clip_is_made_of_whole_frames_and_draws(videos):
    """Each equals one that is made again step by step, and each repeat has draws of its own."""
    augment = Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.9, repeats=2)
    augmentation, drawn = ClipAugmentation(augment), set[str]()
    batches = islice(training_batches(videos, CLIPS, 5, 3, augment=augment), 4)
    for own, host in on_device(batches, 24, torch.device("cpu")):
        for row, seed in enumerate(host["seed_B"].tolist()):
            video = videos[host["sample_B"][row]]
            first = host["seed_B"][row // 2 * 2].item()
            index_T = training_indices(CLIPS, video.frames, generator(first, "sample"))
            (whole_THWC,) = read_clips(video.path, read_track(video.track()), [index_T], None, 0)
            rng, crop = generator(seed, "augment"), random_crop(CLIPS, 32, 32, seed)
            x_TCHW = torch.from_numpy(whole_THWC).permute(0, 3, 1, 2)
            operations = augmentation.operations(rng)
            drawn.add(str(operations))
            for number, argument in operations:
                x_TCHW = operate(OPERATIONS[number], x_TCHW, argument)
            x_TCHW = crop_image(x_TCHW, crop.top, crop.left, crop.height, crop.width)
            x_TCHW = resize_image(x_TCHW, [24, 24])
            x_TCHW = x_TCHW.flip(3) if crop.flip else x_TCHW
            top, left, height, width = augmentation.box(24, rng)
            kept_HW = torch.ones(24, 24, dtype=torch.bool)
            kept_HW[top : top + height, left : left + width] = False
            frames_THWC = own["frames_BTHWC"][row]
            assert torch.equal(frames_THWC[:, kept_HW], x_TCHW.permute(0, 2, 3, 1)[:, kept_HW])
    assert len(drawn) > 18


@pytest.mark.parametrize(("workers", "planes"), [(0, True), (2, False)])
def test_a_video_that_cannot_be_read_has_weight_0_and_changes_no_other(copied, workers, planes):
    """A file whose frames are damaged, and one that is gone, as on a disk that fails."""
    options = {"batch": 14, "count": 2, "workers": workers, "planes": planes, **MASKED}
    whole = batches(copied, **options)
    path = Path(copied[2].path)
    path.write_bytes(path.read_bytes()[:200])
    Path(copied[4].path).unlink()
    for before, after in zip(whole, batches(copied, **options)):
        lost_B = (after["sample_B"] == 2) | (after["sample_B"] == 4)
        assert torch.equal(after["weight_B"], 1.0 - lost_B.float())
        assert lost_B.sum() == 4
        for name in before.keys() - {"weight_B"}:
            if name == "frames_BTHWC":
                assert len(after[name][lost_B].flatten(0, 3).unique(dim=0)) == 1
            else:
                assert torch.equal(after[name], before[name])
            assert torch.equal(after[name][~lost_B], before[name][~lost_B])


@pytest.mark.parametrize(("workers", "guidance"), [(0, "shuffled"), (2, "vectors")])
def test_a_video_without_motion_has_weight_0_and_is_told(copied, workers, guidance):
    """A track that is not there, and one whose motion is damaged. Pixels need the first alone."""
    mask = MASKED["mask"].model_copy(update={"guidance": guidance})
    options = {"batch": 7, "workers": workers, "mask": mask, "grid": GRID}
    whole, reading = batches(copied, 2, **options), Reading()
    Path(copied[3].track()).unlink()
    damage(Path(copied[5].track()))
    for before, after in zip(whole, batches(copied, 2, reading=reading, **options)):
        read_B = after["weight_B"] == 1
        assert 2 <= (~read_B).sum() <= 4
        if guidance == "vectors":
            assert sorted(after["sample_B"][~read_B].tolist()) == [3, 5]
        for name in before:
            assert torch.equal(after[name][read_B], before[name][read_B])
    assert sorted(reading.failed) == [3, 5]
    assert all(copied[sample].name in str(why) for sample, why in reading.failed.items())
    unguided = {"mask": Mask(name="tube", ratio=0.5), "grid": GRID}
    (batch,) = batches(copied, 1, batch=7, workers=workers, **unguided)
    assert batch["weight_B"].sum() == 6


def damage(track: Path) -> None:
    """Overwrite the motion in a track, and nothing else."""
    with zipfile.ZipFile(track) as archive:
        start = archive.getinfo("motion.npy").header_offset + 200
        size = archive.getinfo("motion.npy").file_size - 200
    data = bytearray(track.read_bytes())
    data[start : start + size] = bytes(size)
    track.write_bytes(data)


def test_guidance_that_cannot_be_is_refused(videos, monkeypatch):
    shuffled = MASKED | {"mask": Mask(name="mgm", ratio=0.5, guidance="shuffled")}
    with pytest.raises(UserError, match="two training videos"):
        batches(videos[:1], **shuffled)
    module = ModuleType("my_masks")
    module.carried = lambda mask, grid, seed_B, magnitude, displacement: tube(mask, grid, seed_B)
    monkeypatch.setitem(sys.modules, "my_masks", module)
    carried = MASKED | {"mask": Mask(name="my_masks:carried", ratio=0.5)}
    assert len(batches(videos, **carried)) == 4
    with pytest.raises(UserError, match=r"clips\.sampling"):
        batches(videos, clips=CLIPS.model_copy(update={"sampling": "segments"}), **carried)


@pytest.mark.parametrize(
    ("sampling", "batch", "workers"), [("stride", 1, 0), ("segments", 13, 0), ("stride", 13, 2)]
)
def test_views_come_whole_and_in_order_and_are_decoded_once(
    videos, sampling, batch, workers, monkeypatch
):
    clips, views = CLIPS.model_copy(update={"sampling": sampling}), Views(temporal=2, spatial=3)
    decoded, real = [], open
    track._kept.cache_clear()
    monkeypatch.setattr(
        store, "open", lambda path, *how: decoded.append(path) or real(path, *how), raising=False
    )
    every = whole_views(videos, clips, views, batch, workers=workers)
    assert workers or decoded == [video.path for video in videos]
    rows = {name: torch.cat([one[name] for one in every]) for name in every[0]}
    assert rows["sample_B"].tolist() == [n for n in range(7) for _ in range(6)]
    assert rows["label_B"].tolist() == [video.label for video in videos for _ in range(6)]
    row = 0
    for video in videos:
        for index_T, crop in views_of(video, clips, views):
            (frames_THWC,) = read_clips(
                video.path, read_track(video.track()), [index_T], [crop], 24
            )
            assert np.array_equal(rows["frames_BTHWC"][row].numpy(), frames_THWC)
            row += 1
    for rank in range(2):
        how = {"share": (rank, 2), "workers": workers}
        assert_same(whole_views(videos, clips, views, batch, **how), every[rank::2])


@pytest.mark.parametrize("options", [MASKED, {"augment": Augment(rand="rand-m7-n4", repeats=2)}])
def test_small_videos_that_are_kept_give_the_same_clips(videos, options, monkeypatch):
    kept = batches(videos, **options)
    track._kept.cache_clear()
    monkeypatch.setattr(track, "SMALL", 0)
    assert_same(batches(videos, **options), kept)


def whole_views(*how, **options) -> list[dict]:
    """Return the batches of test views, without the rows of weight 0."""
    return [
        {name: x[one["weight_B"] > 0] for name, x in one.items()}
        for one in view_batches(*how, **options)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_test_video_that_cannot_be_read_is_raised_or_told(copied, workers):
    path = Path(copied[3].path)
    path.unlink()
    how = CLIPS, Views(temporal=1, spatial=1), 2
    with pytest.raises(UserError, match=path.name):
        list(view_batches(copied, *how, workers=workers))
    failed = {}
    every = whole_views(copied, *how, workers=workers, failed=failed)
    assert [batch["sample_B"].tolist() for batch in every] == [[0, 1], [2], [4, 5], [6]]
    assert list(failed) == [3]
