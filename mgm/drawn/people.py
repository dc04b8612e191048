"""Draw a person of capsules who makes a recorded action, for `layout: people`.

The class is the action. Everything else is drawn per video and does not depend on the class: where
the camera stands, how fast the action goes and when it starts, how long and how wide each limb is,
the colours, the size and the place in the picture, and whether the video is mirrored. The camera
moves evenly along the action's mean path, so the person stays in the picture. The ground is that of
the other layouts.

motions.npz has the actions: positions of 15 joints, in metres, y up, 30 per second. They come from
pybullet (zlib licence, motions.LICENSE.txt).
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mgm.drawn.discs import SUB, bank, ground, stream
from mgm.drawn.params import KINDS, SPLITS, Synthetic

RATE = 30  # positions per second in motions.npz
PROPORTION = 0.15  # limbs are up to 15 % shorter or longer
SPEED = 0.2  # actions are up to 20 % slower or faster
YAW = math.radians(60)  # the camera's largest angle from the side view
EXTENT = (0.6, 0.85)  # the larger side of all that the person covers, in shares of the frame

ROOT, CHEST, NECK = range(3)
# Joint: the joint it hangs from, and which length scales the limb between them.
TORSO, LEG, ARM = range(3)
PARENTS = {CHEST: (ROOT, TORSO), NECK: (CHEST, TORSO)}
for hip, shoulder in ((3, 6), (9, 12)):
    PARENTS |= {hip: (ROOT, TORSO), hip + 1: (hip, LEG), hip + 2: (hip + 1, LEG)}
    PARENTS |= {shoulder: (CHEST, TORSO), shoulder + 1: (shoulder, ARM)}
    PARENTS |= {shoulder + 2: (shoulder + 1, ARM)}
WIDTHS = ((0.20, 0.28), (0.11, 0.16), (0.08, 0.12))  # metres, of torso, leg and arm
HEAD = 15  # the joint after the recorded ones: the head's centre
RADIUS = 0.12  # of the head, in metres


@dataclass(frozen=True)
class Person:
    """The random choices of a video. All except `label` are independent of the label.

    Attributes:
        label: the class.
        background: its number in the bank.
        view: (2,): where the frame is in the background at the start, as x and y in pixels.
        pan: (2,): the view's motion, in pixels per frame.
        mirrored: whether the drawn video is mirrored, left to right.
        yaw: the camera's angle from the side view, in radians.
        speed: how many times as fast as recorded the action goes.
        start: when it starts, as a share of the positions that the video leaves out.
        lengths: (3,): how many times as long as recorded torso, legs and arms are.
        widths: (3,): of torso, legs and arms, in metres.
        colours: (4, 3): RGB of torso, legs, arms and head.
        extent: the larger side of what the person covers, as a share of the frame.
        place: (2,): where that is, as x and y from 0 to 1 of the room that is left.
    """

    label: int
    background: int
    view: NDArray[np.float64]
    pan: NDArray[np.float64]
    mirrored: bool
    yaw: float
    speed: float
    start: float
    lengths: NDArray[np.float64]
    widths: NDArray[np.float64]
    colours: NDArray[np.int64]
    extent: float
    place: NDArray[np.float64]


@cache
def recordings() -> dict[str, NDArray[np.float64]]:
    """Return {action: positions (N, joints, 3)} in metres."""
    with np.load(Path(__file__).parent / "motions.npz") as file:
        return {name: file[name].astype(float) for name in file.files if name != "links"}


def scene(params: Synthetic, split: str, index: int) -> Person:
    """Draw the random choices of video `index` of a split."""
    # The streams after those of the kinds.
    rng = stream(params.seed, 16 * len(KINDS) + 1 + SPLITS.index(split), index)
    _, backgrounds = bank(params)
    angle, margin = rng.uniform(0, 2 * math.pi), params.pan * params.frames
    return Person(
        label=index % params.classes,
        background=int(rng.integers(len(backgrounds))),
        view=rng.uniform(margin, backgrounds.shape[1] - params.size - margin - 1, 2),
        pan=params.pan * np.array([math.cos(angle), math.sin(angle)]),
        mirrored=bool(rng.integers(2)),
        yaw=rng.uniform(-YAW, YAW),
        speed=rng.uniform(1 - SPEED, 1 + SPEED),
        start=rng.uniform(),
        lengths=rng.uniform(1 - PROPORTION, 1 + PROPORTION, 3),
        widths=rng.uniform(*np.transpose(WIDTHS)),
        colours=190 + rng.integers(-60, 61, (4, 3)),
        extent=rng.uniform(*EXTENT),
        place=rng.uniform(size=2),
    )


def joints(
    params: Synthetic, person: Person
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return where the joints are, before mirroring.

    Returns:
        Positions (frames, joints and head, 2) as x and y in pixels, depths in metres, and the
        number of pixels per metre.
    """
    recorded_NJ3 = recordings()[params.names[person.label]]
    last = len(recorded_NJ3) - 1
    time_T = np.arange(params.frames) * RATE / params.fps * person.speed
    # An action that is shorter than the video holds its first or its last pose.
    time_T = np.clip(time_T + person.start * (last - time_T[-1]), 0, last)
    before_T = np.minimum(time_T.astype(int), last - 1)
    part_T11 = (time_T - before_T)[:, None, None]
    pose_TJ3 = (1 - part_T11) * recorded_NJ3[before_T] + part_T11 * recorded_NJ3[before_T + 1]

    body_TJ3 = pose_TJ3.copy()
    for joint, (parent, length) in PARENTS.items():
        limb_T3 = pose_TJ3[:, joint] - pose_TJ3[:, parent]
        body_TJ3[:, joint] = body_TJ3[:, parent] + person.lengths[length] * limb_T3

    spine_T3 = body_TJ3[:, NECK] - body_TJ3[:, CHEST]
    head_T3 = body_TJ3[:, NECK] + RADIUS * spine_T3 / np.linalg.norm(spine_T3, axis=1)[:, None]
    body_TJ3 = np.append(body_TJ3, head_T3[:, None], axis=1)

    # The camera follows the path's straight line, and stays at one height.
    frame_T = np.arange(params.frames)
    middle_T3 = body_TJ3.mean(1)
    for axis in (0, 2):
        slope, offset = np.polyfit(frame_T, middle_T3[:, axis], 1)
        body_TJ3[..., axis] -= (slope * frame_T + offset)[:, None]
    cos, sin = math.cos(person.yaw), math.sin(person.yaw)
    x_TJ = cos * body_TJ3[..., 0] + sin * body_TJ3[..., 2]
    depth_TJ = cos * body_TJ3[..., 2] - sin * body_TJ3[..., 0]
    flat_TJ2 = np.stack([x_TJ, -body_TJ3[..., 1]], axis=-1)

    low_2, high_2 = flat_TJ2.min((0, 1)) - RADIUS, flat_TJ2.max((0, 1)) + RADIUS
    scale = person.extent * params.size / max(high_2 - low_2)
    room_2 = params.size - scale * (high_2 - low_2)
    pixels_TJ2 = scale * (flat_TJ2 - low_2) + person.place * room_2
    return np.round(pixels_TJ2 * SUB) / SUB, depth_TJ, scale


def boxes(params: Synthetic, person: Person) -> NDArray[np.float32]:
    """Return the person's bounding boxes, (frames, 1, 4).

    A box is top, left, bottom and right in pixels, clipped to the frame.
    """
    pixels_TJ2, _, scale = joints(params, person)
    # OpenCV's whole numbers are the middles of pixels.
    middles_TJ2 = pixels_TJ2 + 0.5
    # The widest limb's half is enough for all.
    reach_J1 = scale * np.append(np.full(HEAD, person.widths.max() / 2), RADIUS)[:, None]
    left, top = (middles_TJ2 - reach_J1).min(1).T
    right, bottom = (middles_TJ2 + reach_J1).max(1).T
    if person.mirrored:
        left, right = params.size - right, params.size - left
    box_T4 = np.stack([top, left, bottom, right], axis=-1)
    return np.clip(box_T4, 0, params.size).astype(np.float32)[:, None]


def draw(params: Synthetic, person: Person) -> NDArray[np.uint8]:
    """Return the video's pixels, (frames, size, size, 3) uint8 RGB."""
    pixels_TJ2, depth_TJ, scale = joints(params, person)
    # OpenCV draws whole pixels of width, and places in 1/256 pixel.
    widths = [max(2, round(scale * width)) for width in person.widths]
    _, backgrounds = bank(params)
    frames = np.empty((params.frames, params.size, params.size, 3), np.uint8)
    for t, frame in enumerate(frames):
        view = person.view + t * person.pan
        canvas = ground(backgrounds[person.background], view, params.size).astype(np.uint8)
        places = np.round(pixels_TJ2[t] * SUB).astype(int)
        # Far limbs first, each a bit darker.
        limbs = sorted(
            (float(depth_TJ[t, joint] + depth_TJ[t, parent]), joint)
            for joint, (parent, _) in PARENTS.items()
        )
        for number, (_, joint) in enumerate(limbs):
            parent, part = PARENTS[joint]
            colour = person.colours[part] * (75 + 25 * number // len(limbs)) // 100
            ends = places[parent].tolist(), places[joint].tolist()
            cv2.line(canvas, *ends, colour.tolist(), widths[part], cv2.LINE_AA, shift=8)
            if joint == NECK:
                radius, colour = round(RADIUS * scale * SUB), person.colours[3]
                head = places[HEAD].tolist()
                cv2.circle(canvas, head, radius, colour.tolist(), -1, cv2.LINE_AA, shift=8)
        frame[...] = canvas[:, ::-1] if person.mirrored else canvas
    return frames
