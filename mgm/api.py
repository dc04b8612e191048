"""The short Python interface: `mgm.load`, `mgm.masks` and `mgm.read`. Nothing else is public.

    model = mgm.load("RUN")                          # or weights in any format
    features = model.embed("video.mp4")
    clip = mgm.read("video.mp4", range(0, 32, 2))    # frames and motion vectors
    masked_SHW = mgm.masks(clip, "mgm")

`read` needs only the base of the package. `load` and `masks` need the extra `train`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgm.errors import UserError, valid
from mgm.spec import ApplyOptions, Clips, Mask, Views
from mgm.video import Clip, probe_video, read_clip

if TYPE_CHECKING:
    from torch import Tensor

    from mgm.models import FrozenEncoder


def read(
    video: str | Path, frames: Sequence[int] | np.ndarray | None = None, motion: bool = True
) -> Clip:
    """Decode frames of a video and their motion vectors.

    Args:
        video: a file. With `motion`, its codec must have motion vectors.
        frames: frame numbers from 0, in any order. Default: all.
        motion: read motion vectors. They guide masks.

    Returns:
        frames_THWC, motion_THW2, distance_THW and has_motion_T, see `mgm.video.clip.Clip`.

    Raises:
        NoVectors: the codec has no motion vectors.
        UserError: the file cannot be read, has fewer frames than requested, or `frames` are not
            whole numbers.
    """
    if frames is None:
        frames = range(probe_video(video).frames)
    elif np.asarray(frames).dtype.kind not in "iu":
        raise UserError(f"{video}: frames are {frames}; pass whole numbers from 0")
    return read_clip(video, frames, motion)


def masks(
    clip: Clip,
    mask: str | Mask = "mgm",
    seed: int = 0,
    *,
    tubelet: int = 2,
    grid: tuple[int, int] = (14, 14),
    stride: int = 1,
) -> "Tensor":
    """Return the mask of a clip.

    Args:
        clip: from `read`. `tubelet` divides its number of frames.
        mask: a name, such as "mgm", "tube" or "block", or all settings of a mask. A name hides
            75 % of the patches.
        seed: of the mask's random draws.
        tubelet: frames per time slot.
        grid: rows and columns of patches over the whole clip.
        stride: frames of the video from one frame of the clip to the next, for the mask "warped".

    Returns:
        masked_SHW: bool, True where a patch is hidden, per slot, row and column.

    Raises:
        UserError: the mask does not exist, its guidance needs more than the clip, or the clip does
            not fit the tubelets or the grid.
    """
    # torch and what needs it belong to an optional part of the package.
    import torch

    from mgm.masking import Grid, make_mask
    from mgm.stages.guidance import slot_motion, stored_motion

    with valid("mask: "):
        settings = Mask.model_validate(mask)
    frames, *sides, _ = clip.frames_THWC.shape
    if tubelet < 1 or frames % tubelet:
        raise UserError(f"the clip has {frames} frames, which tubelet {tubelet} does not divide")
    if np.shape(grid) != (2,) or not all(1 <= n <= side for n, side in zip(grid, sides)):
        raise UserError(f"grid is {grid}; pass rows and columns, at most {sides[0]} and {sides[1]}")
    if settings.guidance not in ("vectors", "difference"):
        raise UserError(f"guidance {settings.guidance} needs more than the clip; choose vectors")
    if stored_motion(settings) and not clip.has_motion_T.any():
        raise UserError(f"the clip has no motion, and mask {settings.name} needs it; choose tube")
    motion = slot_motion(clip, settings, tubelet, stride)
    masked_1L = make_mask(settings, Grid(frames // tubelet, *grid), motion, torch.tensor([seed]))
    return masked_1L.view(-1, *grid)


@dataclass(frozen=True)
class Model:
    """An encoder that returns features of videos.

    Attributes:
        encoder: maps uint8 frames (B, T, H, W, C) to features (B, D).
        clips: frames, size and sampling of the clips that it was trained on.
    """

    encoder: "FrozenEncoder"
    clips: Clips

    def embed(self, video: str | Path, clips: int = 1) -> np.ndarray:
        """Return the feature of a video: the mean over its clips of the encoder's mean token.

        Args:
            video: a file of any codec.
            clips: number of clips, evenly spaced. Each is cropped to its centre.

        Returns:
            (D,) float32.

        Raises:
            UserError: the video cannot be read, is a folder, or has fewer frames than a clip.
        """
        import torch

        from mgm.stages.apply import find_videos
        from mgm.stages.frozen import over_videos

        if Path(video).is_dir():
            raise UserError(f"{video}: is a folder; pass a video, or run `mgm embed` on the folder")
        (found,) = find_videos(Path(video))[0].values()
        if found.frames < self.clips.frames:
            raise UserError(
                f"{video}: has {found.frames} frames, and a clip has {self.clips.frames}"
            )
        views = Views(temporal=clips, spatial=1)
        batches = over_videos(self.encoder, [found], self.clips, views)
        return torch.cat([x_BD for x_BD, _ in batches]).float().mean(0).cpu().numpy()


def load(
    weights: str | Path,
    *,
    frames: int | None = None,
    size: int | None = None,
    stride: int = 4,
) -> Model:
    """Return a trained model, on the GPU if there is one.

    Args:
        weights: the folder of a pretraining or fine-tuning run, or weights of mgm, VideoMAE,
            Hugging Face or a later method (docs/masks-and-weights.md lists them).
        frames, size, stride: the clips, for weights without a run: frames per clip, pixels per
            side, and every how many frames of the video. Default: frames and
            size of a config.json next to the weights, or 16 and 224.

    Raises:
        UserError: there are no weights, or they fit no model.
    """
    from mgm.stages.apply import find_trained

    trained = find_trained(Path(weights), ApplyOptions(frames=frames, size=size, stride=stride))
    return Model(trained.encoder(), trained.clips)
