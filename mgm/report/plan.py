"""A compute plan as text and as JSON."""

import json
from dataclasses import asdict
from itertools import groupby
from math import inf
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mgm.paper.plan import Check, Day, Machine, Plan, epoch_cost_ratio
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


# Clips per second of one core: MPEG-4 in AVI, as UCF101's files are (docs/loading.md).
DECODED = 62.0


def describe_day(name: str, day: Day, machine: Machine, cores: int, decoded: float) -> str:
    """Describe a scale of one GPU: when each row is complete, and what the machine must have.

    Args:
        cores: that decode.
        decoded: videos per second that one of them decodes.
    """
    lines = [f"{name} on one {machine.name.upper()}, {machine.source}", "", "hours  seed  row"]
    bound = day.hours or inf
    lines += [
        f"{hours:5.1f}  {seed:4}  {row}{'' if hours <= bound else '  (after the day)'}"
        for seed, row, hours in day.rows
    ]
    complete = sum(hours <= bound for *_, hours in day.rows)
    last = day.rows[-1][-1]
    fits = (
        "all rows fit"
        if complete == len(day.rows)
        else f"{complete} of {len(day.rows)} rows fit; they are complete when it is stopped"
    )
    if day.hours:
        lines += ["", f"{day.hours:g} hours: {fits}. All of it takes {last:.1f} hours."]
    wanted, there = day.memory_gb
    enough = "" if not there or there >= wanted else ": this size does not fit, choose a smaller"
    lines += [
        f"GPU memory: {wanted:g} GB (assumed) of {there:g} GB{enough}.",
        f"Disk: {day.disk / 1e9:.1f} GB for weights, checkpoints and an attentive probe's tokens, "
        "besides the videos.",
        f"Loader: {day.loader:.0f} videos/s keep the GPU busy, {-(-day.loader // decoded):.0f} "
        f"cores at {decoded:g} each. Here are {cores}"
        + ("." if cores * decoded >= day.loader else ": the GPU waits, and the hours say so."),
    ]
    one = day.check
    lines += [
        "",
        f"The same arithmetic for {one.source}: {one.flops / 1e18:.1f} EFLOP, "
        f"{one.planned_h:.0f} h at {one.utilisation:.0%} of the peak. Its authors took "
        f"{one.hours:.0f} h, {one.implied:.1%} of the peak.",
        caution(one),
    ]
    return "\n".join(lines)
