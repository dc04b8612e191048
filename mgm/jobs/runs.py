"""A finished run, found by its folder or its spec."""

import json
from pathlib import Path

from mgm.errors import UserError
from mgm.spec import Spec, parse


def read_spec(place: Path) -> Spec:
    """The spec in a run's folder, or in a JSON file.

    Raises:
        UserError: there is none, or it is none.
    """
    path = place / "spec.json" if place.is_dir() else place
    try:
        return parse(json.loads(path.read_text()), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such spec; give a run's folder, as in results/NAME/RUN_ID") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a spec in JSON ({error}); give a run's folder, as in results/NAME/RUN_ID") from None
