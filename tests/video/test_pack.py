"""Clips from packs have the source files' masks bit for bit, and nearly their pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.copies import copy_videos
from mgm.data.folder import index_folder
from mgm.data.index import Index
from mgm.errors import UserError
from mgm.spec import Augment, Clips, Mask, Model, Views
from mgm.stages.guidance import mask_options
from mgm.video import Cache, NoVectors, probe_video, read_clip
from mgm.video.loader import BatchOptions, training_loader
from mgm.video.loader import test_loader as view_loader
from mgm.video.optical_flow import NoFlow
from mgm.video.vectors import read_vectors
from tests.helpers.videos import CARRIED, moving_square, rotate_metadata, write_video

CLIPS, MODEL = Clips(frames=8, size=64, stride=2), Model(patch=8)


def sources(folder: Path) -> Path:
    """Write one folder of videos per class, and return `folder`.

    Each has a video of each codec with motion vectors, a rotated one, and one without vectors.
    Carried clips join them.
    """
    for label, seed in (("a", 1), ("b", 2)):
        below = folder / label
        below.mkdir(parents=True)
        frames = moving_square(40, 160, 208, (6, 2), side=40, seed=seed)
        write_video(below / "h264.mp4", frames, gop=12, b_frames=3)
        write_video(below / "turned.mp4", frames)
        rotate_metadata(below / "turned.mp4", 90)
        write_video(below / "mpeg4.avi", frames, "mpeg4", gop=12, b_frames=2)
        write_video(below / "mpeg1.mpg", frames, "mpeg1video", gop=12, b_frames=2)
        write_video(below / "vp9.webm", frames[:20], "libvpx-vp9")
        for path in CARRIED:
            (below / f"carried-{path.name}").symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Index]:
    """Return the index of the videos, and the index of their packs."""
    folder = tmp_path_factory.mktemp("packs")
    videos = sources(folder / "videos")
    source = index_folder(videos, folder / "out" / "source", 0)
    return source, copy_videos(source, folder / "out", "pack", 128)


def with_vectors(index: Index):
    return [video for video in index.videos if video.has_vectors]


def test_clips_from_packs_have_the_motion_of_the_sources_bit_for_bit(indices):
    files, packs = map(with_vectors, indices)
    assert {"h264", "mpeg4", "mpeg1video"} <= {video.codec for video in packs}
    repeats = mask_options(Mask(), CLIPS, MODEL, augment=Augment(repeats=2))
    loaders = (
        training_loader(videos, CLIPS, seed=1, batch=len(videos), how=repeats)
        for videos in (files, packs)
    )
    for _, of_files, of_packs in zip(range(2), *loaders):
        assert not of_packs.failed
        for name in ("motion_BSHW", "seed_B", "label_B", "sample_B"):
            assert torch.equal(getattr(of_files, name), getattr(of_packs, name)), name
        # A crop may miss what moves.
        assert (of_packs.motion_BSHW.flatten(1).amax(1) > 0).float().mean() > 0.8
        difference_BTHWC = of_files.frames_BTHWC.float() - of_packs.frames_BTHWC.float()
        error_B = difference_BTHWC.abs().flatten(1).mean(1)
        assert error_B.max() < 12
        assert error_B.median() < 4


def test_whole_videos_views_and_the_cache_see_the_same_motion(indices):
    files, packs = map(with_vectors, indices)
    for file, pack in zip(files, packs):
        assert probe_video(pack.path).fps == probe_video(file.path).fps
        assert (pack.frames, pack.height, pack.width) == (file.frames, file.height, file.width)
        index_T = np.arange(0, file.frames, 3)
        of_file, of_pack = (read_clip(video.path, index_T) for video in (file, pack))
        assert np.array_equal(of_file.motion_THW2, of_pack.motion_THW2)
        assert np.array_equal(of_file.distance_THW, of_pack.distance_THW)
        whole, kept = read_vectors(file.path), read_vectors(pack.path)
        assert whole.kinds_T == kept.kinds_T
        assert np.array_equal(whole.speed, kept.speed)
    views = Views(temporal=2, spatial=3)
    batches = [
        torch.cat(
            [
                batch.motion_BSHW
                for batch in view_loader(
                    videos, CLIPS, views, 6, mask_options(Mask(), CLIPS, MODEL, cache=cache)
                )
            ]
        )
        for videos, cache in ((files, None), (packs, None), (packs, Cache(500)))
    ]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_a_codec_without_vectors_is_refused_for_guidance_only(indices):
    video = next(video for video in indices[1].videos if not video.has_vectors)
    assert read_clip(video.path, [0, 3], motion=False).frames_THWC.shape == (2, 128, 166, 3)
    with pytest.raises(NoVectors, match=r"a/vp9\.pack: .*vp9,"):
        read_clip(video.path, [0])
    with pytest.raises(NoFlow, match=r"a/vp9\.pack: .*flow"):
        next(training_loader([video], CLIPS, seed=0, batch=1, how=BatchOptions("dis")))


def test_a_flipped_byte_is_found_wherever_it_lies(indices, tmp_path):
    video, path = indices[1].videos[0], tmp_path / "flipped.pack"
    whole = Path(video.path).read_bytes()
    for share in np.linspace(0, 1, 40, endpoint=False):
        data = bytearray(whole)
        data[int(share * len(data))] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"flipped\.pack: "):
            read_clip(path, range(video.frames))
