"""Fields and values of specs that mgm no longer has."""

from copy import deepcopy
from typing import Any

from mgm.errors import UserError

COMMIT = "34d1f9f2"  # the last one that reads them
# Dropped fields with their defaults. Archived specs list all fields, and a default changed nothing.
FIELDS: dict[str, Any] = {
    "optim.name": "AdamW",
    "optim.options": {},
    "data.shuffle_labels": False,
    "clips.start_multiple": 1,
    "model.channels": 3,
    "model.positions": [],
    "freeze_blocks": 0,
    "class_weights": "none",
}


def without_dropped(fields: Any, source: str) -> Any:
    """Return a spec's fields without dropped ones that have their default.

    Raises:
        UserError: a dropped field has another value.
    """
    fields = deepcopy(fields)
    for dotted, default in FIELDS.items():
        *path, name = dotted.split(".")
        place = fields
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and place.pop(name, default) != default:
            raise UserError(f"{source}: {dotted} was dropped; commit {COMMIT} still reads it")
    return fields
