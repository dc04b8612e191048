"""Turn decoded frames into a clip: choose frames and a box, cut, and augment.

All random draws come from a NumPy generator that is passed in. A box need not be square. So the two
components of a motion vector are scaled separately, before its magnitude is computed.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mgm.rng import seeded
from mgm.spec import Augment, Clips
from mgm.video.decode import Clip, Covered
from mgm.video.motion import CELL

# --- Choose frames. T is the clip's number of frames. ---
# Source: VideoMAE's datasets (MCG-NJU/VideoMAE: kinetics.py, ssv2.py). The paper refers to them
# ("same as VideoMAE"). If the video is too short, the clip repeats its last frame. With "segments",
# a training clip repeats the first frame, as in VideoMAE.


def training_indices(clips: Clips, n_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames of a training clip. Return their sorted indices, (T,)."""
    if clips.sampling == "stride":
        return stride(n_frames, clips.frames, clips.stride, rng, clips.start_multiple)
    if clips.sampling == "window":
        return window(n_frames, clips.frames, clips.stride, rng)
    return segments(n_frames, clips.frames, rng)


def view_indices(clips: Clips, n_frames: int, view: int, views: int) -> np.ndarray:
    """Return the sorted frame indices of temporal test view `view` of `views`: (T,).

    A model trained on windows is tested at their exact stride.
    """
    if clips.sampling == "segments":
        return segment_view(n_frames, clips.frames, view, views)
    return stride_view(n_frames, clips.frames, clips.stride, view, views)


def stride(
    n_frames: int, frames: int, step: int, rng: np.random.Generator, multiple: int = 1
) -> np.ndarray:
    """Take every `step`-th frame from a random start (pretraining).

    The start is a multiple of `multiple`.
    """
    starts = max(n_frames - (frames - 1) * step, 1)
    start = multiple * rng.integers(-(-starts // multiple))
    return np.minimum(start + step * np.arange(frames), n_frames - 1)


def window(n_frames: int, frames: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Take evenly spaced frames of a random window (fine-tuning on K400).

    The window has frames * step frames. Source: kinetics.py, `loadvideo_decord`.
    """
    span = frames * step
    if n_frames > span:
        end = rng.integers(span, n_frames)
        return np.linspace(end - span, end, frames).clip(max=end - 1).astype(np.int64)
    points = np.linspace(0, n_frames, n_frames // step)
    points = np.append(points, np.full(frames - len(points), n_frames))
    return points.clip(max=n_frames - 1).astype(np.int64)


def segments(n_frames: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Take one random frame of each of T equal segments (TSN; fine-tuning on SSv2).

    If the video has fewer than T frames, the first is taken T times (ssv2.py).
    """
    length = n_frames // frames
    if length == 0:
        return np.zeros(frames, np.int64)
    return length * np.arange(frames) + rng.integers(length, size=frames)


def stride_view(n_frames: int, frames: int, step: int, view: int, views: int) -> np.ndarray:
    """Take every `step`-th frame. The starts of the views are spread evenly over the video.

    A single view is in the middle.
    """
    slack = max(-(-n_frames // step) - frames, 0)  # in steps
    start = slack // 2 if views == 1 else slack * view // (views - 1)
    return np.minimum(step * (start + np.arange(frames)), n_frames - 1)


def segment_view(n_frames: int, frames: int, view: int, views: int) -> np.ndarray:
    """Take one frame of each of T equal segments.

    View k of n takes the frame at the share k / n of each segment. So with two views, the first
    takes the starts and the second takes the centres (ssv2.py). A single view takes the centres.
    """
    tick = n_frames / frames
    offset = tick / 2 if views == 1 else view * tick / views
    return (offset + tick * np.arange(frames)).astype(np.int64)


# --- Choose a box ---
# Crops are scaled as in VideoMAE. Crops for pretraining are scaled as by Pillow: bilinear, with
# antialiasing. Crops for fine-tuning are scaled as by torch.nn.functional.interpolate, and test
# views as by OpenCV: both bilinear, without antialiasing.

SCALES = (1.0, 0.875, 0.75, 0.66)


@dataclass(frozen=True)
class Box:
    """A crop, in pixels of the decoded frame. Pixels are whole numbers except for a test view.

    Args:
        antialias: average over all pixels when scaling down.
        scaled: only for a test view, where the whole frame is scaled before the crop. Height and
            width of the scaled frame, and top and left of the crop in it.
    """

    top: float
    left: float
    height: float
    width: float
    antialias: bool = True
    scaled: tuple[int, int, int, int] | None = None

    def on(self, frame: tuple[int, ...], of: tuple[int, int] | None) -> "Box":
        """Return the same crop on a smaller or larger copy of the frame. It has at least a pixel.

        Args:
            frame: height and width of the copy.
            of: height and width of the frame that the box refers to; None if that is `frame`.
        """
        if of is None or of == frame or self.scaled:
            return self
        down, across = frame[0] / of[0], frame[1] / of[1]
        top = min(round(self.top * down), frame[0] - 1)
        left = min(round(self.left * across), frame[1] - 1)
        bottom = round((self.top + self.height) * down)
        right = round((self.left + self.width) * across)
        return Box(top, left, max(bottom - top, 1), max(right - left, 1), self.antialias)


def training_box(clips: Clips, height: int, width: int, rng: np.random.Generator) -> Box:
    """Draw the training crop of a frame of `height` x `width` pixels (`Clips.crop`)."""
    if clips.crop == "multiscale":
        return multiscale(height, width, clips.size, rng)
    if clips.crop == "resized":
        return resized(height, width, rng)
    return test_box(height, width, 0, 1, clips.size)


def multiscale(height: int, width: int, size: int, rng: np.random.Generator) -> Box:
    """Draw a crop for pretraining: MultiScaleCrop (MCG-NJU/VideoMAE, transforms.py).

    Height and width are the short side times one of four scales. The two scales are equal or
    neighbours. A side within 2 pixels of `size` becomes `size`. The box has one of 13 fixed
    positions: corners, centre, centres of edges, quarter points.
    """
    short = min(height, width)
    sides = [max(int(short * scale), 1) for scale in SCALES]
    sides = [size if abs(side - size) < 3 and size <= short else side for side in sides]
    pairs = [(i, j) for i in range(4) for j in range(4) if abs(i - j) <= 1]
    i, j = pairs[rng.integers(len(pairs))]
    down, right = (height - sides[i]) // 4, (width - sides[j]) // 4
    places = [(row, column) for row in (0, 2, 4) for column in (0, 2, 4)]
    places += [(row, column) for row in (1, 3) for column in (1, 3)]
    row, column = places[rng.integers(13)]
    return Box(row * down, column * right, sides[i], sides[j])


def resized(
    height: int, width: int, rng: np.random.Generator, area=(0.08, 1.0), ratio=(0.75, 4 / 3)
) -> Box:
    """Draw a crop for fine-tuning, with uniform area and log-uniform width / height.

    After ten draws that do not fit, take the largest central box.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round((pixels * aspect) ** 0.5), round((pixels / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return Box(int(top), int(left), h, w, antialias=False)
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w, antialias=False)


def view_box(height: int, width: int, view: int, views: int) -> Box:
    """Return a square with the side of the short side.

    With one view it is central. Otherwise it is number `view` of `views` along the long side.
    """
    short, slack = min(height, width), abs(height - width)
    offset = slack // 2 if views == 1 else slack * view // (views - 1)
    return Box(offset, 0, short, short) if height > width else Box(0, offset, short, short)


def test_box(height: int, width: int, view: int, views: int, size: int) -> Box:
    """Return spatial test view `view` of `views` (MCG-NJU/VideoMAE, kinetics.py).

    The frame is scaled to a short side of `size`, then a square is cut.
    """
    tall, wide = (size * side // min(height, width) for side in (height, width))
    slack = max(tall, wide) - size
    offset = slack // 2 if views == 1 else slack * view // (views - 1)
    top, left = (offset, 0) if height > width else (0, offset)
    down, across = height / tall, width / wide
    scaled = tall, wide, top, left
    return Box(top * down, left * across, size * down, size * across, False, scaled)


# --- Cutting frames and motion ---


def apply(clip: Clip, box: Box, size: int, flip: bool) -> Clip:
    """Cut a box out of a clip, scale it to `size` x `size` pixels, and mirror it if `flip`.

    Returns:
        A clip with frames (T, size, size, 3). Its motion is in pixels of the new size, on size // 8
        cells per side. Each cell has the vector at its centre. `Clip.covered` has all vectors.
    """
    motion_THW2, distance_THW = cut_motion(clip.motion_THW2, clip.distance_THW, box, size, flip)
    on_frame = box.on(clip.frames_THWC.shape[1:3], clip.size)
    frames_THWC = cut_frames(clip.frames_THWC, on_frame, size, flip)
    covered = covered_cells(clip.motion_THW2, clip.distance_THW, box, size, flip)
    return Clip(frames_THWC, motion_THW2, distance_THW, clip.has_motion_T, covered=covered)


def cut_frames(frames_THWC: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """Apply a box to frames, as `apply` does."""
    if box.scaled:
        tall, wide, top, left = box.scaled
        scaled_THWC = resize(frames_THWC, tall, wide, antialias=False)
        cut_THWC = scaled_THWC[:, top : top + size, left : left + size]
    else:
        top, left, height, width = map(int, (box.top, box.left, box.height, box.width))
        part_THWC = frames_THWC[:, top : top + height, left : left + width]
        cut_THWC = resize(part_THWC, size, size, box.antialias)
    # NumPy would copy a mirrored view pixel by pixel, which takes longer than decoding JPEG.
    return torch.from_numpy(cut_THWC).flip(2).numpy() if flip else cut_THWC


def cut_motion(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, box: Box, size: int, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Apply a box to motion, as `apply` does."""
    count = max(size // CELL, 1)
    centre = (np.arange(count) + 0.5) / count
    row = (box.top + centre * box.height).astype(np.int64) // CELL
    column = (box.left + centre * box.width).astype(np.int64) // CELL
    if flip:
        column = column[::-1]
    scale = np.array([(-size if flip else size) / box.width, size / box.height], np.float32)
    frames, _, width = distance_THW.shape
    cell = (row[:, None] * width + column).ravel()
    motion_TL2 = motion_THW2.reshape(frames, -1, 2).take(cell, 1)
    distance_TL = distance_THW.reshape(frames, -1).take(cell, 1)
    shape = frames, count, count
    return motion_TL2.reshape(*shape, 2) * scale, distance_TL.reshape(shape)


def covered_cells(
    motion_THW2: np.ndarray, distance_THW: np.ndarray, box: Box, size: int, flip: bool
) -> Covered:
    """Return all of the video's cells that a box covers, as views of the arguments."""
    count = max(size // CELL, 1)
    rows_H2 = _ranges(box.top, box.height, count, distance_THW.shape[1])
    columns_W2 = _ranges(box.left, box.width, count, distance_THW.shape[2])
    top, left = rows_H2[0, 0], columns_W2[0, 0]
    part = np.s_[:, top : rows_H2[-1, 1], left : columns_W2[-1, 1]]
    if flip:
        columns_W2 = columns_W2[::-1]
    scale = (-size if flip else size) / box.width, size / box.height
    return Covered(motion_THW2[part], distance_THW[part], rows_H2 - top, columns_W2 - left, scale)


def _ranges(start: float, length: float, count: int, cells: int) -> np.ndarray:
    """Return the first cell that each of `count` equal parts of a side overlaps, and the end.

    An overlap of a billionth of a cell is a rounding error.
    """
    edge_N = (start + np.arange(count + 1) * length / count) / CELL
    first_N = np.floor(edge_N[:-1] + 1e-9).astype(np.int64).clip(0, cells - 1)
    end_N = np.ceil(edge_N[1:] - 1e-9).astype(np.int64).clip(max=cells)
    return np.stack([first_N, np.maximum(end_N, first_N + 1)], 1)


def resize(frames_THWC: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """Scale uint8 frames to `height` x `width`, bilinearly."""
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    # PyTorch has a fast path for tensors with channels last in memory.
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    scaled_TCHW = torch.nn.functional.interpolate(
        frames_TCHW, size=(height, width), mode="bilinear", antialias=antialias
    )
    return scaled_TCHW.permute(0, 2, 3, 1).numpy()


# --- Augmentation ---


class ClipAugmentation:
    """RandAugment for decoded frames and random erasing for the clip cut from them, by timm.

    timm augments images. A clip needs the same draw for all frames, since other draws would change
    its motion. Motion vectors are not changed, so augmentation is for training without motion.

    Source: MCG-NJU/VideoMAE, kinetics.py, `_aug_frame`.
    """

    def __init__(self, augment: Augment):
        # The imports take seconds, so the training process does them before it starts workers.
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        from timm.data.random_erasing import RandomErasing
        from timm.data.transforms import str_to_pil_interp
        from torchvision.transforms.functional import to_pil_image

        bicubic = {"interpolation": str_to_pil_interp("bicubic")}
        self._rand = rand_augment_transform(augment.rand, bicubic) if augment.rand else None
        self._to_image = to_pil_image
        self._erase = RandomErasing(augment.erasing, device="cpu")
        self._mean = 255 * np.array(IMAGENET_DEFAULT_MEAN)
        self._std = 255 * np.array(IMAGENET_DEFAULT_STD)

    def rand(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply RandAugment: the same operations at the same strengths on every uint8 frame."""
        if self._rand is None:
            return frames_THWC
        seed = int(rng.integers(2**32))
        images = []
        for frame_HWC in frames_THWC:
            image = self._to_image(np.ascontiguousarray(frame_HWC))
            # timm draws from global generators.
            with seeded(seed):
                images.append(np.asarray(self._rand(image)))
        return np.stack(images)

    def erase(self, frames_THWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Erase one box of all frames, with the given probability.

        The box is filled with noise per frame, pixel and channel, normal with ImageNet's mean and
        standard deviation (VideoMAE's "pixel" mode), rounded to whole values.
        """
        with seeded(int(rng.integers(2**32))):
            kept_HW = self._erase(torch.ones(1, *frames_THWC.shape[1:3]))[0].bool().numpy()
        if kept_HW.all():
            return frames_THWC
        erased_THWC = frames_THWC.copy()
        noise = rng.normal(self._mean, self._std, (len(frames_THWC), (~kept_HW).sum(), 3))
        erased_THWC[:, ~kept_HW] = noise.round().clip(0, 255)
        return erased_THWC
