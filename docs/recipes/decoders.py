"""Keep your decoder: torchcodec or decord has the frames, mgm their masks and their motion.

Both decoders number frames as mgm does, on your own files and on the store's mp4 files.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

import mgm


class Clips(Dataset):
    """Square crops of 16 frames, every second one, and the tokens that MGM hides of them.

    Args:
        videos: files: your own, or those of data/mine/index.csv.
        tracks: theirs in data/mine/tracks. Default: the motion is read from the videos, once, here.
        side: of the crop, in pixels of the video.
    """

    def __init__(
        self,
        videos: Sequence[str],
        tracks: Sequence[str] = (),
        decoder: Literal["torchcodec", "decord"] = "torchcodec",
        side: int = 200,
    ):
        self.videos, self.decoder, self.side = videos, decoder, side
        self.tracks = [mgm.track(video) for video in tracks or videos]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        rng, track = np.random.default_rng(n), self.tracks[n]
        index_T = rng.integers(len(track) - 30) + np.arange(0, 32, 2)
        frames_THWC = read(self.videos[n], index_T, self.decoder)
        height, width = frames_THWC.shape[1:3]
        top, left = rng.integers(height - self.side + 1), rng.integers(width - self.side + 1)
        crop_THWC = frames_THWC[:, top : top + self.side, left : left + self.side]
        crop = {"box": (top, left, self.side, self.side), "frame": (height, width)}
        return crop_THWC, mgm.masks(track[index_T], "mgm", seed=n, **crop).reshape(-1)


def frames_and_motion(
    video: str, index_T: np.ndarray, decoder: Literal["torchcodec", "decord"] = "torchcodec"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoder's frames, and (dx, dy) in pixels per frame of each 8 x 8 pixels of them.

    For many clips of a video, keep the track.
    """
    return read(video, index_T, decoder), mgm.track(video)[index_T].velocity_THW2


def read(video: str, index_T: np.ndarray, decoder: str) -> np.ndarray:
    """Return frames, (T, H, W, C) uint8."""
    if decoder == "decord":
        from decord import VideoReader

        return VideoReader(video).get_batch(index_T).asnumpy()
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(video).get_frames_at(index_T.tolist()).data.permute(0, 2, 3, 1).numpy()
