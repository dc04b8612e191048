"""Draw generated videos. Only the motion depends on the class.

Bright sprites make the same motion in front of a darker background with low contrast. The
background pans slowly in a direction of its own. The sprites' look, the background and the pan do
not depend on the class.

Sprites never leave the frame. Each coordinate moves to and fro evenly over its whole range, so its
distribution is the same at every time and in every class. The class decides which coordinates move,
and which way is the quick one. All sprites have the same rhythm, each a part of the period later
than the last, so hidden sprites can be predicted from visible ones.

In all kinds except ssv2, a video is mirrored as a whole with probability 1/2. A class and its
mirror image have exactly the same distribution, so flipping keeps the label.

The kinds ucf101 and hmdb51 share seven classes. Their shapes, colours and textures differ, so going
from one to the other is a domain shift.

A video depends only on (seed, split, index). Positions are rounded to 1/256 pixel. From there on
all drawing is integer arithmetic, so every machine draws the same pixels.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mgm.drawn.params import KINDS, MOTIONS, SPLITS, Kind, Synthetic

SUB = 256  # positions and mixing weights are multiples of 1/256
_PERIOD = 30  # frames to go to and fro once
_TEXTURE = 32  # texels: the side of a sprite's texture


@dataclass(frozen=True)
class Style:
    """The look of a kind's sprites and backgrounds.

    Colours are RGB means. A contrast is the largest value that smooth noise adds or subtracts.
    """

    bank: int  # its stream of random numbers
    shape: str
    sprite: tuple[int, int, int]
    sprite_contrast: int
    ground: tuple[int, int, int]
    ground_contrast: int
    ground_cell: int  # pixels from one extreme of a background's noise to the next


# Plain sprites and little contrast leave small models time to learn the motion.
_PLAIN = Style(0, "disc", (195, 195, 195), 5, (80, 80, 80), 12, 8)
_WARM = Style(32, "disc", (225, 190, 150), 5, (60, 95, 65), 12, 12)
_COLD = Style(48, "ring", (155, 190, 230), 5, (105, 85, 80), 12, 6)
STYLES: dict[Kind, Style] = dict.fromkeys(KINDS, _PLAIN) | {"ucf101": _WARM, "hmdb51": _COLD}


@dataclass(frozen=True)
class Scene:
    """The random choices of a video. All except `label` are independent of the label.

    Attributes:
        label: the class.
        looks: (sprites,) numbers of sprites in the bank.
        background: its number in the bank.
        view: (2,): where the frame is in the background at the start, as x and y in pixels.
        pan: (2,): the view's motion, in pixels per frame.
        mirrored: whether the drawn video is mirrored, left to right.
        phases: (sprites, 3): phases of swaying at the start, in periods: along x, along y, of the
            diameter.
    """

    label: int
    looks: NDArray[np.int64]
    background: int
    view: NDArray[np.float64]
    pan: NDArray[np.float64]
    mirrored: bool
    phases: NDArray[np.float64]


def scene(params: Synthetic, split: str, index: int) -> Scene:
    """Draw the random choices of video `index` of a split."""
    # Kinds may share sprites and backgrounds, but not scenes: each has 16 streams.
    number = 16 * KINDS.index(params.kind) + 1 + SPLITS.index(split)
    rng = stream(params.seed, number, index)
    size, count, order = params.size, params.sprites, np.arange(params.sprites)
    sprites, backgrounds = bank(params)
    pan_angle, margin = rng.uniform(0, 2 * math.pi), params.pan * params.frames
    # These numbers are not used. The pixels of all sets depend on how many are drawn.
    rng.random(2 * count + 2), rng.random(1 + count), rng.random()
    rng.permutation(count), rng.random(2 * count)
    looks = rng.permutation(len(sprites))[:count]
    rng.random()
    return Scene(
        label=index % params.classes,
        looks=looks,
        background=int(rng.integers(len(backgrounds))),
        view=rng.uniform(margin, backgrounds.shape[1] - size - margin - 1, 2),
        pan=params.pan * np.array([math.cos(pan_angle), math.sin(pan_angle)]),
        mirrored=params.kind != "ssv2" and bool(rng.integers(2)),
        # Each coordinate is later by its own lags, so that sprites do not overlap.
        phases=rng.uniform(0, 1, 3)
        + np.stack([order / count, (2 / count + 0.17) * order, order / count], axis=-1),
    )


def tracks(params: Synthetic, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sprites' paths before mirroring.

    Returns:
        Centres (frames, sprites, 2) as x and y, and diameters (frames, sprites), in pixels.
    """
    way = MOTIONS[params.kind][params.names[scene.label]]
    x_TK, y_TK, near_TK = (
        np.stack([_over_time(params, phase, way[axis]) for phase in scene.phases[:, axis]], axis=1)
        for axis in range(3)
    )
    centres_TK2 = params.size * (0.1 + 0.8 * np.stack([x_TK, y_TK], axis=-1))
    diameters_TK = params.diameter * params.size * 2 ** (near_TK - 0.5)
    return np.round(centres_TK2 * SUB) / SUB, np.round(diameters_TK * SUB) / SUB


def _over_time(params: Synthetic, phase: float, way: int) -> NDArray[np.float64]:
    """Return a coordinate in each frame, (frames,), from 0 to 1 and back once per period.

    The quick way takes the share `params.quick` of the period. A static coordinate keeps its phase.
    """
    quick = params.quick / _PERIOD
    phase_T = (phase + np.arange(params.frames) / _PERIOD * bool(way)) % 1
    rise = {1: quick, -1: 1 - quick}.get(way, 0.5)
    return np.where(phase_T < rise, phase_T / rise, (1 - phase_T) / (1 - rise))


def boxes(params: Synthetic, scene: Scene) -> NDArray[np.float32]:
    """Return the sprites' bounding boxes, (frames, sprites, 4).

    A box is top, left, bottom and right in pixels, clipped to the frame.
    """
    centres_TK2, diameters_TK = tracks(params, scene)
    middles, halves = centres_TK2[..., ::-1], diameters_TK[..., None] / 2
    top, left, bottom, right = np.moveaxis(
        np.concatenate([middles - halves, middles + halves], axis=-1), -1, 0
    )
    if scene.mirrored:
        left, right = params.size - right, params.size - left
    return np.clip(np.stack([top, left, bottom, right], axis=-1), 0, params.size).astype(np.float32)


def draw(params: Synthetic, scene: Scene) -> NDArray[np.uint8]:
    """Return the video's pixels, (frames, size, size, 3) uint8 RGB."""
    sprites, backgrounds = bank(params)
    size = params.size
    centres_TK2, diameters_TK = tracks(params, scene)
    frames = np.empty((params.frames, size, size, 3), np.uint8)
    for t, frame in enumerate(frames):
        canvas = ground(backgrounds[scene.background], scene.view + t * scene.pan, size)
        for look, (x, y), diameter in zip(scene.looks, centres_TK2[t], diameters_TK[t]):
            _paint(canvas, sprites[look], x, y, diameter)
        frame[...] = canvas[:, ::-1] if scene.mirrored else canvas
    return frames


def ground(
    background: NDArray[np.int32], view: NDArray[np.float64], size: int
) -> NDArray[np.int32]:
    """Return the part of a background that a frame at `view`, (x, y) in pixels, shows."""
    # All of its pixels lie in the same way between those of the background.
    (column, across), (row, down) = (divmod(round(start * SUB), SUB) for start in view.tolist())
    shown = background[row : row + size + 1, column : column + size + 1]
    shown = _mixed(shown[:-1], shown[1:], down)
    return _mixed(shown[:, :-1], shown[:, 1:], across)


def _paint(
    canvas: NDArray[np.int32], sprite: NDArray[np.int32], x: float, y: float, diameter: float
) -> None:
    """Paint a sprite on the canvas, centred on (x, y).

    The sprite's fourth channel is its opacity, 0 to 256.
    """
    size = len(canvas)
    left, top = max(0, math.floor(x - diameter / 2)), max(0, math.floor(y - diameter / 2))
    right, bottom = min(size, math.ceil(x + diameter / 2)), min(size, math.ceil(y + diameter / 2))
    if left >= right or top >= bottom:
        return
    step = _TEXTURE / diameter  # texels per pixel
    rows = _grid((top + 0.5 - y) * step + _TEXTURE / 2 - 0.5, step, bottom - top)
    columns = _grid((left + 0.5 - x) * step + _TEXTURE / 2 - 0.5, step, right - left)
    patch = _sample(sprite, rows, columns)
    under = canvas[top:bottom, left:right]
    under += ((patch[..., :3] - under) * patch[..., 3:]) >> 8


def _grid(start: float, step: float, count: int) -> NDArray[np.int64]:
    """Return `count` positions from `start`, `step` apart, in units of 1/256.

    They are integers, so that all machines agree.
    """
    return round(start * SUB) + np.arange(count) * round(step * SUB)


def _sample(
    image: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Interpolate an image bilinearly at rows x columns (in 1/256). Edges are repeated."""
    return _between(_between(image, rows, 0), columns, 1)


def _between(image: NDArray[np.int32], places: NDArray[np.int64], axis: int) -> NDArray[np.int32]:
    # NumPy's clip of integers takes three times as long for few numbers.
    places = np.minimum(np.maximum(places, 0), (image.shape[axis] - 1) * SUB - 1)
    whole, part = places >> 8, (places & 255).astype(np.int32)[:, None]
    part = part if axis else part[:, None]
    return _mixed(image.take(whole, axis), image.take(whole + 1, axis), part)


def _mixed(
    before: NDArray[np.int32], after: NDArray[np.int32], part: int | NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return what lies between two, at a part from the first in 1/256."""
    mixed = after - before
    # Computing in place takes a third less time.
    mixed *= part
    mixed += 128
    mixed >>= 8
    mixed += before
    return mixed


@lru_cache(maxsize=1)
def bank(params: Synthetic) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the sprites (16, 32, 32, 4) and backgrounds (8, side, side, 3) of a set's videos.

    They are cached, since drawing them takes most of the time.
    """
    style = STYLES[params.kind]
    if params.ground == "textured":
        style = replace(style, ground_contrast=40, ground_cell=params.size // 4)
    rng = stream(params.seed, style.bank, 0)
    side = params.size + 2 * (math.ceil(params.pan * params.frames) + 2) + 8
    sprites = []
    for _ in range(16):
        tint = rng.integers(-40, 41, 3)
        texture = style.sprite + tint + _smooth(rng, 5, _TEXTURE, style.sprite_contrast)
        opacity = np.clip(_inside(style.shape), 0, 256)[..., None]
        sprites.append(np.concatenate([texture.clip(0, 255), opacity], axis=-1))
    backgrounds = []
    for _ in range(8):
        tint = rng.integers(-15, 16, 3)
        noise = _smooth(rng, side // style.ground_cell, side, style.ground_contrast)
        texture = style.ground + tint + noise * params.contrast // 100
        backgrounds.append(texture.clip(0, 255))
    return np.array(sprites, np.int32), np.array(backgrounds, np.int32)


def _inside(shape: str) -> NDArray[np.int64]:
    """Return how far each texel is inside a shape.

    The value is negative outside the shape, and at least 256 from a few texels inside its edge.
    """
    # Twice the distance from the centre.
    y, x = abs(np.mgrid[:_TEXTURE, :_TEXTURE] * 2 - (_TEXTURE - 1))
    squares = x * x + y * y
    disc = 2 * (_TEXTURE**2 - squares)
    return disc if shape == "disc" else np.minimum(disc, 2 * squares - _TEXTURE**2 // 4)


def _smooth(rng: np.random.Generator, cells: int, side: int, contrast: int) -> NDArray[np.int32]:
    """Return smooth grey noise, (side, side, 1), between -contrast and contrast."""
    coarse = rng.integers(-contrast, contrast + 1, (cells, cells, 1)).astype(np.int32)
    places = _grid(0, (cells - 1) / side, side)
    return _sample(coarse, places, places)


def stream(seed: int, number: int, index: int) -> np.random.Generator:
    """Return the random numbers of video `index` in a stream of a set."""
    return np.random.Generator(np.random.Philox(key=[seed, (number << 32) + index]))
