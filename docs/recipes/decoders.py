"""Keep your decoder: PyAV, decord or torchcodec has the frames, mgm their masks and their motion.

All number frames as mgm does, on your own files and on the store's mp4 files. PyAV comes with mgm.
torchcodec loads the FFmpeg libraries of your system, and fails at its import where there are none.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from torch.utils.data import Dataset

import mgm

Decoder = Literal["pyav", "decord", "torchcodec"]


class Clips(Dataset):
    """Square crops of 16 frames, every second one, and the tokens that MGM hides of them.

    A video that is smaller than the crop is scaled up. One that is too short repeats its last
    frame.

    Args:
        videos: files: your own, or those of data/mine/index.csv.
        tracks: theirs in data/mine/tracks. Default: the motion is read from the videos, once, here.
        side: of the crop, in pixels of the video.
    """

    def __init__(
        self,
        videos: Sequence[str],
        tracks: Sequence[str] = (),
        decoder: Decoder = "pyav",
        side: int = 200,
    ):
        self.videos, self.decoder, self.side = videos, decoder, side
        self.tracks = [mgm.track(video) for video in tracks or videos]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        rng, track = np.random.default_rng(n), self.tracks[n]
        index_T = mgm.draw_frames(len(track), stride=2, seed=n)
        frames_THWC = read(self.videos[n], index_T, self.decoder)
        height, width = frames_THWC.shape[1:3]
        side = min(self.side, height, width)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop_THWC = frames_THWC[:, top : top + side, left : left + side]
        if side < self.side:
            crop_THWC = np.stack([cv2.resize(x, (self.side, self.side)) for x in crop_THWC])
        crop = {"box": (top, left, side, side), "frame": (height, width)}
        return crop_THWC, mgm.masks(track[index_T], "mgm", seed=n, **crop).reshape(-1)


def frames_and_motion(
    video: str, index_T: np.ndarray, decoder: Decoder = "pyav"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoder's frames, and (dx, dy) in pixels per frame of each 8 x 8 pixels of them.

    For many clips of a video, keep the track.
    """
    return read(video, index_T, decoder), mgm.track(video)[index_T].velocity_THW2


def read(video: str, index_T: np.ndarray, decoder: Decoder) -> np.ndarray:
    """Return frames, (T, H, W, C) uint8."""
    if decoder == "pyav":
        return mgm.read(video, index_T, motion=False).frames_THWC
    if decoder == "decord":
        from decord import VideoReader

        return VideoReader(video).get_batch(index_T).asnumpy()
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(video).get_frames_at(index_T.tolist()).data.permute(0, 2, 3, 1).numpy()
