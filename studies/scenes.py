"""Put the people of clips on black before natural scenes, still or panning, and encode H.264.

    python studies/scenes.py SOURCE OUT SCENES TEST_PEOPLE [PAN]

SOURCE has clips of people cut out on black, whose names have the person: a01_s1_t1.mp4. SCENES has
videos of natural scenes. A clip gets a crop of the first frame of one of them, by chance, from its
name alone. Clips of test people get other scenes than clips of training people. PAN is how far the
scene moves, in pixels per frame, in a direction of its own; the person's motion stays. The study
`visible` uses clips of UTD-MHAD and the 300 videos of Surveillance Camera Fight (MIT).
"""

import hashlib
import math
import re
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES = 160, 120, 32
PERSON = 24  # brighter pixels are a person's


def main(source: Path, out: Path, scenes: Path, test_people: set[int], pan: float) -> None:
    files = sorted(scenes.rglob("*.mp4"))
    # Two thirds of the scenes are for training people.
    cut = len(files) * 2 // 3
    pools = {False: files[:cut], True: files[cut:]}
    stills: dict[Path, NDArray[np.uint8]] = {}
    for path in sorted(source.rglob("*.mp4")):
        rng = np.random.default_rng(list(hashlib.sha256(path.name.encode()).digest()[:8]))
        found = re.search(r"_s(\d+)_", path.name)
        assert found, f"{path}: its name has no person"
        pool = pools[int(found[1]) in test_people]
        scene = pool[rng.integers(len(pool))]
        if scene not in stills:
            stills[scene] = _still(scene, math.ceil(pan * FRAMES))
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, _composed(_frames(path), stills[scene], pan, rng))


def _frames(path: Path, most: int = FRAMES) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        frames = zip(range(most), container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for _, frame in frames]


def _still(path: Path, travel: int) -> NDArray[np.uint8]:
    """Return the first frame, 1.5 times as large as a view that moves `travel` pixels needs."""
    (frame,) = _frames(path, 1)
    height, width = frame.shape[:2]
    factor = 1.5 * max((WIDTH + 2 * travel) / width, (HEIGHT + 2 * travel) / height)
    size = round(width * factor), round(height * factor)
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _composed(
    frames: list[NDArray[np.uint8]], still: NDArray[np.uint8], pan: float, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return frames with the person before the scene."""
    travel, angle = math.ceil(pan * FRAMES), rng.uniform(0, 2 * math.pi)
    left = rng.integers(travel, still.shape[1] - WIDTH - travel)
    top = rng.integers(travel, still.shape[0] - HEIGHT - travel)
    composed = []
    for number, frame in enumerate(frames):
        x, y = left + pan * number * math.cos(angle), top + pan * number * math.sin(angle)
        view = cv2.getRectSubPix(
            still, (WIDTH, HEIGHT), (x + (WIDTH - 1) / 2, y + (HEIGHT - 1) / 2)
        )
        person = cv2.dilate((frame.max(-1) > PERSON).astype(np.float32), np.ones((3, 3)))
        opacity = cv2.GaussianBlur(person, (3, 3), 0)[..., None]
        composed.append(np.uint8((opacity * frame + (1 - opacity) * view).round()))
    return composed


def _write(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(15))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "23", "g": "250", "bf": "0", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    source, out, scenes, people, *pan = sys.argv[1:]
    main(
        Path(source), Path(out), Path(scenes), {*map(int, people.split(","))}, float(*pan or [0.0])
    )
