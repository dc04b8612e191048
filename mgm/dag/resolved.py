"""A run's fields as the workflow resolves them, each with where it comes from."""

import json
from difflib import get_close_matches
from typing import Any

import pandas as pd

from mgm.dag.workflow import Workflow, options_read_by
from mgm.errors import UserError
from mgm.spec import dotted


def resolved(workflow: Workflow, run_id: str) -> pd.DataFrame:
    """Return a line per field of a run and per option of its job.

    The columns are `field`, `value`, `layer` and `source`: the last layer that sets the field.

    Raises:
        UserError: the workflow has no such run.
    """
    if run_id not in workflow.plan.specs:
        near = get_close_matches(run_id, workflow.plan.specs)
        advice = f"did you mean {' or '.join(near)}?" if near else "name another run"
        raise UserError(f"--spec {run_id}: {workflow.name} has no such run; {advice}")
    spec = workflow.plan.specs[run_id]
    origin = dict[str, tuple[str, str]]()
    for layer in workflow.layers.get(run_id, ()):
        origin |= dict.fromkeys(dotted(layer.fields), (layer.name, layer.source))
    recipe = ("recipe", "mgm/study/recipes.py, or the default of mgm/spec")
    lines: list[Any] = [
        (name, json.dumps(value), *origin.get(name, recipe))
        for name, value in dotted(spec.model_dump(mode="json")).items()
    ]
    source = f"cluster {workflow.options.cluster}" if workflow.cluster else workflow.name
    read = options_read_by(spec.stage)
    options = workflow.options_of(spec.stage).model_dump(mode="json", include={*read})
    lines += [
        (f"--{name.replace('_', '-')}", json.dumps(value), "option", f"{source}: execution")
        for name, value in options.items()
    ]
    return pd.DataFrame(lines, columns=["field", "value", "layer", "source"])
