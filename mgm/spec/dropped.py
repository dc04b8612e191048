"""Fields and values of specs that mgm no longer has."""

from copy import deepcopy
from typing import Any

from mgm.errors import UserError

COMMIT = "commit 34d1f9f2"  # the last one that reads them
# Dropped fields with their defaults. Archived specs list all fields, and a default changed nothing.
FIELDS: dict[str, Any] = {
    "version": 1,
    "optim.name": "AdamW",
    "optim.options": {},
    "data.shuffle_labels": False,
    "clips.start_multiple": 1,
    "model.channels": 3,
    "model.positions": [],
    "freeze_blocks": 0,
    "class_weights": "none",
    "mask.jumps": False,
    "mask.guided_start": False,
    "mask.predicts": "all",
    "target": "pixels",
    "uninformed": "static",
    "still": False,
    "beside": "",
}
# Those of one stage alone.
STAGES: dict[str, dict[str, Any]] = {
    "finetune": {"held_out": "", "choices": []},
    "measure": {
        "flow": "raft-small",
        "ratio": 0.9,
        "decoder": {"width": 384, "depth": 4, "heads": 6},
    },
}
# Dropped values of fields that are left.
VALUES = {
    "mask.name": ["running-cell"],
    "mask.edge": ["spill"],
    "mask.guidance": ["permuted"],
    "mask.compensate": ["robust"],
    "compensate": ["robust"],
    "kind": ["sgd", "attentive"],
}


def without_dropped(fields: Any, source: str) -> Any:
    """Return a spec's fields without dropped ones that have their default.

    Raises:
        UserError: a dropped field has another value, or a field has a dropped value.
    """
    fields = deepcopy(fields)
    stage = fields.get("stage", fields.get("verb")) if isinstance(fields, dict) else ""
    dropped = FIELDS | (STAGES.get(stage, {}) if isinstance(stage, str) else {})
    for dotted in dropped | VALUES:
        *path, name = dotted.split(".")
        place = fields
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or name not in place:
            continue
        value = place[name] if dotted in VALUES else place.pop(name)
        if value in VALUES.get(dotted, ()) or value != dropped.get(dotted, value):
            raise UserError(f"{source}: {dotted} {value} was dropped; {COMMIT} still reads it")
    return fields
