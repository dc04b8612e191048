"""The generator: an SSv2-like set of short H.264 videos whose class is how things move, and nothing else.

Three bright sprites make the same motion before a darker, low-contrast background that pans slowly in a direction of its
own. Where the sprites are at the middle of the video, what they look like, the background and the pan do not depend on
the class, and every motion runs as far before the middle as after it: opposite classes show the same frames in another
order. Labels are directional, so such videos are never flipped. (RECIPES calls this the data set that works: fully random
textures, a single small sprite or full circles are not learned in minutes.)

A video is a function of (seed, split, index) alone. From the bank of textures on, all drawing is integer arithmetic, so
every machine hands the same pixels to the encoder; the bytes of the files may differ between versions of x264.

    OUT/params.json                                    what was asked for; written first
    OUT/videos/<id>.mp4                                ids count from 100000 (train) and 200000 (test)
    OUT/labels/{labels,train,validation}.json          as SSv2 publishes them; our test split is its validation split
    OUT/boxes.npz                                      id -> (frames, 3, 4) float32: top, left, bottom, right in pixels, clipped to the frame
    OUT/index.csv, index.json                          ours; index.json is written last, without it the set is not whole
"""

import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from mgm.datasets.index import Index, Video, read_index, write_index
from mgm.datasets.params import CLASSES, Synthetic
from mgm.errors import UserError

SPRITES = 3
GOP = 12
_SUB = 256  # positions and mixing weights are multiples of 1/256
_TEXTURE = 32  # a sprite's texture is 32 x 32
_FIRST_ID = {"train": 100_000, "test": 200_000}
_SPLITS = tuple(_FIRST_ID)


@dataclass(frozen=True)
class Motion:
    """`towards`: unit vector (dx, dy), y downwards. `back`: half way there and back again. `zoom`: relative growth over the video."""

    towards: tuple[float, float] = (0.0, 0.0)
    back: bool = False
    zoom: float = 0.0


_D = math.sqrt(0.5)
MOTIONS = dict(
    zip(
        CLASSES,
        (
            *(Motion(towards) for towards in ((-1, 0), (1, 0), (0, -1), (0, 1), (-_D, -_D), (_D, -_D), (-_D, _D), (_D, _D))),
            Motion(zoom=1.2),
            Motion(zoom=-1.2),
            Motion((0, -1), back=True),
            Motion((0, 1), back=True),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Scene:
    """What a video shows. Everything but `label` is drawn without knowing the label. Lengths in pixels."""

    label: int
    centres_K2: NDArray[np.float64]  # (x, y) at the middle of the video
    diameters_K: NDArray[np.float64]  # at the middle of the video
    looks_K: NDArray[np.int64]  # which sprites of the bank
    travel: float  # length of a translation over the whole video
    background: int  # which background of the bank
    start_2: NDArray[np.float64]  # where in the background the view starts
    pan_2: NDArray[np.float64]  # its motion a frame


def generate(params: Synthetic, out: Path, processes: int = 1) -> Index:
    """Draw the set into folder `out`, unless it is there already. An interrupted call leaves no index.json; calling again starts over.

    Raises:
        UserError: `out` holds videos that this generator did not draw.
    """
    if index := _finished(params, out):
        return index
    videos, mark = out / "videos", out / "params.json"
    if videos.exists() and not mark.exists():
        raise UserError(f"{videos}: holds videos that `mgm prepare synthetic` did not draw; choose another --out")
    (out / "index.json").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(params.model_dump_json(indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(videos, ignore_errors=True)
    videos.mkdir()
    boxes = dict(_draw_all(params, videos, processes))
    np.savez(out / "boxes.npz", **boxes)
    _write_labels(params, out / "labels")
    index = _index(params, out)
    write_index(index, out)
    return index


def load_boxes(out: Path) -> dict[str, NDArray[np.float32]]:
    """Video id -> (frames, sprites, 4): top, left, bottom, right in pixels, clipped to the frame."""
    with np.load(out / "boxes.npz") as file:
        return dict(file)


def scene(params: Synthetic, split: str, index: int) -> Scene:
    """What video `index` of a split shows."""
    rng = _rng(params.seed, 1 + _SPLITS.index(split), index)
    size = params.size
    angle = rng.uniform(0, 2 * math.pi)
    turns = angle + 2 * math.pi * (np.arange(SPRITES) + rng.uniform(-0.12, 0.12, SPRITES)) / SPRITES
    radii = size * rng.uniform(0.2, 0.32, SPRITES)
    middle = size * rng.uniform(0.45, 0.55, 2)
    pan_angle = rng.uniform(0, 2 * math.pi)
    pan_2 = params.pan * np.array([math.cos(pan_angle), math.sin(pan_angle)])
    margin = math.ceil(abs(params.pan) * params.frames) + 1
    return Scene(
        label=index % params.classes,
        centres_K2=middle + radii[:, None] * np.array([[math.cos(turn), math.sin(turn)] for turn in turns]),
        diameters_K=size * rng.uniform(0.19, 0.27, SPRITES),
        looks_K=rng.permutation(_bank(params)[0].shape[0])[:SPRITES],
        travel=size * rng.uniform(0.52, 0.62),
        background=int(rng.integers(_bank(params)[1].shape[0])),
        start_2=rng.uniform(margin, _bank(params)[1].shape[1] - size - margin - 1, 2),
        pan_2=pan_2,
    )


def tracks(params: Synthetic, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (frames, sprites, 2) as (x, y), and diameters (frames, sprites), in pixels."""
    motion = MOTIONS[CLASSES[scene.label]]
    time_T = np.linspace(-0.5, 0.5, params.frames)
    path_T = 0.25 - np.abs(time_T) if motion.back else time_T
    scale_T = 1 + motion.zoom * time_T
    eye = params.size / 2
    centres_TK2 = eye + (scene.centres_K2 - eye) * scale_T[:, None, None]
    centres_TK2 = centres_TK2 + scene.travel * path_T[:, None, None] * (2 if motion.back else 1) * np.array(motion.towards)
    return np.round(centres_TK2 * _SUB) / _SUB, np.round(scene.diameters_K * scale_T[:, None] * _SUB) / _SUB


def draw(params: Synthetic, scene: Scene) -> NDArray[np.uint8]:
    """The video's pixels, (frames, size, size, 3) RGB."""
    sprites, backgrounds = _bank(params)
    size = params.size
    centres_TK2, diameters_TK = tracks(params, scene)
    frames = np.empty((params.frames, size, size, 3), np.uint8)
    for t, frame in enumerate(frames):
        left, top = scene.start_2 + t * scene.pan_2
        canvas = _sample(backgrounds[scene.background], _grid(top, 1.0, size), _grid(left, 1.0, size))
        for look, (x, y), diameter in zip(scene.looks_K, centres_TK2[t], diameters_TK[t], strict=True):
            _paint(canvas, sprites[look], x, y, diameter)
        frame[...] = canvas
    return frames


def _paint(canvas: NDArray[np.int32], sprite: NDArray[np.int32], x: float, y: float, diameter: float) -> None:
    """Put a sprite (its fourth channel is opacity, 0 to 256) on the canvas, centred on (x, y)."""
    size = len(canvas)
    left, top = max(0, math.floor(x - diameter / 2)), max(0, math.floor(y - diameter / 2))
    right, bottom = min(size, math.ceil(x + diameter / 2)), min(size, math.ceil(y + diameter / 2))
    if left >= right or top >= bottom:
        return
    step = _TEXTURE / diameter  # texels a pixel
    rows = _grid((top + 0.5 - y) * step + _TEXTURE / 2 - 0.5, step, bottom - top)
    columns = _grid((left + 0.5 - x) * step + _TEXTURE / 2 - 0.5, step, right - left)
    patch = _sample(sprite, rows, columns)
    under = canvas[top:bottom, left:right]
    under += ((patch[..., :3] - under) * patch[..., 3:]) >> 8


def _grid(start: float, step: float, count: int) -> NDArray[np.int64]:
    """`count` places from `start`, `step` apart, in units of 1/256: integers, so that machines agree."""
    return round(start * _SUB) + np.arange(count) * round(step * _SUB)


def _sample(image: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
    """Bilinear interpolation at rows x columns (in 1/256), edges repeated."""

    def lines(lines: NDArray[np.int32], places: NDArray[np.int64]) -> NDArray[np.int32]:
        whole = np.clip(places >> 8, 0, len(lines) - 2)
        part = np.clip(places - (whole << 8), 0, _SUB).astype(np.int32)[:, None, None]
        return (lines[whole] * (_SUB - part) + lines[whole + 1] * part + _SUB // 2) >> 8

    return lines(lines(image, rows).swapaxes(0, 1), columns).swapaxes(0, 1)


@lru_cache(maxsize=1)
def _bank(params: Synthetic) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sprites (16, 32, 32, 4) and backgrounds (8, side, side, 3), shared by all videos of a set: drawing textures anew costs most of the time."""
    rng = _rng(params.seed, 0, 0)
    side = params.size + 2 * (math.ceil(params.pan * params.frames) + 2) + 8
    y, x = np.mgrid[:_TEXTURE, :_TEXTURE] * 2 - (_TEXTURE - 1)  # twice the distance from the middle
    shapes = [
        _TEXTURE**2 - x * x - y * y,
        (_TEXTURE - 1 - np.maximum(abs(x), abs(y))) * 24,
        (_TEXTURE - abs(x) - abs(y)) * 24,
    ]  # disc, square, diamond
    sprites = []
    for look in range(16):
        tint = rng.integers(-40, 41, 3)
        texture = np.clip(195 + tint + _smooth(rng, 5, _TEXTURE, 55), 0, 255)
        opacity = np.clip(shapes[look % 3] * 2, 0, 256)[..., None]
        sprites.append(np.concatenate([texture, opacity], axis=-1))
    backgrounds = [np.clip(80 + rng.integers(-15, 16, 3) + _smooth(rng, side // 8, side, 22), 0, 255) for _ in range(8)]
    return np.array(sprites, np.int32), np.array(backgrounds, np.int32)


def _smooth(rng: np.random.Generator, cells: int, side: int, contrast: int) -> NDArray[np.int32]:
    """Smooth grey noise, (side, side, 1), between -contrast and contrast."""
    coarse = rng.integers(-contrast, contrast + 1, (cells, cells, 1)).astype(np.int32)
    places = _grid(0, (cells - 1) / side, side)
    return _sample(coarse, places, places)


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, (stream << 32) + index]))


def _boxes(params: Synthetic, scene: Scene) -> NDArray[np.float32]:
    centres_TK2, diameters_TK = tracks(params, scene)
    middles, halves = centres_TK2[..., ::-1], diameters_TK[..., None] / 2
    return np.clip(np.concatenate([middles - halves, middles + halves], axis=-1), 0, params.size).astype(np.float32)


def _encode(frames_THWC: NDArray[np.uint8], fps: int, path: Path) -> None:
    """H.264 with two B-frames between P-frames, one reference each way, and vectors down to 8 x 8 blocks."""
    options = {
        "preset": "ultrafast",
        "crf": "18",
        "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=2:b-adapt=0:b-pyramid=none:ref=1:weightp=0:weightb=0:"
        "partitions=p8x8,b8x8:me=hex:merange=16:subme=2:rc-lookahead=0:threads=1",
    }
    size = frames_THWC.shape[1]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for planes in _yuv420(frames_THWC):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def _yuv420(frames_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BT.601, limited range, in integers (swscale's roundings depend on the processor): (frames, size * 3 / 2, size), planes one below the other."""
    count, size = frames_THWC.shape[:2]
    red, green, blue = np.moveaxis(frames_THWC.astype(np.int32), -1, 0)
    luma = (66 * red + 129 * green + 25 * blue + 128 >> 8) + 16
    red, green, blue = (plane.reshape(count, size // 2, 2, size // 2, 2).sum((2, 4)) for plane in (red, green, blue))
    chroma_u = (-38 * red - 74 * green + 112 * blue + 512 >> 10) + 128
    chroma_v = (112 * red - 94 * green - 18 * blue + 512 >> 10) + 128
    parts = [luma, chroma_u.reshape(count, size // 4, size), chroma_v.reshape(count, size // 4, size)]
    return np.concatenate(parts, axis=1).astype(np.uint8)


def _draw_some(params: Synthetic, videos: Path, split: str, indices: range) -> list[tuple[str, NDArray[np.float32]]]:
    boxes = []
    for index in indices:
        what = scene(params, split, index)
        name = str(_FIRST_ID[split] + index)
        _encode(draw(params, what), params.fps, videos / f"{name}.mp4")
        boxes.append((name, _boxes(params, what)))
    return boxes


def _draw_all(params: Synthetic, videos: Path, processes: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(id, boxes) of every video, drawn by as many processes; which process draws a video does not matter to it."""
    tasks = [
        (params, videos, split, range(count)[start : start + 40])
        for split, count in _counts(params).items()
        for start in range(0, count, 40)
    ]
    if processes == 1:
        for task in tasks:
            yield from _draw_some(*task)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for boxes in pool.map(_draw_some, *zip(*tasks)):
            yield from boxes


def _counts(params: Synthetic) -> dict[str, int]:
    return {"train": params.classes * params.train_per_class, "test": params.classes * params.test_per_class}


def _index(params: Synthetic, out: Path) -> Index:
    videos = []
    root = out.resolve()
    for split, count in _counts(params).items():
        for index in range(count):
            name = str(_FIRST_ID[split] + index)
            path = str(root / "videos" / f"{name}.mp4")
            label = index % params.classes
            videos.append(
                Video(
                    path,
                    label,
                    split,
                    name,
                    params.frames,
                    float(params.fps),
                    params.size,
                    params.size,
                    "h264",
                    True,
                    os.path.getsize(path),
                )
            )
    note = (
        f"generated videos (seed {params.seed}), split as drawn: {params.train_per_class} train and {params.test_per_class} test per class"
    )
    return Index(root, CLASSES[: params.classes], tuple(videos), (), params.digest, note)


def _finished(params: Synthetic, out: Path) -> Index | None:
    """The set's index if exactly this set lies in `out`, whole."""
    try:
        index = read_index(out)
    except UserError:
        return None
    here = {entry.name: entry.stat().st_size for entry in os.scandir(out / "videos")} if (out / "videos").is_dir() else {}
    whole = all(here.get(os.path.basename(video.path)) == video.bytes for video in index.videos) and (out / "boxes.npz").is_file()
    return index if index.digest == params.digest and whole else None


def _write_labels(params: Synthetic, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    names = [name[0].upper() + name[1:] for name in CLASSES[: params.classes]]
    content = {"labels": {name: str(label) for label, name in enumerate(names)}}
    lists = {
        official: [
            {
                "id": str(_FIRST_ID[split] + index),
                "label": names[index % params.classes].lower(),
                "template": names[index % params.classes],
                "placeholders": [],
            }
            for index in range(_counts(params)[split])
        ]
        for split, official in (("train", "train"), ("test", "validation"))
    }
    for name, value in {**content, **lists}.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
