"""The store: what `write_video` writes is what `read_clips`, `read_planes` and players read."""

import ctypes
import gc
import os
import resource
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from mgm.errors import UserError
from mgm.spec import Clips
from mgm.video import decode, store
from mgm.video.crop import Crop, cut
from mgm.video.decode import read
from mgm.video.planes import frames_of, no_planes
from mgm.video.track import Track
from tests.helpers.videos import ROOT, moving_square, stored, write_matrix, write_video

WALK = ROOT / "docs" / "walk.mp4"


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> tuple[str, Track]:
    """A real scene in the store."""
    return stored(WALK, tmp_path_factory.mktemp("store"), short_side=272)


def smooth(frames=12, height=120, width=150):
    """Return frames whose colours change slowly, and do not leave the range of YUV."""
    t, y, x = np.mgrid[:frames, :height, :width]
    red = 128 + 60 * np.sin(x / 17 + t / 9)
    green = 128 + 60 * np.cos(y / 23 + x / 40)
    blue = 128 + 60 * np.sin((x + y) / 31 - t / 5)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def psnr(one, two):
    """Return the ratio in dB. Equal arrays have 100."""
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - two) ** 2), 1e-6))


def test_frames_are_those_of_the_source_and_motion_is_exact(walk):
    mp4, track = walk
    whole = read(WALK)
    (frames_THWC,) = store.read_clips(mp4, track, [np.arange(len(track))], None, 0)
    assert frames_THWC.shape == whole.frames_THWC.shape
    assert psnr(frames_THWC, whole.frames_THWC) > 36
    motion, known = track[:], whole.motion
    for name in ("vectors_THW2", "distance_THW", "has_mv_T"):
        np.testing.assert_array_equal(getattr(motion, name), getattr(known, name))
    facts = track.facts
    assert (facts.codec, facts.vectors, facts.bytes) == ("h264", "source", os.path.getsize(mp4))
    assert facts.fps == decode.probe(WALK).fps


def test_players_read_the_same_frames(walk):
    """FFmpeg, OpenCV and decord count and show them."""
    mp4, track = walk
    (ours_THWC,) = store.read_clips(mp4, track, [[0, 7, 20]], None, 0)
    np.testing.assert_array_equal(read(mp4, [0, 7, 20], motion=False).frames_THWC, ours_THWC)
    capture = cv2.VideoCapture(mp4)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(track)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(track.facts.fps)
    decord = pytest.importorskip("decord")
    theirs_THWC = decord.VideoReader(mp4).get_batch([0, 7, 20]).asnumpy()
    assert psnr(theirs_THWC, ours_THWC) > 40


def test_clips_are_the_crops_of_whole_frames_and_a_shared_frame_is_decoded_once(walk):
    mp4, track = walk
    index_VT = np.array([[0, 3, 5, 5], [3, 5, 9, 29]])
    height = track.facts.height
    crops = [Crop(0, 2, height - 3, height - 3, True), Crop(3, 5, 61, 80)]
    (whole_NHWC,) = store.read_clips(mp4, track, [np.arange(len(track))], None, 0)
    decoded = list(store._frames(mp4, track, index_VT, rgb=True))
    assert len(decoded) == 5
    clips_VTHWC = store.read_clips(mp4, track, index_VT, crops, 56)
    for index_T, crop, clip_THWC in zip(index_VT, crops, clips_VTHWC):
        own = np.stack([cut(whole_NHWC[index], crop, 56) for index in index_T])
        np.testing.assert_array_equal(clip_THWC, own)


@pytest.mark.parametrize(
    "crop",
    [Crop(0, 0, 112, 112), Crop(3, 7, 112, 90), Crop(1, 5, 119, 119, True), Crop(6, 3, 41, 33)],
)
def test_planes_on_the_device_are_the_frames_of_the_cpu(tmp_path, crop):
    clips = Clips(frames=4, size=112)
    path = write_video(tmp_path / "v.mp4", smooth(), crf=4)
    mp4, track = stored(path, tmp_path, short_side=240)
    index_VT, arrays = [[0, 2, 4, 9]], no_planes(clips, 120)
    store.read_planes(mp4, track, index_VT, [crop], arrays)
    rgb_VTHWC = store.read_clips(mp4, track, index_VT, [crop], 112)
    planes = {name: torch.from_numpy(array) for name, array in arrays.items()}
    off = (frames_of(112, *planes.values()).int() - torch.from_numpy(rgb_VTHWC).int()).abs()
    assert off.float().mean() < 1.2
    assert off.max() <= 5


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (0, -1, 1, 0)])
def test_frames_are_upright_small_and_even_and_motion_keeps_its_pixels(tmp_path, matrix):
    path = write_matrix(write_video(tmp_path / "v.mp4", smooth(9, 122, 202)), *matrix)
    mp4, track = stored(path, tmp_path, short_side=60)
    facts, whole = track.facts, read(path)
    assert (facts.source_height, facts.source_width) == whole.frames_THWC.shape[1:3]
    assert sorted((facts.height, facts.width)) == [60, 100]
    np.testing.assert_array_equal(track[:].vectors_THW2, whole.motion_THW2)
    (frames_THWC,) = store.read_clips(mp4, track, [np.arange(9)], None, 0)
    for frame_HWC, own_HWC in zip(frames_THWC, whole.frames_THWC):
        small_HWC = cv2.resize(own_HWC, (facts.width, facts.height), interpolation=cv2.INTER_AREA)
        assert psnr(frame_HWC, small_HWC) > 33


@pytest.mark.parametrize("colours", [{"colorspace": 1}, {"colorspace": 9}, {"color_range": 2}])
def test_colours_of_every_space_and_range_are_kept(tmp_path, colours):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "8"})
        stream.height, stream.width = 120, 150
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for frame_HWC in smooth():
            frame = av.VideoFrame.from_ndarray(frame_HWC, "rgb24").reformat(
                format="yuv420p",
                dst_colorspace=colours.get("colorspace"),
                dst_color_range=colours.get("color_range"),
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    mp4, track = stored(path, tmp_path)
    frames_THWC = store.read_clips(mp4, track, [np.arange(12)], None, 0)[0].astype(int)
    whole_THWC = read(path).frames_THWC
    assert np.abs((frames_THWC - whole_THWC).mean((0, 1, 2))).max() < 2
    assert psnr(frames_THWC, whole_THWC) > 38


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("v.webm", "libvpx-vp9", {}), ("v.mp4", "libx264", {"g": 1}), ("v.mp4", "libsvtav1", {})],
)
def test_a_source_without_vectors_gets_those_of_an_encoding(tmp_path, name, codec, options):
    drawn = moving_square(24, 96, 128, side=48)
    path = write_video(tmp_path / name, drawn, codec=codec, **options)
    _, track = stored(path, tmp_path, short_side=80)
    assert track.facts.vectors == "h264"
    assert track.facts.size == (track.facts.height, track.facts.width)
    motion = track[:]
    # I BBBBB P ...: every frame but the first has motion.
    assert motion.has_mv_T.tolist() == [False] + [True] * 23
    assert set(motion.distance_THW.ravel()) <= {1, 2, 3, 4, 5, 6}
    speed_THW2 = motion.vectors_THW2 / motion.distance_THW[..., None]
    moving = speed_THW2[np.abs(motion.vectors_THW2).sum(-1) > 1]
    assert np.median(moving, 0) == pytest.approx([4 * 80 / 96, 0], abs=0.5)


def test_the_share_of_interlaced_pictures_is_noted(tmp_path):
    parts = [
        Path(write_video(tmp_path / f"{n}.ts", moving_square(12, 96, 96), **options)).read_bytes()
        for n, options in enumerate(({}, {"flags": "+ildct+ilme", "x264_params": "tff=1"}))
    ]
    (tmp_path / "v.ts").write_bytes(b"".join(parts))
    _, track = stored(tmp_path / "v.ts", tmp_path)
    assert track.facts.interlaced == pytest.approx(0.5)


def test_a_file_that_is_cut_off_or_gone_is_not_read(tmp_path):
    mp4, track = stored(write_video(tmp_path / "v.mp4", moving_square(8)), tmp_path)
    Path(mp4).write_bytes(Path(mp4).read_bytes()[: int(track.offset_N[2]) + 9])
    assert store.read_clips(mp4, track, [[1]], None, 0).any()
    with pytest.raises(UserError, match=r"v\.stored\.mp4: frame 2 is damaged"):
        store.read_clips(mp4, track, [[2]], None, 0)
    Path(mp4).unlink()
    with pytest.raises(UserError, match=r"v\.stored\.mp4: cannot be read \(No such file"):
        store.read_clips(mp4, track, [[3]], None, 0)


def test_a_side_that_x264_does_not_take_is_one_line(tmp_path):
    path = write_video(
        tmp_path / "v.avi", moving_square(2, 32, 16_416), codec="mjpeg", pix_fmt="yuvj420p"
    )
    with pytest.raises(UserError, match=r"v\.avi: .* 16416 x 32 pixels, and a side has at most"):
        stored(path, tmp_path)


def test_a_store_keeps_the_times_of_its_source(tmp_path, rng):
    times = np.cumsum(rng.integers(10, 90, 24))
    for name, codec in (("v.mkv", "libx264"), ("v.webm", "libvpx-vp9")):
        path = write_video(tmp_path / name, moving_square(), codec=codec, times=times)
        track = stored(path, tmp_path)[1]
        np.testing.assert_allclose(track.time_T, times / 1000, atol=1e-6)
        assert track.kind_T[0] == "I"


def test_every_flipped_bit_of_a_frame_is_found(tmp_path, rng):
    """A decoder would take most of them, and show another picture."""
    mp4, track = stored(write_video(tmp_path / "v.mp4", moving_square(8)), tmp_path)
    store.check_video(mp4, track)
    good = Path(mp4).read_bytes()
    for index in rng.integers(8, size=40):
        data = bytearray(good)
        place = int(track.offset_N[index]) + int(rng.integers(track.size_N[index]))
        data[place] ^= 1 << int(rng.integers(8))
        Path(mp4).write_bytes(data)
        # A track keeps the frames of a small video.
        track, others = Track(track.path), [[n for n in range(8) if n != index]]
        assert store.read_clips(mp4, track, others, None, 0).shape[1] == 7
        damaged = rf"v\.stored\.mp4: frame {index} is damaged"
        with pytest.raises(UserError, match=damaged):
            store.read_clips(mp4, track, [[0, index]], None, 0)
        with pytest.raises(UserError, match=damaged):
            store.check_video(mp4, track)


def test_a_check_reads_all_of_the_motion(tmp_path):
    mp4, track = stored(write_video(tmp_path / "v.mp4", moving_square(8)), tmp_path)
    data = bytearray(Path(track.path).read_bytes())
    data[int(track._start_N[5]) + 4] ^= 1
    Path(track.path).write_bytes(data)
    with pytest.raises(UserError, match=r"v\.stored\.npz: its motion cannot be read"):
        store.check_video(mp4, Track(track.path))


def test_memory_and_open_files_stay_flat(walk):
    mp4, track = walk
    crop, out = [Crop(0, 0, 80, 80)], np.empty((1, 8, 56, 56, 3), np.uint8)

    def some(count):
        for n in range(count):
            track.motion(np.arange(8) + n % 4).under(crop[0], 56).magnitude(2)
            store.read_clips(mp4, track, [np.arange(8) + n % 4], crop, 56, out)
        gc.collect()
        # The memory of now, without what earlier tests have freed. A peak, or free memory that is
        # used again, would hide a leak that is smaller than they.
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() // 1000, len(os.listdir("/proc/self/fd"))

    some(30)
    (before, files), (after, still) = some(10), some(120)
    assert after - before < 2000  # kB
    # Frames of a large video do not stay.
    assert not track.pixels
    assert still == files
