"""What a generated set is, without drawing it: the parameters and their digest."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["ssv2", "k400"]

GENERATOR_VERSION: dict[Kind, int] = {  # raise a kind's whenever `mgm.datasets.synthetic` draws other pixels for the same parameters
    "ssv2": 2,
    "k400": 2,
}

CLASSES: dict[Kind, tuple[str, ...]] = {
    "ssv2": (
        "moving things left",
        "moving things right",
        "moving things up",
        "moving things down",
        "moving things up and left",
        "moving things up and right",
        "moving things down and left",
        "moving things down and right",
        "zooming in on things",
        "zooming out from things",
        "moving things up and back down",
        "moving things down and back up",
    ),
    "k400": (
        "rising",
        "falling",
        "going sideways",
        "rising sideways",
        "falling sideways",
        "coming closer",
        "going away",
        "rising and falling back",
        "falling and rising back",
        "going sideways and dropping",
        "going sideways and rising",
        "falling and going sideways",
    ),
}


class Synthetic(BaseModel):
    """A set like SSv2, where left and right are labels, or like K400, where a mirrored video keeps its label.

    `size` in pixels, `pan` (the background's motion) in pixels a frame; the first `classes` of the kind's CLASSES are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "ssv2"
    classes: int = Field(default=12, ge=2, le=12)
    train_per_class: int = Field(default=80, ge=1, le=5_000)
    test_per_class: int = Field(default=20, ge=1, le=5_000)
    size: int = Field(default=64, ge=32, le=512, multiple_of=16)
    frames: int = Field(default=24, ge=2, le=512)
    fps: int = Field(default=12, ge=1, le=60)
    pan: float = Field(default=0.8, ge=0, le=4)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @property
    def digest(self) -> str:
        """12 hex digits of the parameters and the version of the kind's generator: the set's name wherever it is drawn."""
        fields = {**self.model_dump(mode="json"), "generator": GENERATOR_VERSION[self.kind]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]
