"""The parameters of a generated set, its videos and its worlds. Importing this needs no PyAV.

classes.csv lists the classes: kind, name, and how the sprites move, in three numbers: along x,
along y and of the diameter. A number is 0 for static, 2 for both ways at the same speed, and -1 or
1 for the direction of the quick way.

The kinds ucf101 and hmdb51 share their first seven classes, as many as the published tasks of
partial domain adaptation. The classes of diving48 come in pairs: one is the other backwards in
time. Discs of all kinds except ssv2 are mirrored at random, so left and right are the same class
there; so are all persons.
"""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from mgm.errors import valid
from mgm.spec import FrozenModel

Kind = Literal["ssv2", "k400", "ucf101", "hmdb51", "diving48"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS = ("train", "test")

# Raise a kind's number when the generator draws other pixels for the same parameters.
GENERATOR_VERSION: dict[Kind, int] = {"ssv2": 2, "k400": 2, "ucf101": 1, "hmdb51": 1, "diving48": 1}

Ways = tuple[int, int, int]  # along x, along y and of the diameter


def _classes() -> dict[Kind, dict[str, Ways]]:
    """Return {kind: {class: its motion}}. Classes are in the order of their labels."""
    classes: dict[Any, dict[str, Ways]] = {}
    with (Path(__file__).parent / "classes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x, y, diameter = map(int, row["motion"].split())
            classes.setdefault(row["kind"], {})[row["class"]] = x, y, diameter
    return classes


MOTIONS = _classes()
CLASSES = {kind: tuple(motions) for kind, motions in MOTIONS.items()}
# The classes of layout people: the arrays of motions.npz.
ACTIONS = (
    "backflip", "cartwheel", "crawl", "dance_a", "dance_b", "getup_facedown", "getup_faceup",
    "jump", "kick", "punch", "roll", "run", "spin", "spinkick", "walk",
)  # fmt: skip


def _names(kind: Kind, layout: str) -> tuple[str, ...]:
    return ACTIONS if layout == "people" else CLASSES[kind]


def world(seed: int) -> dict[str, Any]:
    """Return the parameters that a world's seed draws. Nothing else of a set decides them.

    Every fourth seed is a drawn person, so that a row of worlds has them evenly. The others are
    discs. The ground is a texture of little contrast. The camera is still or pans slowly.
    """
    # One byte per parameter. A digest is the same on every machine.
    drawn = hashlib.sha256(f"world {seed}".encode()).digest()
    scene = {"ground": "textured", "contrast": drawn[0] % 51, "pan": (0.0, 0.8)[drawn[1] % 2]}
    if seed % 4 == 0:
        return {"layout": "people", **scene}
    return {"layout": "sway", "quick": 1 + drawn[2] % 10, "sprites": 1 + drawn[3] % 3, **scene}


class Synthetic(FrozenModel):
    """The parameters of a generated set.

    The kind `world` stands for the kind ssv2 with the parameters that `world` draws from the seed.
    A world's classes and size have other defaults: all classes, and 96 pixels for a person.

    Attributes:
        kind: the dataset that the set imitates. In ssv2, left and right are labels. In the others,
            a mirrored video keeps its label.
        classes: how many of the kind's CLASSES are used, from the first. Default: all.
        size: the frame's side in pixels.
        pan: the background's motion in pixels per frame.
        ground: the background's texture. `fine` has the kind's colours, and gives the codec motion
            to find. `textured` has contrast in every patch.
        contrast: of the background's texture, in per cent. Nothing else depends on it.
        layout: what is drawn. `sway`: sprites that move to and fro within the frame, all in the
            motion of the class. `people`: a person who makes the action of the class, whatever the
            kind.
        sprites: their number.
        diameter: the sprites' mean diameter, as a share of the frame's side.
        quick: the number of frames of the quick way, in a period of 30 frames.
    """

    kind: Kind = "ssv2"
    layout: Literal["sway", "people"] = "sway"
    classes: int = Field(default_factory=lambda values: len(_names(**values)), ge=2)
    train_per_class: int = Field(default=80, ge=1, le=5_000)
    test_per_class: int = Field(default=20, ge=1, le=5_000)
    size: int = Field(default=64, ge=32, le=512, multiple_of=16)
    frames: int = Field(default=24, ge=2, le=512)
    fps: int = Field(default=12, ge=1, le=60)
    pan: float = Field(default=0.8, ge=0, le=4)
    ground: Literal["fine", "textured"] = "fine"
    contrast: int = Field(default=100, ge=0, le=100)
    seed: int = Field(default=0, ge=0, lt=2**63)
    sprites: int = Field(default=5, ge=1, le=16)
    diameter: float = Field(default=0.33, ge=0.05, le=0.4)
    quick: int = Field(default=10, ge=1, le=14)

    @model_validator(mode="before")
    @classmethod
    def _world(cls, fields: Any) -> Any:
        if not (isinstance(fields, dict) and fields.get("kind") == "world"):
            return fields
        drawn = world(int(fields.get("seed", 0)))
        if both := {*fields} & {*world(1), *world(4)}:
            raise ValueError(f"{min(both)}: a world's seed decides it")
        size = 96 if drawn["layout"] == "people" else 64
        return {"size": size, **fields, **drawn, "kind": "ssv2"}

    @model_validator(mode="after")
    def _fits(self):
        most = len(_names(self.kind, self.layout))
        if self.classes > most:
            what = "layout people" if self.layout == "people" else f"kind {self.kind}"
            raise ValueError(f"classes: {what} has at most {most}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes, by label."""
        return _names(self.kind, self.layout)[: self.classes]

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of videos of each split."""
        per_class = self.train_per_class, self.test_per_class
        return {split: self.classes * count for split, count in zip(SPLITS, per_class)}

    @property
    def digest(self) -> str:
        """Return 12 hex digits of the parameters and of the version of the kind's generator.

        They identify the set on every machine.
        """
        fields = {**self.model_dump(mode="json"), "generator": GENERATOR_VERSION[self.kind]}
        # Sets that are older than these parameters keep their digests.
        for name, value in {"quick": 10, "contrast": 100}.items():
            if fields[name] == value:
                del fields[name]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def videos(self) -> list[str]:
        """Return the name of every video. Names count from 100000 (train) or 200000 (test)."""
        return [
            str(start + number)
            for start, count in zip((100_000, 200_000), self.counts.values())
            for number in range(count)
        ]


def parse_params(fields: Any, source: str) -> Synthetic:
    """Return the parameters in `fields`. Missing fields have their defaults."""
    with valid(f"{source}: ", f"the parameters are {', '.join(Synthetic.model_fields)}"):
        return Synthetic.model_validate(fields)


def place(name: str) -> tuple[str, int]:
    """Return the split of a video, and its number there. Its label is that modulo the classes."""
    split, number = divmod(int(name), 100_000)
    return SPLITS[split - 1], number
