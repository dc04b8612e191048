from itertools import islice

import av
import numpy as np
import pytest
import torch

from mgm.spec import Clips
from mgm.video import loader
from mgm.video.planes import frames_of
from tests.helpers.videos import indexed, moving_square, write_video

CLIPS = Clips(frames=4, size=56, stride=2, flip=True)


def batches(videos, **options):
    read = loader.training_loader(videos, CLIPS, seed=3, batch=4, **options)
    return [batch.map(torch.clone) for batch in islice(read, 6)]


def made_of(batch):
    return frames_of(CLIPS.size, *batch.planes)


def smooth(frames, height, width):
    """Return frames whose colours change slowly, and do not leave the range of YUV."""
    t, y, x = np.mgrid[:frames, :height, :width]
    red = 128 + 60 * np.sin(x / 17 + t / 9)
    green = 128 + 60 * np.cos(y / 23 + x / 40)
    blue = 128 + 60 * np.sin((x + y) / 31 - t / 5)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def tagged(path, frames_THWC, colours):
    """Write a video whose stream names its colour space."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "10"})
        _, stream.height, stream.width, _ = frames_THWC.shape
        stream.pix_fmt = colours.pop("pix_fmt", "yuv420p")
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for frame_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(frame_HWC, "rgb24")
            container.mux(stream.encode(frame.reformat(dst_colorspace=colours.get("colorspace"))))
        container.mux(stream.encode(None))
    return indexed(path, len(frames_THWC))


@pytest.mark.parametrize(
    ("height", "width", "colours", "mean", "most"),
    [
        # swscale rounds down, so frames of the CPU are darker by up to 1.5 of 255.
        (60, 64, {}, 1.6, 5),
        (60, 64, {"colorspace": 1}, 1.6, 5),
        (60, 64, {"pix_fmt": "yuvj420p"}, 1.6, 5),
        # The worker scales first, and then halves the resolution of the colours.
        (180, 150, {}, 2.5, 14),
        (60, 64, {"pix_fmt": "yuv444p"}, 2.5, 14),
    ],
    ids=["plain", "BT.709", "full range", "larger than the room", "4:4:4"],
)
def test_the_device_makes_the_frames_of_the_cpu(tmp_path, height, width, colours, mean, most):
    video = tagged(tmp_path / "v.mp4", smooth(12, height, width), dict(colours))
    for plain, planes in zip(batches([video]), batches([video], planes=True)):
        assert planes.frames_BTHWC.numel() == 0
        assert torch.equal(planes.seed_B, plain.seed_B)
        off = (made_of(planes).int() - plain.frames_BTHWC.int()).abs()
        assert off.float().mean() < mean
        assert off.max() <= most


def test_planes_do_not_depend_on_workers(tmp_path):
    rows = [
        indexed(write_video(tmp_path / f"{n}.mp4", moving_square(12, 64, 80, seed=n)), 12)
        for n in range(3)
    ]
    for one, other in zip(batches(rows, planes=True), batches(rows, planes=True, workers=2)):
        assert torch.equal(made_of(one), made_of(other))


def test_a_video_that_cannot_be_read_has_weight_0(tmp_path):
    video = indexed(write_video(tmp_path / "v.mp4", moving_square(12, 64, 64)), 12)
    (tmp_path / "v.mp4").write_bytes(bytes(video.bytes))
    for batch in batches([video], planes=True):
        assert not batch.weight_B.any()
        # All pixels have the same colour.
        assert (made_of(batch).flatten(0, 3).unique(dim=0).shape) == (1, 3)
