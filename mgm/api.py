"""The short Python interface: `mgm.load`, `mgm.masks`, `mgm.read` and `mgm.track`.

    model = mgm.load("RUN")                          # or weights in any format
    features = model.embed("video.mp4")
    clip = mgm.read("video.mp4", range(0, 32, 2))    # frames and motion vectors
    masked_SHW = mgm.masks(clip, "mgm")
    track = mgm.track("video.mp4")                   # its motion alone, for any decoder's pixels
    masked_SHW = mgm.masks(track[0:32:2], "mgm", box=(top, left, height, width))

`read`, `track` and `masks` need only the base of the package. `load` needs the extra `train`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgm.errors import (
    UserError,
    WrongType,
    WrongValue,
    flag,
    path_of,
    several,
    valid,
    whole,
)
from mgm.masking import Grid, make_mask
from mgm.spec import MASKS, ApplyOptions, Clips, Mask, Views
from mgm.stages.guidance import slot_motion
from mgm.study.recipes import MASK_RATIO
from mgm.video.clip import Clip, Crop, Motion
from mgm.video.track import SUFFIX, Track

if TYPE_CHECKING:
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
        NoMotion: the codec has no motion vectors.
        UserError: the file cannot be read, or has fewer frames than requested.
        ValueError, TypeError: `frames` are not whole numbers from 0.
    """
    path = path_of("video", video)

    # PyAV takes long to import.
    from mgm.video.decode import probe_video, read_clip

    return read_clip(path, range(probe_video(path).frames) if frames is None else frames, motion)


def track(path: str | Path) -> Track:
    """Return the times and the motion of a video's frames, for `masks`.

    `track[frames]` is the motion of some frames, by their numbers from 0: a slice, or numbers in
    any order. A track may be pickled, and used by threads and forked processes.

    Args:
        path: a track that `mgm prepare` or `mgm track` wrote, which ends in .track; or a video,
            which is decoded once. Then its codec must have motion vectors.

    Raises:
        UserError: the file cannot be read, is not a whole track, or is a video of another codec.
    """
    path = path_of("path", path)
    if path.name.endswith(SUFFIX):
        return Track(path)
    # PyAV takes long to import, and reading a track does not need it.
    from mgm.video.vectors import read_track

    found = read_track(path)
    # This refuses a codec without vectors now, and not at the first window.
    found[:1]
    return found


def masks(
    motion: Motion | Clip,
    mask: str | Mask | Mapping[str, Any] = "mgm",
    seed: int = 0,
    *,
    ratio: float | None = None,
    box: tuple[float, float, float, float] | None = None,
    frame: tuple[int, int] | None = None,
    flip: bool = False,
    size: int = 224,
    tubelet: int = 2,
    grid: tuple[int, int] = (14, 14),
    stride: int = 1,
) -> np.ndarray:
    """Return the mask of a clip.

    Frames without motion vectors, such as a lone I-frame, keep the last place of mgm's box. In a
    clip that has none, the place is random, as in training.

    Args:
        motion: of the clip's frames: a slice of a track, or a clip from `read`. `tubelet` divides
            its number of frames.
        mask: a name, such as "mgm", "tube" or "block", or settings of a mask. `cells` is "max" by
            default, eq. 6 of the paper.
        seed: of the mask's random draws.
        ratio: the share of patches to hide. Default: that of `mask`; for a name, that of its paper,
            such as 0.75 for "mgm" and 0.9 for "tube".
        box: the crop that the model sees: top, left, height and width, in pixels of the video.
            Default: the whole frames. For a clip, use `Clip.cut`.
        frame: height and width of the frames that the box is cut from, if a decoder scaled them.
        flip: the crop is mirrored, left to right.
        size: the side to which the crop is scaled, in pixels.
        tubelet: frames per time slot.
        grid: rows and columns of patches over the crop.
        stride: frames of the video from one frame of the clip to the next, for the mask "warped".

    Returns:
        masked_SHW: bool, True where a patch is hidden, per slot, row and column.

    Raises:
        UserError: the mask does not exist, its guidance needs more than the motion, or the clip
            does not fit the tubelets or the grid. It is a ValueError or a TypeError, too.
    """
    settings, flip = _settings(mask, ratio), flag("flip", flip)
    frames_THWC, sides = None, (size, size)
    if isinstance(motion, Clip):
        if box is not None or flip:
            raise WrongValue("box and flip are for motion; cut the clip itself: clip.cut(...)")
        frames_THWC, sides = motion.frames_THWC, motion.frames_THWC.shape[1:3]
        if MASKS[settings.name].guided and settings.guidance == "vectors" and not motion.motion:
            raise WrongValue(
                f"the clip was read without motion, and mask {settings.name} needs it; choose tube"
            )
        motion = motion.known
    elif not isinstance(motion, Motion):
        raise WrongType(f"motion is {type(motion).__name__}; pass track[frames] or a clip")
    elif box is not None or flip:
        of = motion.frame if frame is None else _pair("frame", frame)
        motion = motion.cut(_crop(box, flip, of), whole("size", size, 1), of)
    elif not motion.crop:
        sides = motion.frame
    frames = len(motion)
    seed, stride = whole("seed", seed), whole("stride", stride, 1)
    if frames % (tubelet := whole("tubelet", tubelet, 1)):
        raise WrongValue(f"the clip has {frames} frames, which tubelet {tubelet} does not divide")
    counts = several("grid", grid, 2)
    rows, columns = (whole("grid", count, 1, side) for count, side in zip(counts, sides))
    allowed = ("vectors",) if frames_THWC is None else ("vectors", "difference")
    if settings.guidance not in allowed:
        raise WrongValue(f"guidance {settings.guidance} needs more than this; choose vectors")
    shown = [] if frames_THWC is None else [frames_THWC]
    magnitude, shift = slot_motion(settings, tubelet, stride, [motion], shown)
    sizes = Grid(frames // tubelet, rows, columns)
    masked_1L = make_mask(settings, sizes, magnitude, np.array([seed]), shift)
    return masked_1L.reshape(-1, rows, columns)


def _pair(name: str, sides: Any) -> tuple[int, int]:
    """Check a height and a width."""
    if np.shape(sides) != (2,):
        raise WrongType(f"{name} is {sides!r}; pass height and width")
    height, width = (whole(name, side, 1) for side in sides)
    return height, width


def _crop(box: Any, flip: bool, frame: tuple[int, int]) -> Crop:
    """Return the crop of `masks`."""
    top, left, height, width = (0, 0, *frame) if box is None else several("box", box, 4)
    crop = Crop(top, left, height, width, flip)
    crop.require_in(*frame, whole_pixels=False)
    return crop


def _settings(mask: str | Mask | Mapping[str, Any], ratio: float | None) -> Mask:
    """Return all settings of a mask that is given by its name, its fields or its settings."""
    if not isinstance(mask, str | Mask | Mapping):
        raise WrongType(f"mask is {mask!r}; pass a name, such as mgm")
    given = {"name": mask} if isinstance(mask, str) else dict(mask)
    fields: dict[str, Any] = {"cells": "max"} | given
    if ratio is not None:
        if not isinstance(ratio, Real):
            raise WrongType(f"ratio is {ratio!r}; pass a number between 0 and 1")
        fields["ratio"] = ratio
    elif (name := str(fields.get("name", "mgm"))) in MASK_RATIO:
        fields = {"ratio": MASK_RATIO[name]} | fields
    try:
        with valid("mask: "):
            return Mask.model_validate(fields)
    except UserError as error:
        raise WrongValue(str(error)) from None


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """An encoder that returns features of videos.

    Attributes:
        encoder: maps uint8 frames (B, T, H, W, C) to features (B, D).
        clips: frames, size and sampling of the clips that it was trained on.
    """

    encoder: "FrozenEncoder"
    clips: Clips

    def __repr__(self) -> str:
        parameters = sum(weight.numel() for weight in self.encoder.parameters())
        clips = self.clips
        return (
            f"LoadedModel({parameters:,} parameters, clips of {clips.frames} frames of "
            f"{clips.size} x {clips.size} pixels)"
        )

    def embed(self, video: str | Path, clips: int = 2) -> np.ndarray:
        """Return the feature of a video: the mean over its clips of the encoder's mean token.

        Args:
            video: a file of any codec.
            clips: number of clips, evenly spaced. Each is cropped to its centre.

        Returns:
            (D,) float32.

        Raises:
            UserError: the video cannot be read, is a folder, or has fewer frames than a clip.
        """
        path = path_of("video", video)
        whole("clips", clips, 1)

        import torch

        from mgm.stages.apply import find_videos
        from mgm.stages.frozen import over_videos

        if path.is_dir():
            raise UserError(f"{video}: is a folder; pass a video, or run `mgm embed` on the folder")
        (found,) = find_videos(path)[0].values()
        if found.frames < self.clips.frames:
            raise UserError(
                f"{video}: has {found.frames} frames, and a clip has {self.clips.frames}"
            )
        if clips > found.frames:
            raise WrongValue(f"clips is {clips}, and {video} has {found.frames} frames; lower it")
        views = Views(temporal=clips, spatial=1)
        batches = over_videos(self.encoder, [found], self.clips, views)
        return torch.cat([x_BD for x_BD, _ in batches]).float().mean(0).cpu().numpy()


def load(
    weights: str | Path,
    *,
    frames: int | None = None,
    size: int | None = None,
    stride: int | None = None,
) -> LoadedModel:
    """Return a trained model, on the GPU if there is one.

    Args:
        weights: the folder of a pretraining or fine-tuning run, or weights of mgm, VideoMAE,
            Hugging Face or a later method (docs/masks-and-weights.md lists them).
        frames, size, stride: the clips, for weights without a run: frames per clip, pixels per
            side, and every how many frames of the video. Default: those of a config.json next to
            the weights, or 16, 224 and 4.

    Raises:
        UserError: there are no weights, or they fit no model.
    """
    path = path_of("weights", weights)
    sizes = {"frames": frames, "size": size, "stride": stride}
    given = {name: whole(name, value, 1) for name, value in sizes.items() if value is not None}
    with valid(""):
        how = ApplyOptions(**given)

    from mgm.stages.apply import find_trained

    trained = find_trained(path, how)
    return LoadedModel(trained.encoder(), trained.clips)
