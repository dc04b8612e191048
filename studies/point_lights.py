"""Draw point-light videos from recorded joints, and list them for `mgm prepare folder`.

    python studies/point_lights.py JOINTS.npz OUT [--pan PIXELS] [--seed SEED]
    mgm prepare folder --source OUT/videos.csv --out data/NAME

JOINTS.npz has `name`, (N,), such as a10_s1_t1 (action, subject, take), and `joints_NTJ3`, (N,
frames, joints, 3): x to the right, y up, z away from the camera, in metres. A video shows a dot per
joint, and as many distractors: dots of another recording of the same split, each moved to a random
place. So a frame holds twice as many dots as joints, and the label is how they move together. Odd
subjects train and even ones test, as UTD-MHAD publishes it. The camera turns around the person by
up to 30 degrees.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgm.data.synthetic.generator import encode

SIZE = 96
# Standard deviation of a dot's brightness, in pixels.
DOT = 1.3


def main() -> None:
    """Draw all recordings and write OUT/videos.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("joints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pan", type=float, default=0.0, help="pixels per frame, of everything")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with np.load(given.joints, allow_pickle=False) as arrays:
        names = [str(name) for name in arrays["name"]]
        joints_NTJ3 = arrays["joints_NTJ3"].astype(np.float64)
    actions, subjects = zip(*(name.split("_")[:2] for name in names), strict=True)
    tests = np.array([int(subject[1:]) % 2 == 0 for subject in subjects])
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split", "group"])
        for number, name in enumerate(names):
            rng = np.random.default_rng((given.seed, number))
            others = np.flatnonzero((tests == tests[number]) & (np.arange(len(names)) != number))
            dots_TJ2 = np.concatenate(
                [
                    camera(joints_NTJ3[number], rng),
                    distractors(camera(joints_NTJ3[rng.choice(others)], rng), rng),
                ],
                axis=1,
            )
            frames_THW = draw(dots_TJ2, given.pan, rng)
            encode(frames_THW, 15, given.out / f"{name}.mp4", "gray")
            split = "test" if tests[number] else "train"
            table.writerow([f"{name}.mp4", actions[number], split, subjects[number]])
    print(f"{len(names)} videos, listed in {given.out / 'videos.csv'}")


def camera(joints_TJ3: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the joints as a camera at a random side sees them, (frames, joints, 2) in pixels."""
    turn = np.radians(rng.uniform(-30, 30))
    centred_TJ3 = joints_TJ3 - joints_TJ3.mean((0, 1))
    across_TJ = centred_TJ3[..., 0] * np.cos(turn) + centred_TJ3[..., 2] * np.sin(turn)
    # 45 pixels per metre: a person fills most of the frame's height.
    return SIZE / 2 + 45 * np.stack([across_TJ, -centred_TJ3[..., 1]], axis=-1)


def distractors(dots_TJ2: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Move each dot's path to a random place in the frame."""
    places_J2 = rng.uniform(0.1 * SIZE, 0.9 * SIZE, dots_TJ2.shape[1:])
    return dots_TJ2 - dots_TJ2.mean(0) + places_J2


def draw(dots_TJ2: NDArray[np.float64], pan: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return grey frames (frames, size, size) of dots on a smooth ground. Both pan."""
    frames = len(dots_TJ2)
    angle = rng.uniform(0, 2 * np.pi)
    moved_T2 = pan * (np.arange(frames) - frames / 2)[:, None] * [np.cos(angle), np.sin(angle)]
    axis = np.arange(SIZE)
    pictures = []
    waves = rng.uniform(-0.35, 0.35, (6, 2)), rng.uniform(0, 2 * np.pi, 6)
    for dots_J2, moved_2 in zip(dots_TJ2 + moved_T2[:, None], moved_T2, strict=True):
        x_J, y_J = (np.exp(-((axis - dots_J2[:, k : k + 1]) ** 2) / (2 * DOT**2)) for k in range(2))
        ground = sum(
            np.sin(
                wave[0] * (axis[None] - moved_2[0]) + wave[1] * (axis[:, None] - moved_2[1]) + phase
            )
            for wave, phase in zip(*waves, strict=True)
        )
        picture = 50 + 6 * ground + 180 * np.minimum(1, (y_J[:, :, None] * x_J[:, None, :]).sum(0))
        pictures.append(np.clip(picture, 0, 255))
    return np.array(pictures).round().astype(np.uint8)


if __name__ == "__main__":
    main()
