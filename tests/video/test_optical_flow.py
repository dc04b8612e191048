"""Tracks of optical flow: estimation, writing, reading and refusals."""

import itertools
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from mgm.data.tracks import write_track
from mgm.errors import NoMotion, UserError
from mgm.rng import generator
from mgm.spec import Clips, Mask, Model
from mgm.stages.guidance import guided
from mgm.video import loader, probe_video, read_clip, slot_magnitude
from mgm.video import optical_flow as flow
from mgm.video.decode import read_pictures
from mgm.video.motion import cells
from mgm.video.optical_flow import (
    cell_means,
    estimator,
    motions,
    raft_weights,
)
from mgm.video.read import Cache, read
from mgm.video.track import Track, track_path
from mgm.video.transform import random_crop, stride
from tests.helpers.errors import refused
from tests.helpers.videos import indexed, moving_square, rotate_metadata, write_video

NUMBER = itertools.count()


def pan(frames, height, width, step, seed=0) -> np.ndarray:
    """Return (T, H, W, 3) uint8: a smooth texture that moves by `step` (dx, dy) per frame."""
    rng = np.random.default_rng(seed)
    margin = frames * max(map(abs, step))
    coarse_CHW = torch.from_numpy(
        rng.uniform(0, 255, (1, 3, (height + 2 * margin) // 6 + 1, (width + 2 * margin) // 6 + 1))
    )
    scene_HWC = (
        torch.nn.functional.interpolate(coarse_CHW, scale_factor=6, mode="bicubic")[0]
        .clamp(0, 255)
        .permute(1, 2, 0)
        .numpy()
    )
    top, left = ([margin - step[axis] * t for t in range(frames)] for axis in (1, 0))
    return np.stack([scene_HWC[y : y + height, x : x + width] for y, x in zip(top, left)]).astype(
        np.uint8
    )


@pytest.mark.parametrize(
    ("height", "width", "step"), [(128, 160, (3, -2)), (131, 150, (-4, 1)), (45, 52, (2, 1))]
)
def test_a_known_translation_is_found(height, width, step):
    """Translations are found, also in frames that are enlarged or have sides not divisible by 8.

    Content enters at the edges, so only the middle counts. Its mean is within 0.3 pixels (DIS errs
    by 0.05 on this texture), and 9 of 10 pixels are within half a pixel.
    """
    flow_THW2 = estimator("dis", None)(pan(3, height, width, step))
    assert flow_THW2.shape == (2, height, width, 2)
    assert flow_THW2.dtype == np.float32
    middle = flow_THW2[:, height // 4 : -height // 4, width // 4 : -width // 4]
    np.testing.assert_allclose(middle.mean((0, 1, 2)), step, atol=0.3)
    assert (np.linalg.norm(middle - step, axis=-1) < 0.5).mean() > 0.9


def test_motion_lies_where_things_are_in_the_later_frame():
    """The strip that a square has just reached moves with the square.

    With the earlier frame's places, the strip would be static background.
    """
    frames_THWC = moving_square(2, 128, 160, (8, 0), side=48)
    (flow_HW2,) = estimator("dis", None)(frames_THWC)
    assert (frames_THWC[1, 48:80, 56:64] > 100).all()
    assert (frames_THWC[0, 48:80, 56:64] < 100).all()
    np.testing.assert_allclose(
        np.median(flow_HW2[48:80, 56:64].reshape(-1, 2), 0), (8, 0), atol=1.5
    )  # flow blurs at edges
    assert np.linalg.norm(flow_HW2[:, 90:], axis=-1).max() < 0.5


def slow_cell_means(flow_HW2):
    height, width = flow_HW2.shape[:2]
    means = np.zeros((cells(height), cells(width), 2))
    for row in range(cells(height)):
        for column in range(cells(width)):
            inside = [
                flow_HW2[y, x]
                for y in range(row * 8, row * 8 + 8)
                for x in range(column * 8, column * 8 + 8)
                if y < height and x < width
            ]
            means[row, column] = sum(vector.astype(float) for vector in inside) / len(inside)
    return means


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 23), (5, 9)])
def test_a_cell_has_the_mean_of_its_pixels(height, width):
    flow_HW2 = np.random.default_rng(0).normal(0, 10, (height, width, 2)).astype(np.float32)
    np.testing.assert_allclose(
        cell_means(flow_HW2), slow_cell_means(flow_HW2), rtol=1e-4, atol=1e-5
    )  # float32 sums of 64


def flow_of(path):
    """Return the path of a new track of DIS."""
    video = replace(probe_video(path), track=f"{path}-{next(NUMBER)}")
    write_track(video, "dis")
    return track_path(video.track, "dis")


def write_small_pan(path, frames=12, **options):
    return write_video(path, pan(frames, 48, 64, (2, 1)), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pyramid.mp4", {"g": 8, "bf": 3}),
        (
            "variable_rate.mp4",
            {"g": 7, "times": np.cumsum(np.random.default_rng(0).integers(10, 90, 12))},
        ),
        ("mpeg4.avi", {"codec": "mpeg4", "b_frames": 2}),
        ("vp8.webm", {"codec": "libvpx"}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("turned.mp4", {}),
    ],
)
def test_frame_i_of_a_track_is_frame_i_of_the_clip(tmp_path, name, options):
    """Its vectors equal the flow computed from the frames that `read_clip` returns.

    Float16 keeps 11 bits of a few pixels.
    """
    path = write_small_pan(tmp_path / name, **options)
    if name == "turned.mp4":
        rotate_metadata(path, 90, 48, 64)
    clip, dis = read_clip(path, range(12), motion=False), estimator("dis")
    track = Track(flow_of(path))
    whole = track[:]
    assert whole.vectors_THW2.shape == (12, cells(clip.height), cells(clip.width), 2)
    assert whole.has_mv_T.tolist() == [False] + 11 * [True]
    for t in range(1, 12):
        vectors_HW2 = cell_means(dis(clip.frames_THWC[t - 1 : t + 1])[0])
        np.testing.assert_allclose(whole.vectors_THW2[t], vectors_HW2, atol=0.01)
    some = track[[5, 0, 11, 5]]
    np.testing.assert_array_equal(some.vectors_THW2, whole.vectors_THW2[[5, 0, 11, 5]])
    assert some.vectors_THW2.dtype == np.float32
    assert (some.distance_THW == 1).all()
    for picture, frame_HWC in read_pictures(path):
        np.testing.assert_array_equal(frame_HWC, clip.frames_THWC[picture.index])


def test_frames_are_read_a_few_at_a_time_and_how_many_changes_nothing(tmp_path, monkeypatch):
    path, dis, most = write_small_pan(tmp_path / "v.mp4"), estimator("dis"), 0

    def watched(frames_THWC):
        nonlocal most
        most = max(most, len(frames_THWC))
        return dis(frames_THWC)

    at_once = list(motions(path, dis))
    monkeypatch.setattr(flow, "PIXELS", 3 * 48 * 64)
    by_threes = list(motions(path, watched))
    assert most == 4
    assert [t for t, _, _ in at_once] == [t for t, _, _ in by_threes] == list(range(12))
    for (_, one, _), (_, two, _) in zip(at_once, by_threes):
        np.testing.assert_array_equal(one, two)


def test_frames_that_do_not_decode_leave_no_motion_information(tmp_path, monkeypatch):
    path, real = write_small_pan(tmp_path / "v.mp4"), read_pictures
    whole = Track(flow_of(path))[:]
    monkeypatch.setattr(
        flow,
        "read_pictures",
        lambda path: (pair for pair in real(path) if pair[0].index not in (4, 5, 11)),
    )
    damaged = Track(flow_of(path))[:]
    # Frame 6 follows a missing frame.
    assert np.nonzero(~damaged.has_mv_T)[0].tolist() == [0, 4, 5, 6, 11]
    np.testing.assert_array_equal(
        damaged.vectors_THW2[damaged.has_mv_T], whole.vectors_THW2[damaged.has_mv_T]
    )
    assert not damaged.vectors_THW2[~damaged.has_mv_T].any()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return the path of untrained RAFT-small weights."""
    from torchvision.models.optical_flow import raft_small

    path = tmp_path_factory.mktemp("weights") / "raft.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path, weights):
    state, path = torch.load(weights, weights_only=True), tmp_path / "raft.pth"
    first = next(iter(state))
    for content in (
        None,
        b"<html>not found</html>",
        weights.read_bytes()[:1000],
        [torch.zeros(1)],
        {"model": state},
        state | {"more": torch.zeros(1)},
        {name: value for name, value in state.items() if name != first},
        state | {first: torch.zeros(3, 3)},
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with refused(f"{path}: "):
            estimator("raft-small", path)
    torch.save(state, path)
    estimator("raft-small", path)


def test_without_a_path_torchvisions_own_weights_are_used_or_one_line_says_why_not(
    tmp_path, monkeypatch
):
    from torchvision.models.optical_flow import Raft_Small_Weights

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    name = Raft_Small_Weights.DEFAULT.url.rpartition("/")[2]
    with pytest.raises(UserError, match=rf"{name} .*no route to host") as error:
        raft_weights("raft-small", None)
    assert "\n" not in str(error.value)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).touch()
    assert raft_weights("raft-small", None) == tmp_path / "checkpoints" / name  # downloaded before
    assert raft_weights("dis", None) is None
    with pytest.raises(UserError, match="--weights .*raft.pth: dis "):
        raft_weights("dis", tmp_path / "raft.pth")


CLIPS, MODEL = Clips(frames=4, size=48, stride=2, flip=True), Model(patch=8)
FLOW = Mask(guidance="dis")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return videos with and without motion vectors, each with its flow.

    One is shorter than a clip.
    """
    folder, rows = tmp_path_factory.mktemp("videos"), []
    for name, frames, codec in [
        ("a.mp4", 12, "libx264"),
        ("b.webm", 12, "libvpx-vp9"),
        ("c.webm", 3, "libvpx"),
    ]:
        rows.append(indexed(write_small_pan(folder / name, frames, codec=codec), frames))
        write_track(rows[-1], "dis")
    return rows


def batches_of(videos, **options):
    return list(
        islice(
            loader.training_loader(
                videos, CLIPS, seed=7, batch=2, **guided(FLOW, CLIPS, MODEL), **options
            ),
            5,
        )
    )


def test_a_batch_with_flow_is_what_its_tracks_say(videos):
    """Each clip of five batches equals one that is made again step by step."""
    for batch in batches_of(videos):
        for b, seed in enumerate(batch.seed_B.tolist()):
            video = videos[batch.sample_B[b]]
            index_T = stride(video.frames, 4, 2, generator(seed, "sample"))
            still = read_clip(video.path, index_T, motion=False)
            clip = replace(still, motion=Track(track_path(video.track, "dis"))[index_T])
            clip = clip.cut(random_crop(CLIPS, clip.height, clip.width, seed), 48)
            np.testing.assert_array_equal(batch.frames_BTHWC[b].numpy(), clip.frames_THWC)
            magnitude = slot_magnitude(
                clip.motion_THW2, np.ones(clip.motion_THW2.shape[:3]), index_T > 0, 2
            )
            np.testing.assert_allclose(batch.motion_BSHW[b].numpy(), magnitude, rtol=1e-6)
            assert magnitude.any()


def test_motions_of_other_methods_share_a_caches_frames(videos):
    (video, *_), cache = videos, Cache(100)
    for method in ("codec", "dis", None, "dis"):
        frames_THWC, motion = cache.find(video, method)
        (fresh,) = read(video, [np.arange(12)], None, 0, method)
        np.testing.assert_array_equal(frames_THWC, fresh.frames_THWC)
        if method:
            np.testing.assert_array_equal(motion.vectors_THW2, fresh.motion_THW2)
    assert set(cache.motion_of) == {(video.path, method) for method in ("codec", "dis", None)}
    arrays = [cache.frames_of[video.path]]
    for method in ("codec", "dis"):
        its = cache.motion_of[video.path, method]
        arrays += [its.vectors_THW2, its.distance_THW, its.has_mv_T]
    assert cache.free == 100e6 - sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_track_that_does_not_fit_stops_a_run_in_one_line(tmp_path, workers):
    row = indexed(write_small_pan(tmp_path / "v.webm", codec="libvpx-vp9"), 12)
    file = Path(track_path(row.track, "dis"))

    def stops(words, row=row):
        with pytest.raises(NoMotion, match=words) as error:
            batches_of([row], workers=workers)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(f"{file}: ")

    stops("no such track")
    write_track(row, "dis")
    good = file.read_bytes()
    file.write_bytes(good[:-100])
    stops("not a whole track")
    file.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    stops("has changed")
    file.write_bytes(good)
    stops("12 frames.* 13", replace(row, frames=13))
    assert len(batches_of([row], workers=workers)) == 5
    with pytest.raises(UserError, match="frame 12 was requested.*0 to 11"):
        Track(file)[[0, 12]]
