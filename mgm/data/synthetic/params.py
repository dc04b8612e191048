"""What a generated set is, without drawing it: the parameters and their digest.

classes.csv has the classes: of which kind and layout, their name, and how things move. In the
layout wrap that is a direction for each of
equal parts of the time, one after another: two at least, for in one part a place might be rounded
otherwise. UCF101 and HMDB51 share their first seven classes, as many as in the published tasks of
partial domain adaptation. Classes of diving48 are in pairs of the same parts in another order; two
parts that follow one another do so in one class only. In the layout sway it is a number along x, y
and the diameter: -1 or 1 the direction of the quick way, 2 to and fro alike, 0 at rest. All but
ssv2's are mirrored at random, so sideways is either way.
"""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from mgm.errors import valid

Kind = Literal["ssv2", "k400", "ucf101", "hmdb51", "diving48"]

# Raise a kind's whenever `mgm.data.synthetic.generator` draws other pixels for the same parameters
GENERATOR_VERSION: dict[Kind, int] = {"ssv2": 2, "k400": 2, "ucf101": 1, "hmdb51": 1, "diving48": 1}


def _classes(layout: str) -> dict[Kind, dict[str, tuple[str, ...]]]:
    """The classes of each kind, by label, and how things move in them."""
    classes: dict[Any, dict[str, tuple[str, ...]]] = {}
    with (Path(__file__).parent / "classes.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["layout"] == layout:
                classes.setdefault(row["kind"], {})[row["class"]] = tuple(row["motion"].split())
    return classes


MOTIONS, SWAYS = _classes("wrap"), _classes("sway")
CLASSES = {kind: tuple(motions) for kind, motions in MOTIONS.items()}


class Synthetic(BaseModel):
    """A set like SSv2, where left and right are labels, or like one of the others.

    In the others a mirrored video keeps its label.

    `ground` is the background's texture: `fine`, in the kind's colours, gives the codec vectors to
    find; `smooth`, grey in every kind, gives a small model something to predict. `layout` is how
    sprites move: `wrap`, on a torus, or `sway`, to and fro within the frame (kinds ssv2 and k400);
    there `sprites`, their mean `diameter` as a share of the frame's side, and `quick`, the frames
    of the 30 of a period that the quick way takes, can be chosen. `size` in pixels, `pan` (the
    background's motion) in pixels a frame; the first `classes` of the kind's CLASSES are used, all
    by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind = "ssv2"
    classes: int = Field(default_factory=lambda values: len(CLASSES[values["kind"]]), ge=2)
    train_per_class: int = Field(default=80, ge=1, le=5_000)
    test_per_class: int = Field(default=20, ge=1, le=5_000)
    size: int = Field(default=64, ge=32, le=512, multiple_of=16)
    frames: int = Field(default=24, ge=2, le=512)
    fps: int = Field(default=12, ge=1, le=60)
    pan: float = Field(default=0.8, ge=0, le=4)
    ground: Literal["fine", "smooth"] = "fine"
    seed: int = Field(default=0, ge=0, lt=2**63)
    layout: Literal["wrap", "sway"] = "wrap"
    sprites: int = Field(default=5, ge=1, le=16)
    diameter: float = Field(default=0.33, ge=0.05, le=0.4)
    quick: int = Field(default=10, ge=1, le=14)

    @field_validator("layout")
    @classmethod
    def _has_such_motions(cls, layout: str, info: ValidationInfo) -> str:
        if layout == "sway" and info.data.get("kind") not in SWAYS:
            raise PydanticCustomError(
                "layout", "layout sway is for kinds {kinds}", {"kinds": " and ".join(SWAYS)}
            )
        return layout

    @field_validator("sprites", "diameter", "quick")
    @classmethod
    def _is_free(cls, value: float, info: ValidationInfo) -> float:
        if (
            info.data.get("layout") == "wrap"
            and value != cls.model_fields[str(info.field_name)].default
        ):
            raise PydanticCustomError("free", "is for layout sway; leave it out", {})
        return value

    @field_validator("classes")
    @classmethod
    def _has_motions(cls, classes: int, info: ValidationInfo) -> int:
        kind = info.data.get("kind", "ssv2")  # absent if it is wrong itself, which is said first
        if classes > len(CLASSES[kind]):
            raise PydanticCustomError(
                "classes",
                "kind {kind} has at most {most}",
                {"kind": kind, "most": len(CLASSES[kind])},
            )
        return classes

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, by label."""
        return tuple(SWAYS[self.kind] if self.layout == "sway" else CLASSES[self.kind])[
            : self.classes
        ]

    @property
    def counts(self) -> dict[str, int]:
        """How many videos each split has."""
        return {
            "train": self.classes * self.train_per_class,
            "test": self.classes * self.test_per_class,
        }

    @property
    def digest(self) -> str:
        """12 hex digits of the parameters and the version of the kind's generator.

        They are the set's name wherever it is drawn.
        """
        fields = {**self.model_dump(mode="json"), "generator": GENERATOR_VERSION[self.kind]}
        if self.layout == "wrap":  # sets from before there were layouts keep their names
            fields = {
                name: value
                for name, value in fields.items()
                if name not in ("layout", "sprites", "diameter")
            }
        if self.quick == 10:  # so do those from before it could be chosen
            del fields["quick"]
        return hashlib.sha256(
            json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()[:12]


def parse_params(fields: Any, source: str) -> Synthetic:
    """Return the set that `fields` describe; the others have their defaults.

    Raises:
        UserError: a parameter is unknown or out of range. It names `source`.
    """
    with valid(f"{source}: ", f"the parameters are {', '.join(Synthetic.model_fields)}"):
        return Synthetic.model_validate(fields)
