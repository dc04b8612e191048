"""A compute plan as text and as JSON."""

import json
from dataclasses import asdict
from itertools import groupby
from math import inf
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mgm.paper.plan import Check, Plan, epoch_cost_ratio
from mgm.paper.registry import label_of
from mgm.results import files as atomic


def describe(plan: Plan) -> str:
    """The whole plan:

    compute beside epochs row by row, then table by table, what bounds it, and how far the formula
    was off once.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined
    )
    return environment.get_template("plan.txt.j2").render(
        plan=plan,
        machine=plan.machine,
        lines=[
            (target, list(several))
            for target, several in groupby(plan.lines, lambda line: line.target)
        ],
        tables=[one for one in plan.parts if one.target.startswith("table")],
        check=plan.check,
        ratios=epoch_cost_ratio(),
        caution=caution(plan.check),
        label_of=label_of,
        inf=inf,
    )


def caution(check: Check) -> str:
    """What the published time says of the assumed utilisation."""
    times = check.utilisation / check.implied
    return (
        f"Were GPUs kept no busier than those were, a plan at {check.utilisation:.0%} of the peak would take {times:.1f} times its hours: "
        "measure yours."
    )


def write_json(plan: Plan, path: Path) -> None:
    """Write every number of the plan;

    hours, FLOPs and bytes as they are, an unbounded loader as null.
    """
    fields = asdict(plan)
    if plan.machine.decoded == inf:
        fields["machine"]["decoded"] = None
    atomic.write(path, json.dumps(fields, indent=1, allow_nan=False) + "\n")
