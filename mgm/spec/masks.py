"""The settings of a mask, and the table of all masks. `mgm.masking` computes them.

To add a mask to the package, write its function (`mgm.masking.paper` and `mgm.masking.others` have
examples), and add a line to MASKS and one to `mgm.masking.make.FUNCTIONS`. A mask of your own needs
no line: its name is `module:function`.
"""

import inspect
import re
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mgm.errors import UserError, nearest


class FrozenModel(BaseModel):
    """An immutable value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MaskInfo(NamedTuple):
    """Facts about a mask for tables and figures."""

    row: str = ""  # its row in Table 4e; empty: none
    guided: bool = False  # reads motion
    directional: bool = False  # and the motion's direction
    # The method's paper, if it is not the MGM paper. Then the study `masks` lists its row.
    source: str = ""
    # Raise this number when the same spec makes another mask, so that its runs get other ids.
    version: int = 1
    # The usual share of hidden patches.
    ratio: float = 0.75


# Ratios. P: the paper (4.5, Figure 4a) states 0.75 for MGM alone. V: VideoMAE, scripts.
MASKS = {
    "agnostic": MaskInfo(ratio=0.9),  # ST-MAE's abstract
    "tube": MaskInfo("Random Tube", ratio=0.9),  # V
    "block": MaskInfo("Random Block"),
    "smm-sparse": MaskInfo("SMM (Sparse)"),
    "smm": MaskInfo("SMM (Dense)"),
    "mgm-sparse": MaskInfo("MGM (Sparse)", guided=True),
    "mgm": MaskInfo("MGM (Dense)", guided=True),  # P
    # MGMAE: scripts/mgmae/*.sh
    "warped": MaskInfo("Warped (MGMAE)", True, True, source="MGMAE", version=2, ratio=0.9),
    # TrackMAE: README.md
    "motion-bins": MaskInfo(
        "Motion Bins (TrackMAE)", True, source="TrackMAE", version=2, ratio=0.8
    ),
    # V-JEPA: "an average masking ratio of about 90 %"
    "multi-block": MaskInfo("Multi-Block (V-JEPA)", source="V-JEPA", ratio=0.9),
    # As tube masking, which it replaces.
    "green-noise": MaskInfo(
        "Green Noise (Green3D)", source="Structured-Noise Masked Modeling", ratio=0.9
    ),
    "codec-keep": MaskInfo("Codec Keep (OneVision-Encoder)", True, source="OneVision-Encoder"),
    "codec-clip": MaskInfo("Codec Clip (OneVision-Encoder)", True, source="OneVision-Encoder"),
    # As multi-block, whose blocks they place.
    "motion-blocks": MaskInfo("Motion Blocks (V-JEPA 2.1)", True, source="V-JEPA 2.1", ratio=0.9),
    "static-blocks": MaskInfo("Static Blocks (V-JEPA 2.1)", True, source="V-JEPA 2.1", ratio=0.9),
    # One of eight slots is visible.
    "future": MaskInfo("Future Frames (V-JEPA)", source="V-JEPA", ratio=0.875),
}

# The name of a mask of your own.
OWN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


def own_mask(name: str) -> Callable[..., Any]:
    """Return the function that the name of a mask, `module:function`, names."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"mask {name}: {error}; its module must be on the Python path") from None
    # Nothing is called that is no mask, such as os:system.
    if not 3 <= len(_arguments(found)) <= 5:
        raise UserError(
            f"mask {name}: is no mask; a mask is a function of mask, grid and seed_B, and if it "
            "follows motion, of magnitude_BSHW and displacement_BSHW2"
        )
    return found


def _arguments(found: Any) -> list[inspect.Parameter]:
    """Return the arguments of a function whose first three are needed; none of anything else."""
    if not callable(found) or inspect.isclass(found) or inspect.isbuiltin(found):
        return []
    arguments = [*inspect.signature(found).parameters.values()]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = all(one.default is inspect.Parameter.empty for one in arguments[:3])
    return arguments if needed and all(one.kind in by_place for one in arguments) else []


def mask_info(name: str) -> MaskInfo:
    """Return the facts about a mask.

    A mask of your own is imported. It is guided if its function takes the magnitude of motion as
    its fourth argument, and directional if it takes displacements as its fifth.
    """
    if name in MASKS:
        return MASKS[name]
    arguments = len(_arguments(own_mask(name)))
    return MaskInfo(guided=arguments > 3, directional=arguments > 4)


def _known(name: str) -> str:
    if name not in MASKS and not re.fullmatch(OWN, name):
        raise ValueError(f"no such mask; {nearest(name, MASKS)}; one of your own: module:function")
    return name


MaskName = Annotated[str, AfterValidator(_known)]
Flow = Literal["raft-small", "dis"]  # RAFT-small from torchvision, DIS from OpenCV
# What a track holds (`mgm.video.track`): the codec's motion vectors, or optical flow.
Method = Literal["codec", Flow]
Guidance = Literal["vectors", Flow, "shuffled"]
FLOWS = get_args(Flow)


class Mask(FrozenModel):
    """All settings of a mask."""

    name: MaskName = "mgm"
    # The share of patches that are hidden (`hidden`).
    ratio: float = Field(0.75, gt=0, lt=1)
    # Whether mgm's box changes its aspect ratio from slot to slot (eq. 7).
    jitter: bool = True
    # The codec's motion vectors, or optical flow (`mgm.video.flow`). Shuffled is a control: the
    # codec's motion vectors of another training video.
    guidance: Guidance = "vectors"
    # The version of the mask's definition. Default: the one that this code computes.
    version: int = Field(1, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_what_this_code_makes(self):
        if "version" not in self.model_fields_set and self.name in MASKS:
            self.__dict__["version"] = MASKS[self.name].version
        return self

    @model_validator(mode="after")
    def _reads_its_settings(self):
        info = MASKS.get(self.name, MaskInfo(guided=True))
        if not self.jitter and self.name in MASKS and self.name != "mgm":
            raise ValueError(
                f"jitter is a setting of mask mgm, and {self.name} has none; remove it"
            )
        if self.guidance != "vectors" and not info.guided:
            raise ValueError(
                f"guidance {self.guidance} changes nothing: mask {self.name} follows no motion; "
                "remove it"
            )
        return self

    @property
    def method(self) -> Method:
        """Return which tracks guide the mask."""
        return self.guidance if self.guidance in FLOWS else "codec"  # type: ignore[return-value]

    def hidden(self, patches: int) -> int:
        """Return K, how many patches of a slot are hidden.

        The slots of the masks agnostic, codec-clip and future hide different numbers, of mean K.

        Masks round the number of hidden patches down, as VideoMAE does. MGMAE's code rounds the
        number of visible patches down, here to at least one. At 0.9 it shows 19 of 196 patches, and
        VideoMAE shows 20.
        """
        if self.name == "warped":
            return patches - max(1, int(patches * (1 - self.ratio)))
        return int(self.ratio * patches)
