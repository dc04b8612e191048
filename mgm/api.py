"""The short Python interface: what `mgm.NAME` has.

    model = mgm.load("RUN")                          # or weights in any format
    features = model.embed("video.mp4")
    clip = mgm.read("video.mp4", range(0, 32, 2))    # frames and motion vectors
    masked_SHW = mgm.masks(clip.cut_to(224), "mgm")
    track = mgm.track("video.mp4")                   # its motion alone, for any decoder's pixels
    masked_SHW = mgm.masks(track[0:32:2], "mgm", box=(top, left, height, width))

    positions_V3 = mgm.patch_positions(masked_SHW, range(0, 32, 2))
    mgm.packets("video.mp4"), mgm.blocks("video.mp4", [5, 6])    # what the codec has

`load` needs the extra `train`. All else needs only the base of the package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgm.errors import UserError, require_count, user_errors, valid
from mgm.masking import Grid, make_mask, mask_clips, require_hiding
from mgm.rng import generator
from mgm.spec import Clips, Mask, Views, mask_info
from mgm.video.clip import RESIDUAL_MASKS, Clip
from mgm.video.crop import Crop
from mgm.video.motion import Motion
from mgm.video.track import Track
from mgm.video.transform import stride as draw_stride

if TYPE_CHECKING:
    from mgm.models import FrozenEncoder


def read(
    video: str | Path,
    frames: Sequence[int] | np.ndarray | None = None,
    motion: bool = True,
    residual: bool = False,
) -> Clip:
    """Decode frames of a video and their motion vectors, from the start of the file.

    Args:
        video: a file. With `motion`, its codec must have motion vectors.
        frames: frame numbers from 0, in any order. Default: all.
        motion: read motion vectors. They guide masks.
        residual: estimate what motion compensation leaves of the frames' luma, from decoded pixels.
            It differs from the decoder's own in fades, and in B-frames of MPEG-4.

    Returns:
        frames_THWC, motion_THW2, distance_THW and has_motion_T, and with `residual`, residual_THW
        and intra_THW, see `mgm.video.clip.Clip`.

    Raises:
        NoMotion: the codec has no motion vectors.
        UserError: the file cannot be read, or has fewer frames than requested; a frame whose
            residual is requested is interlaced.
    """
    # PyAV takes long to import, and a track does not need it.
    from mgm.video import decode

    return decode.read(video, frames, motion, residual)


def packets(video: str | Path) -> np.ndarray:
    """Return the packets of a video, in the order of the file, without decoding: any codec.

    Their number is that of the frames, unless fields are packets of their own (PAFF), or packets
    have no picture.

    Returns:
        a structured array (N,): time_s, when its picture is shown in seconds (NaN: not stated);
        size in bytes; key, True for a keyframe; position of its first byte, -1 if unknown.

    Raises:
        UserError: the file cannot be read, or has no video.
    """
    from mgm.video import decode

    return decode.packets(video)


def blocks(video: str | Path, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the blocks of frames and their motion vectors, as the codec has them.

    They are in pixels of the coded picture: not turned, not mirrored, not cropped. FFmpeg exports
    zeros for B-frames of MPEG-4.

    Args:
        indices: frame numbers from 0, in any order.

    Returns:
        per frame (blocks, 10) int32, with the columns of motion-vector-extractor: source, w, h,
        src_x, src_y, dst_x, dst_y, motion_x, motion_y, motion_scale. I-frames have no blocks.

    Raises:
        NoMotion: FFmpeg exports no vectors of the file.
        UserError: the file cannot be read, or has fewer frames than requested.
    """
    from mgm.video import decode

    return decode.blocks(video, indices)


def draw_frames(count: int, frames: int = 16, stride: int = 4, seed: int = 0) -> np.ndarray:
    """Draw the frames of a training clip: every `stride`-th one, from a random start.

    Training draws the same for a clip of this seed.

    Args:
        count: number of the video's frames: `len(track)`, or `len(packets)` without decoding. If
            it is too small, the clip repeats the last frame.
        frames, stride: of the clip. The paper has 16, and 4 (Kinetics-400) or 2 (SSv2).
        seed: of the clip (`mgm.rng.clip_seed`).

    Returns:
        (frames,) int64, sorted.
    """
    for name, value in {"count": count, "frames": frames, "stride": stride}.items():
        require_count(name, value)
    return draw_stride(count, frames, stride, generator(_seed(seed), "sample"))


def patch_positions(masked_SHW: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the positions of the tokens that stay visible, in the order of tokens.

    Args:
        masked_SHW: of one clip, as `masks` returns it.
        indices: numbers of the clip's frames, (T,).

    Returns:
        (V, 3) int64: the number of the token's first frame, its row and its column.

    Raises:
        UserError: the frames are not a whole number per slot.
    """
    masked_SHW, index_T = np.asarray(masked_SHW), np.asarray(indices)
    if masked_SHW.ndim != 3 or masked_SHW.dtype != bool:
        raise UserError("masked_SHW: pass one clip's mask, (slots, rows, columns) of bool")
    whole = index_T.ndim == 1 and index_T.dtype.kind in "iu" and len(index_T)
    if not whole or len(index_T) % max(len(masked_SHW), 1):
        raise UserError(f"indices: pass the clip's frames, for {len(masked_SHW)} slots")
    position_V3 = np.argwhere(~masked_SHW)
    position_V3[:, 0] = index_T.reshape(len(masked_SHW), -1)[position_V3[:, 0], 0]
    return position_V3


def track(path: str | Path) -> Track:
    """Return the motion of a video's frames, for `masks`.

    `track[frames]` is the motion of some frames, by their numbers from 0: a slice, or numbers in
    any order. A track may be pickled, and used by threads and forked processes.

    Args:
        path: a track that `mgm prepare` or `mgm track` wrote, which ends in .npz; or a video, which
            is decoded once. Then its codec must have motion vectors.

    Raises:
        UserError: the file cannot be read, is not a whole track, or is a video of another codec.
    """
    if str(path).endswith(".npz"):
        return Track(path)
    from mgm.video import decode

    return decode.source_track(path)


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
    patch: int = 16,
    grid: tuple[int, int] | None = None,
    stride: int = 1,
) -> np.ndarray:
    """Return the mask of a clip.

    Frames without motion vectors, such as a lone I-frame, keep the last place of mgm's box. In a
    clip that has none, the place is random, as in training.

    Args:
        motion: of the clip's frames: a slice of a track, or a clip from `read`. `tubelet` divides
            its number of frames.
        mask: a name, such as "mgm", "tube" or "block", or settings of a mask. "codec-residual" and
            "codec-fused" need a clip that was read with its residual.
        seed: of the mask's random draws.
        ratio: the share of patches to hide. Default: that of `mask`; for a name, that of its paper,
            such as 0.75 for "mgm" and 0.9 for "tube".
        box: the crop that the model sees: top, left, height and width, in pixels of `frame`.
            Default: the whole frames. For a clip, use `Clip.cut`.
        frame: height and width of the frames that the box is cut from. Default: those of the
            vectors, which are the source's.
        flip: the crop is mirrored, left to right.
        size: the side to which the crop is scaled, in pixels.
        tubelet: frames per time slot.
        patch: side of a patch in pixels of what the model sees: the clip, or a crop of `size`.
        grid: rows and columns of patches. Default: as many as patches fill what the model sees.
        stride: frames of the video from one frame of the clip to the next, for the mask "warped".

    Returns:
        masked_SHW: bool, True where a patch is hidden, per slot, row and column.

    Raises:
        UserError: the mask does not exist, its guidance needs more than the motion, or tubelets or
            patches do not fill the clip.
    """
    scored = mask if isinstance(mask, str) and mask in RESIDUAL_MASKS else ""
    settings, clip = _settings("codec-clip" if scored else mask, ratio), motion
    if not isinstance(motion, Clip | Motion):
        kind = type(motion).__name__
        raise UserError(
            f"motion: is of type {kind}; pass a clip, or frames of a track: track[0:16]"
        )
    given: dict[str, tuple[Any, int]] = {"box": (box, 4), "frame": (frame, 2), "grid": (grid, 2)}
    for name, (values, length) in given.items():
        if values is not None and np.shape(values) != (length,):
            raise UserError(f"{name}: is {values}; pass {length} numbers")
    counts = {"size": size, "tubelet": tubelet, "patch": patch, "stride": stride}
    for name, value in (*counts.items(), *(("grid", side) for side in grid or ())):
        require_count(name, value)
    seen = size, size
    if isinstance(motion, Clip):
        seen = motion.height, motion.width
        if box is not None or flip:
            raise UserError("box and flip are for motion; cut the clip itself: clip.cut(...)")
        if motion.motion is None and mask_info(settings.name).guided:
            raise UserError(
                f"the clip was read without motion, and mask {settings.name} needs it; choose tube"
            )
        motion = motion.known
    elif box is not None or flip:
        height, width = motion.frame if frame is None else frame
        top, left, down, across = (0.0, 0.0, height, width) if box is None else box
        motion = motion.under(Crop(top, left, down, across, flip), size, (height, width))
    elif motion.crop:
        seen = motion.size, motion.size
    rows, columns = _grid(seen, patch) if grid is None else grid
    if settings.guidance != "vectors":
        raise UserError(f"guidance {settings.guidance} needs more than this; choose vectors")
    if len(motion) % tubelet:
        raise UserError(
            f"the clip has {len(motion)} frames, which tubelet {tubelet} does not divide"
        )
    if not (np.isfinite(motion.vectors_THW2).all() and (motion.distance_THW > 0).all()):
        raise UserError("motion: has vectors that are not finite, or a distance of 0")
    sizes = Grid(len(motion) // tubelet, rows, columns)
    require_hiding(settings, sizes)
    seed_1 = np.array([_seed(seed)], np.int64)
    if scored:
        if not isinstance(clip, Clip):
            raise UserError(f"mask {scored} needs a clip; read it by residual=True")
        masked_1L = make_mask(settings, sizes, clip.score(scored, tubelet)[None], seed_1)
        return masked_1L.reshape(-1, rows, columns)
    masked_1L, _ = mask_clips(settings, sizes, [motion], seed_1, tubelet, stride)
    return masked_1L.reshape(-1, rows, columns)


def _grid(seen: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return the rows and columns of the patches that fill a height and a width."""
    height, width = seen
    if height % patch or width % patch:
        raise UserError(
            f"patch: {patch} pixels do not divide {height} x {width}; cut the clip, such as "
            "clip.cut_to(224), or pass grid=(rows, columns)"
        )
    return height // patch, width // patch


def _seed(seed: int) -> int:
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise UserError(f"seed: is {seed}; pass a whole number from 0 to 2**63 - 1")
    return int(seed)


def _settings(mask: str | Mask | Mapping[str, Any], ratio: float | None) -> Mask:
    """Return all settings of a mask that is given by its name, its fields or its settings."""
    if not isinstance(mask, str | Mask | Mapping):
        raise UserError(f"mask: is {mask}; pass a name, or settings of a mask")
    fields: dict[str, Any] = {"name": mask} if isinstance(mask, str) else dict(mask)
    if ratio is not None:
        fields["ratio"] = ratio
    with valid("mask: "):
        known = Mask.model_validate(fields)
        if "ratio" in fields:
            return known
        return Mask.model_validate(fields | {"ratio": mask_info(known.name).ratio})


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
            video: a file of any codec. One that is shorter than a clip repeats its last frame.
            clips: number of clips, evenly spaced. Each is cropped to its centre.

        Returns:
            (D,) float32.

        Raises:
            UserError: the video cannot be read.
        """
        require_count("clips", clips)
        with user_errors():
            from mgm.stages.apply import of_file

            views = Views(temporal=clips, spatial=1)
            return of_file(self.encoder, self.clips, views, Path(video)).mean(axis=0)


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
        UserError: there are no weights, they fit no model, or the extra is not installed.
    """
    for name, value in {"frames": frames, "size": size, "stride": stride}.items():
        if value is not None:
            require_count(name, value)
    with user_errors():
        from mgm.stages.apply import find_trained

        trained = find_trained(Path(weights), frames, size, stride)
    return LoadedModel(trained.encoder, trained.clips)
