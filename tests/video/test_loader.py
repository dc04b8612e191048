from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from mgm.errors import NoMotion, UserError
from mgm.masking import Grid, make_mask
from mgm.rng import clip_seed, generator
from mgm.spec import Augment, Clips, Mask, Model, Views
from mgm.stages.guidance import guided as masks_of
from mgm.video import (
    container,
    loader,
    read,
    read_clip,
    slot_displacement,
    slot_magnitude,
    transform,
)
from mgm.video.motion import frame_difference
from mgm.video.transform import ClipAugmentation, multiscale, stride, view_indices
from tests.helpers.videos import indexed, moving_square, write_video

CLIPS, MODEL = Clips(frames=4, size=48, stride=3, flip=True), Model(patch=8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    shapes = [
        (20, 64, 64),
        (24, 72, 96),
        (5, 64, 80),
        (1, 64, 64),
        (24, 96, 64),
    ]  # the third and fourth are shorter than the span
    return [
        indexed(
            write_video(folder / f"{i}.mp4", moving_square(*shape, seed=i), bf=2, g=8),
            shape[0],
            i % 3,
        )
        for i, shape in enumerate(shapes)
    ]


@pytest.fixture
def broken(tmp_path):
    """Return a video that broke after it was prepared."""
    path = tmp_path / "broken.mp4"
    video = indexed(write_video(path, moving_square(20, 64, 64)), 20, 1)
    path.write_bytes(bytes(video.bytes))
    return video


def guided(motion="vectors", distance="estimated", clips=CLIPS):
    """Return options whose batches have motion that guides a mask; None: no motion."""
    if motion is None:
        return {}
    name = "mgm" if motion == "difference" else "warped"
    return masks_of(Mask(name=name, guidance=motion, distance=distance), clips, MODEL)


def first_batches(videos, count=6, motion="vectors", **options):
    given = {"seed": 7, "batch": 3} | guided(motion) | options
    batches = islice(loader.training_loader(videos, CLIPS, **given), count)
    # Workers reuse the memory of a batch.
    return [batch.map(torch.clone) for batch in batches]


def test_shuffled_guidance_takes_the_motion_of_another_video(videos):
    """The frames stay the same; the motion comes from another video, drawn by the clip's seed."""
    own, shuffled, reread = (
        first_batches(videos, count=20, motion=motion)
        for motion in ("vectors", "shuffled", "shuffled")
    )
    assert_same(shuffled, reread)
    for one, other in zip(own, shuffled):
        assert_same(
            [one._replace(motion_BSHW=None, masked_BL=None)],
            [other._replace(motion_BSHW=None, masked_BL=None)],
        )
        for b, (sample, seed) in enumerate(zip(one.sample_B.tolist(), one.seed_B.tolist())):
            guide = int(generator(seed, "guide").integers(len(videos) - 1))
            guide += guide >= sample
            assert guide != sample
            its_seed = clip_seed(seed, 0, guide)
            clip = cropped(frames_of(videos[guide], its_seed), its_seed)
            moved = slot_magnitude(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, 2)
            np.testing.assert_array_equal(other.motion_BSHW[b].numpy(), moved)


def test_shuffled_guidance_ignores_batch_mates_workers_and_the_cache(videos):
    whole = first_batches(videos, count=8, motion="shuffled")
    many = {"count": 8, "motion": "shuffled", "workers": 2, "cache_mb": 10}
    assert_same(whole, first_batches(videos, **many))
    alone = first_batches(videos, count=24, motion="shuffled", batch=1)
    for place, clip in enumerate(alone):
        assert torch.equal(clip.motion_BSHW[0], whole[place // 3].motion_BSHW[place % 3])
    assert_same(whole[5:], first_batches(videos, count=3, motion="shuffled", first_step=5))


def test_difference_guidance_compares_the_frames_of_the_clip(videos):
    plain, compared = (first_batches(videos, 2, motion=m) for m in (None, "difference"))
    for without, batch in zip(plain, compared):
        assert torch.equal(without.frames_BTHWC, batch.frames_BTHWC)
        for frames_THWC, motion_SHW in zip(batch.frames_BTHWC, batch.motion_BSHW):
            known_SHW = frame_difference(frames_THWC.numpy(), 2)
            assert np.array_equal(motion_SHW.numpy(), known_SHW)


def test_shuffled_guidance_wants_two_videos(videos):
    with pytest.raises(UserError, match="mask.guidance is shuffled, .* 2 .* 1;"):
        first_batches(videos[:1], motion="shuffled")


def frames_of(video, seed, motion=True):
    return read_clip(video.path, stride(video.frames, 4, 3, generator(seed, "sample")), motion)


def cropped(clip, seed):
    rng = generator(seed, "crop")
    crop = multiscale(*clip.frames_THWC.shape[1:3], 48, rng)
    return clip.cut(replace(crop, flip=rng.random() < 0.5), 48)


def assert_same(ones, twos):
    assert len(ones) == len(twos)
    for one, two in zip(ones, twos):
        for name, value in one._asdict().items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, getattr(two, name), rtol=0, atol=0, msg=name)
            else:
                assert value == getattr(two, name), name


def test_a_clip_is_a_function_of_run_seed_epoch_and_sample(videos):
    """Each clip of twelve epochs equals one that is made again step by step."""
    batches = first_batches(videos, count=20)
    place = 0
    for batch in batches:
        for b in range(3):
            epoch, nth = divmod(place, len(videos))
            sample = int(generator(clip_seed(7, epoch, -1), "order").permutation(len(videos))[nth])
            seed = clip_seed(7, epoch, sample)
            clip = cropped(frames_of(videos[sample], seed), seed)
            np.testing.assert_array_equal(batch.frames_BTHWC[b].numpy(), clip.frames_THWC)
            magnitude = slot_magnitude(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, 2)
            np.testing.assert_array_equal(batch.motion_BSHW[b].numpy(), magnitude)
            shift = (
                slot_displacement(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, 2, 3) / 48
            )
            grid, seed_1 = Grid(2, 6, 6), np.array([seed])
            mask = Mask(name="warped")
            masked_1L = make_mask(mask, grid, magnitude[None], seed_1, shift[None])
            assert np.array_equal(batch.masked_BL[b], masked_1L[0])
            assert (batch.seed_B[b], batch.sample_B[b], batch.label_B[b], batch.weight_B[b]) == (
                seed,
                sample,
                videos[sample].label,
                1,
            )
            place += 1
    assert torch.isfinite(batches[0].motion_BSHW).all()
    assert any(batch.motion_BSHW.any() for batch in batches)
    assert [t.dtype for t in batches[0][:6]] == [
        torch.uint8,
        torch.int64,
        torch.int64,
        torch.int64,
        torch.float32,
        torch.float32,
    ]


def test_vectors_as_exported_are_not_divided(videos):
    """`distance: none` follows eq. 6 to the letter; frames are the same."""
    loaders = [
        loader.training_loader(videos, CLIPS, seed=7, batch=3, **guided(distance=distance))
        for distance in ("estimated", "none")
    ]
    farther = 0
    for _, divided, exported in zip(range(4), *loaders):
        assert torch.equal(divided.frames_BTHWC, exported.frames_BTHWC)
        assert (exported.motion_BSHW >= divided.motion_BSHW).all()
        farther += (exported.motion_BSHW > divided.motion_BSHW).sum()
    assert farther


REPEATED = Augment(repeats=3)
ALL = Augment(rand="rand-m7-n4-mstd0.5-inc1", erasing=0.5, repeats=2)


@pytest.mark.parametrize(
    ("workers", "megabytes", "step"), [(2, 0, 0), (0, 100, 3), (0, 0.5, 0), (1, 0.5, 3)]
)
@pytest.mark.parametrize(
    "options", [{}, {"augment": ALL, "motion": None}], ids=["plain", "augmented"]
)
def test_workers_cache_and_resuming_change_nothing(
    videos, broken, options, workers, megabytes, step
):
    rows = [*videos, broken]
    again = first_batches(
        rows, 6 - step, **options, first_step=step, workers=workers, cache_mb=megabytes
    )
    assert_same(first_batches(rows, **options)[step:], again)


def test_masks_from_workers_are_those_of_whole_batches(videos, broken, monkeypatch):
    """A mask depends only on its clip, so pieces of a batch have the same masks."""
    monkeypatch.setattr(loader, "PIECE", 2)
    rows = [*videos[:3], broken]
    for motion in ("vectors", "difference"):
        whole = first_batches(rows, 3, batch=5, motion=motion)
        own = first_batches(rows, 3, batch=5, motion=motion, workers=2)
        assert_same(whole, own)
        assert all(batch.masked_BL.any() for batch in own)


@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("repeats", [1, 2])
def test_pieces_from_workers_make_the_same_batches(videos, broken, monkeypatch, repeats, step):
    """Pieces of 2 clips, of a batch of 5 videos. The broken video is in every batch."""
    given = {"batch": 5, "motion": None, "augment": Augment(repeats=repeats)}
    rows = [*videos[:3], broken, broken]
    whole = first_batches(rows, 4, **given)[step:]
    assert all((batch.weight_B == 0).any() for batch in whole)
    monkeypatch.setattr(loader, "PIECE", 2)
    assert_same(whole, first_batches(rows, 4 - step, **given, first_step=step, workers=2))


@pytest.fixture
def caches(monkeypatch):
    """Return the caches that loaders make."""
    made = []

    def noted(megabytes, real=read.Cache):
        made.append(real(megabytes))
        return made[-1]

    monkeypatch.setattr(loader, "Cache", noted)
    return made


@pytest.fixture
def decoded(monkeypatch):
    """Return (path, frames) of each decoding pass."""
    passes = []

    def noted(source, wanted_N, real=read.wanted_pictures):
        passes.append((source.path, len(wanted_N)))
        return real(source, wanted_N)

    monkeypatch.setattr(read, "wanted_pictures", noted)
    return passes


def test_a_cache_keeps_within_its_bounds_and_saves_decoding(videos, caches, decoded):
    first_batches(videos, cache_mb=0.7)
    kept = sum(frames_THWC.nbytes for frames_THWC in caches[0].frames_of.values())
    for motion in caches[0].motion_of.values():
        kept += motion.vectors_THW2.nbytes + motion.distance_THW.nbytes + motion.has_mv_T.nbytes
    assert 0 < kept <= 0.7e6
    decoded.clear()
    first_batches(videos, count=20, cache_mb=100)
    assert max(Counter(path for path, _ in decoded).values()) <= 2


def test_a_video_that_is_too_large_leaves_the_cache_to_the_others(
    videos, tmp_path, caches, decoded
):
    """Its first frame is decoded, once, to learn its size."""
    large = indexed(write_video(tmp_path / "large.mp4", moving_square(200, 128, 128)), 200)
    first_batches([large, *videos], count=4, cache_mb=1.5)
    assert large.path not in caches[0].frames_of
    assert len(caches[0].frames_of) > 1
    of_large = [frames for path, frames in decoded if path == large.path]
    assert of_large == [1, CLIPS.frames, CLIPS.frames]


def test_a_video_of_another_size_than_its_track_is_named(videos):
    for fields in ({"height": 32}, {"bytes": 99}):
        with pytest.raises(NoMotion, match="is of a video of"):
            first_batches([replace(videos[0], **fields)], count=1, batch=1)


@pytest.mark.parametrize("motion", ["vectors", "shuffled", None])
def test_no_file_is_searched_for_its_times(videos, monkeypatch, motion):
    """Times come from the tracks, also those of clips without motion."""
    monkeypatch.setattr(container, "_facts", None)
    for batch in first_batches(videos, 4, motion=motion):
        assert batch.weight_B.all()


def test_an_unreadable_training_video_keeps_its_place_with_weight_0(videos, broken):
    rows = [videos[0], broken, videos[1]]
    for batch in first_batches(rows, count=4):
        is_broken = batch.sample_B == 1
        assert is_broken.sum() == 1
        assert torch.equal(batch.weight_B, (~is_broken).float())
        assert not batch.frames_BTHWC[is_broken].any()
        assert batch.frames_BTHWC[~is_broken].flatten(1).any(1).all()


def test_a_video_with_fewer_frames_than_indexed_fails_only_where_they_are_wanted(videos):
    longer = indexed(videos[0].path, 24, 0)  # the file has 20 frames
    with pytest.raises(NoMotion, match="20 frames.* 24"):
        first_batches([longer])
    longer = replace(longer, track="")
    for megabytes in (0, 100):
        weights = torch.cat(
            [
                batch.weight_B
                for batch in first_batches([longer], 20, motion=None, cache_mb=megabytes)
            ]
        )
        assert 0 < weights.mean() < 1


@pytest.mark.parametrize("sampling", ["stride", "segments"])
@pytest.mark.parametrize("batch", [1, 13])
def test_test_views_come_whole_and_in_order(videos, sampling, batch):
    clips = Clips(frames=4, size=48, stride=3, sampling=sampling)
    batches = list(loader.test_loader(videos, clips, Views(temporal=2, spatial=3), batch))
    assert [len(b.sample_B) for b in batches] == ([6] * 5 if batch == 1 else [12, 12, 6])
    frames_NTHWC = torch.cat([b.frames_BTHWC for b in batches])
    sample_N = torch.cat([b.sample_B for b in batches])
    n = 0
    for sample, video in enumerate(videos):
        for temporal in range(2):
            clip = read_clip(video.path, view_indices(clips, video.frames, temporal, 2))
            for spatial in range(3):
                frame = clip.frames_THWC.shape[1:3]
                view = clip.cut(transform.test_crop(*frame, spatial, 3, 48), 48)
                assert sample_N[n] == sample
                np.testing.assert_array_equal(frames_NTHWC[n].numpy(), view.frames_THWC)
                n += 1
    with_workers = list(
        loader.test_loader(videos, clips, Views(temporal=2, spatial=3), batch, workers=2)
    )
    assert_same(batches, with_workers)


def test_repeats_come_from_one_decoding_pass(videos, monkeypatch):
    paths = []

    def counted(path, *rest, real=read.open_video):
        paths.append(path)
        return real(path, *rest)

    monkeypatch.setattr(read, "open_video", counted)
    batches = first_batches(videos, count=5, augment=REPEATED)
    assert sorted(paths) == sorted(
        video.path for video in videos * 3
    )  # three epochs, each video once in each
    assert [len(batch.sample_B) for batch in batches] == [9] * 5


def test_repeats_share_their_frames_and_have_crops_of_their_own(videos):
    """Repeats share one decoding pass and differ in their crops, as in VideoMAE's kinetics.py.

    There, `_aug_frame` gets the same buffer of `loadvideo_decord` for each repeat.
    """
    for batch in first_batches(videos, augment=REPEATED):
        for video_at in range(0, len(batch.seed_B), 3):
            clip = frames_of(videos[batch.sample_B[video_at]], batch.seed_B[video_at].item())
            for b in range(video_at, video_at + 3):
                np.testing.assert_array_equal(
                    batch.frames_BTHWC[b].numpy(), cropped(clip, batch.seed_B[b].item()).frames_THWC
                )


def test_repeats_in_pretraining_have_masks_of_their_own(videos):
    """The first repeat is the clip without repeats, and its mask. The others differ."""
    single, repeated = (
        first_batches(videos, count=2, augment=Augment(repeats=repeats)) for repeats in (1, 3)
    )
    for one, many in zip(single, repeated):
        assert_same([one], [many.map(lambda x: x[::3])])
        masked_V3L = many.masked_BL.unflatten(0, (-1, 3))
        assert (masked_V3L[:, :1] != masked_V3L[:, 1:]).any(2).any()
        assert (many.sample_B.view(-1, 3) == one.sample_B[:, None]).all()


def test_augmentation_comes_before_the_crop_and_erasing_after_it(videos):
    """Each augmented clip equals one that is made again step by step."""
    augmentation = ClipAugmentation(ALL)
    for batch in first_batches(videos, augment=ALL, motion=None):
        for b, seed in enumerate(batch.seed_B.tolist()):
            clip, rng = (
                frames_of(videos[batch.sample_B[b]], batch.seed_B[b // 2 * 2].item(), motion=False),
                generator(seed, "augment"),
            )
            clip.frames_THWC[:] = augmentation.rand(clip.frames_THWC, rng)
            erased = augmentation.erase(cropped(clip, seed).frames_THWC, rng)
            np.testing.assert_array_equal(batch.frames_BTHWC[b].numpy(), erased)


def test_frames_are_not_moved_away_from_their_vectors(videos):
    with pytest.raises(ValueError, match="RandAugment"):
        first_batches(videos, augment=ALL)


@pytest.fixture(scope="module")
def gradient(tmp_path_factory):
    """Return a lossless video of 100 frames of 90 x 60 pixels.

    Red encodes the frame's number, green the column.
    """
    frames_THWC = np.zeros((100, 60, 90, 3), np.uint8)
    frames_THWC[..., 0] = 2 * np.arange(100)[:, None, None]
    frames_THWC[..., 1] = 2 * np.arange(90)
    path = tmp_path_factory.mktemp("gradient") / "gradient.avi"
    return indexed(write_video(path, frames_THWC, codec="ffv1", pix_fmt="bgr0"), 100, 0)


@pytest.mark.parametrize(
    ("clips", "views", "frames"),
    [
        # Exact stride 4, and views evenly spaced from the first frame to the last. VideoMAE's
        # kinetics.py takes every 4th frame and starts view k at int(k * (25 - 16) / 4) of them.
        (
            Clips(frames=16, size=60, stride=4, sampling="window"),
            Views(temporal=5, spatial=3),
            [[4 * (start + t) for t in range(16)] for start in (0, 2, 4, 6, 9)],
        ),
        (  # starts of the segments, then their mid-points
            Clips(frames=16, size=60, sampling="segments"),
            Views(temporal=2, spatial=3),
            [
                [int(100 / 16 * t) for t in range(16)],
                [int(100 / 32 + 100 / 16 * t) for t in range(16)],
            ],
        ),
    ],
)
def test_views_lie_where_the_recipes_say(gradient, clips, views, frames):
    (batch,) = loader.test_loader([gradient], clips, views, 64)
    seen = [
        (clip[:, 0, 0, 0].tolist(), clip[0, 0, 0, 1].item() // 2) for clip in batch.frames_BTHWC
    ]
    assert seen == [
        ([2 * t for t in of_view], left) for of_view in frames for left in (0, 15, 30)
    ]  # three squares along the long side
