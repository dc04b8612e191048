"""Clips from shards have the source files' masks bit for bit, and nearly their pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.folder import index_folder
from mgm.data.index import Index
from mgm.data.shards import Settings, write_shards
from mgm.masking import Grid, make_mask
from mgm.spec import MASKS, Augment, Clips, Views
from mgm.stages.job import motion_of
from mgm.video import BatchOptions, Cache, NoVectors, probe_video, read_clip, training_loader
from mgm.video import test_loader as view_loader
from mgm.video.optical_flow import NoFlow
from mgm.video.shard_reader import NotInShard
from mgm.video.vectors import read_vectors
from tests.helpers.videos import CLIPS as REAL_CLIPS
from tests.helpers.videos import moving_square, rotate_metadata, write_video

CLIPS = Clips(frames=8, size=64, stride=2)


def sources(folder: Path, real: bool) -> Path:
    """Write one folder of videos per class, and return `folder`.

    Each has a video of each codec with motion vectors, a rotated one, and one without vectors. With
    `real`, real clips join them.
    """
    for label, seed in (("a", 1), ("b", 2)):
        below = folder / label
        below.mkdir(parents=True)
        frames = moving_square(40, 160, 208, (6, 2), side=40, seed=seed)
        write_video(below / "h264.mp4", frames, gop=12, b_frames=3)
        write_video(below / "turned.mp4", frames)
        rotate_metadata(below / "turned.mp4", 90, 160, 208)
        write_video(below / "mpeg4.avi", frames, "mpeg4", gop=12, b_frames=2)
        write_video(below / "mpeg1.mpg", frames, "mpeg1video", gop=12, b_frames=2)
        write_video(below / "vp9.webm", frames[:20], "libvpx-vp9")
        if real:
            for kind in ("fight", "other", "ucf101", "ut_interaction"):
                for path in sorted(
                    path
                    for path in (REAL_CLIPS / kind).rglob("*.*")
                    if path.suffix in (".avi", ".mp4", ".mpg", ".mkv")
                )[:2]:
                    (below / f"{kind}-{path.name}").symlink_to(path)
    return folder


@pytest.fixture(scope="module", params=["generated", pytest.param("real", marks=pytest.mark.real)])
def indices(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Index]:
    """Return the index of the videos, and the index of their shards.

    With "real", real clips join the generated ones.
    """
    folder = tmp_path_factory.mktemp("shards")
    source = index_folder(
        sources(folder / "videos", request.param == "real"), folder / "out" / "source", 0
    )
    return source, write_shards(source, folder / "out", Settings(short_side=128))


def with_vectors(index: Index):
    return [video for video in index.videos if video.has_vectors]


def test_masks_from_shards_are_the_sources_bit_for_bit(indices):
    files, shards = map(with_vectors, indices)
    assert {"h264", "mpeg4", "mpeg1video"} <= {video.codec for video in shards}
    repeats = Augment(repeats=2)
    loaders = (
        training_loader(
            videos,
            CLIPS,
            2,
            seed=1,
            batch=len(videos),
            how=BatchOptions(augment=repeats, directions=True),
        )
        for videos in (files, shards)
    )
    for _, of_files, of_shards in zip(range(2), *loaders):
        assert not of_shards.failed
        for name in ("motion_BSHW", "displacement_BSHW2", "seed_B", "label_B", "sample_B"):
            assert torch.equal(getattr(of_files, name), getattr(of_shards, name)), name
        # A crop may miss what moves.
        assert (of_shards.motion_BSHW.flatten(1).amax(1) > 0).float().mean() > 0.8
        for mask in MASKS:
            masks = [
                make_mask(mask, Grid(4, 4, 4), motion_of(batch), batch.seed_B)
                for batch in (of_files, of_shards)
            ]
            assert torch.equal(*masks), mask
        error_B = (
            (of_files.frames_BTHWC.float() - of_shards.frames_BTHWC.float())
            .abs()
            .flatten(1)
            .mean(1)
        )
        assert error_B.max() < 12
        assert error_B.median() < 4


def test_whole_videos_views_and_the_cache_see_the_same_motion(indices):
    files, shards = map(with_vectors, indices)
    for file, shard in zip(files, shards):
        assert probe_video(shard.path) == replace(
            probe_video(file.path), duration_s=probe_video(shard.path).duration_s
        )
        index_T = np.arange(0, file.frames, 3)
        assert np.array_equal(
            read_clip(file.path, index_T).distance_THW, read_clip(shard.path, index_T).distance_THW
        )
        whole, kept = read_vectors(file.path), read_vectors(shard.path)
        assert whole.kinds_T == kept.kinds_T
        assert np.array_equal(whole.speed, kept.speed)
    views = Views(temporal=2, spatial=3)
    batches = [
        torch.cat(
            [
                batch.motion_BSHW
                for batch in view_loader(videos, CLIPS, 2, views, 6, BatchOptions(cache=cache))
            ]
        )
        for videos, cache in ((files, None), (shards, None), (shards, Cache(500)))
    ]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_a_codec_without_vectors_is_refused_for_guidance_only(indices):
    video = next(video for video in indices[1].videos if not video.has_vectors)
    assert read_clip(video.path, [0, 3], motion=False).frames_THWC.shape == (2, 128, 166, 3)
    with pytest.raises(NoVectors, match=r"a/vp9\.webm: .*vp9,"):
        read_clip(video.path, [0])
    with pytest.raises(NoFlow, match=r"a/vp9\.webm: .*flow"):
        next(training_loader([video], CLIPS, 2, seed=0, batch=1, how=BatchOptions("dis")))


def test_every_fourth_frame_is_enough_for_stride_four(indices, tmp_path):
    source = replace(
        indices[0], videos=tuple(video for video in indices[0].videos if video.frames >= 40)
    )
    shards = write_shards(source, tmp_path, Settings(short_side=128, every=4))
    assert {video.frames % 4 for video in shards.videos} == {1}
    assert shards.digest != indices[1].digest
    clips = Clips(frames=4, size=64, stride=4, start_multiple=4)
    batch = next(
        training_loader(with_vectors(shards), clips, 2, seed=0, batch=len(with_vectors(shards)))
    )
    assert not batch.failed
    file, shard = with_vectors(source)[0], with_vectors(shards)[0]
    index_T = np.array([0, 4, 12, 36])
    assert np.array_equal(
        read_clip(file.path, index_T).motion_THW2, read_clip(shard.path, index_T).motion_THW2
    )
    with pytest.raises(NotInShard, match=r"\.tar#\d+/.*: .*start_multiple to 4"):
        next(training_loader(with_vectors(shards), replace_start(clips, 1), 2, seed=0, batch=20))


def replace_start(clips: Clips, multiple: int) -> Clips:
    return clips.model_copy(update={"start_multiple": multiple})
