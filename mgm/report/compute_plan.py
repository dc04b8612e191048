"""A compute plan as text, JSON and figure."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from math import inf
from operator import itemgetter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mgm.console import duration
from mgm.errors import UserError
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.frame import examine_all
from mgm.study.machine import Machine
from mgm.study.plan import (
    SHARES,
    SMALL_FLOPS,
    Check,
    Plan,
    check,
    costs,
    cpu_hours,
    day_disk,
    day_rows,
    epoch_cost_ratio,
)
from mgm.study.quoted import AVION, MEMORY_GB, VIDEOMAE, VIDEOMAE_UCF101
from mgm.study.registry import Registry, label_of


def describe(plan: Plan) -> str:
    """Return the whole plan as text.

    It lists compute and epochs by row and by table, the longest chain of runs, the loader's
    speed, and the formula's error against a published time.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined
    )
    return environment.get_template("plan.txt.j2").render(
        plan=plan,
        machine=plan.machine,
        lines=[
            (target, list(cells)) for target, cells in groupby(plan.lines, itemgetter("target"))
        ],
        tables=[part for part in plan.parts if part["target"].startswith("table")],
        check=plan.check,
        ratios=epoch_cost_ratio(),
        caution=caution(plan.check),
        label_of=label_of,
        inf=inf,
    )


def caution(check: Check) -> str:
    """Return a warning that compares the assumed utilisation with the published one."""
    times = check.utilisation / check.implied
    return (
        f"At the utilisation of that run, this plan takes {times:.1f} times its hours "
        f"(it assumes {check.utilisation:.0%} of the peak): measure yours."
    )


def write_json(plan: Plan, path: Path) -> None:
    """Write every number of the plan as JSON, an unlimited loader as null."""
    fields = asdict(plan)
    fields["machine"] = {
        name: None if value == inf else value for name, value in fields["machine"].items()
    }
    atomic.write(path, json.dumps(fields, indent=1, allow_nan=False) + "\n")


# Clips per second that one core decodes from MPEG-4 in AVI, the format of UCF101
# (docs/loading.md).
DECODED = 62.0


def describe_day(
    name: str, registry: Registry, machines: Sequence[Machine], cores: int, workers: int
) -> str:
    """Describe a study for one GPU: when each row is complete, and what the machine needs.

    Args:
        machines: the GPU at each rate.
        cores: CPU cores of the machine, of which `workers` decode videos.
    """
    scale, first = registry.scale, machines[0]
    tables = [costs(registry, machine) for machine in machines]
    rows = day_rows(registry, tables)
    several = len(machines) > 1
    what = "columns are hours by the share of the peak" if several else first.source
    heads = [f"{share:.0%}" for share in SHARES] if several else ["hours"]
    lines = [f"{name} on one {first.name.upper()}; {what}", ""]
    lines += ["".join(f"{head:>7}" for head in heads) + "  seed  row"]
    lines += [
        "".join(f"{total:7.1f}" for total in hours) + f"  {seed:4}  {row}"
        for seed, row, hours in rows
    ]
    if scale.hours:
        complete = [
            f"{sum(hours[place] <= scale.hours for *_, hours in rows)}"
            + (f" at {head}" if several else "")
            for place, head in enumerate(heads)
        ]
        lines += ["", f"Rows of {len(rows)} in {scale.hours:g} hours: {', '.join(complete)}."]
    # 0: unknown.
    wanted, held = scale.memory_gb, MEMORY_GB.get(first.name, 0)
    enough = "" if not held or held >= wanted else ": the model does not fit, choose a smaller size"
    loader = [
        max((run.needs for run in table.values() if run.stage == "pretrain"), default=0.0)
        for table in tables
    ]
    needs = " to ".join(f"{rate:.0f}" for rate in sorted({min(loader), max(loader)}))
    waits = first.decoded < max(loader)
    lines += [
        f"GPU memory: for {wanted:g} GB of {held:g} GB{enough}. A step that does not fit "
        "is computed in parts.",
        f"Disk: {day_disk(registry, tables[0]) / 1e9:.1f} GB for weights, checkpoints and an "
        "attentive probe's tokens, in addition to the videos.",
        f"Loader: pretraining takes {needs} videos/s. {workers} workers on {cores} cores decode "
        f"{first.decoded:.0f}" + (": the GPU waits, which the hours include." if waits else "."),
        f"Fine-tuning: they change {first.augmented:.0f} clips/s by RandAugment, also counted.",
        "Not counted: compiling, starts and `measure controls`.",
    ]
    lines += ["", "Published times, as shares of the peak by the same formula:"]
    for published in (AVION, VIDEOMAE_UCF101, VIDEOMAE):
        compared = check(SHARES[1], published)
        lines += [f"  {compared.implied:.1%}  {compared.source}, {compared.hours:.0f} h"]
    lines += ["Measure yours: `make gpu`, or --clips-per-s."]
    return "\n".join(lines)


def describe_runs(name: str, registry: Registry, results: Path) -> str:
    """Describe the runs of small models: how many are finished, and the hours of the others."""
    hours = cpu_hours(registry, SMALL_FLOPS)
    unpack(results)
    states = examine_all(results, registry.specs)
    finished = {run_id for run_id, status in states.items() if status.state == "run"}
    lines = [f"{name}: time of one core by the models' FLOPs, at the rate of scale mini", ""]
    lines += ["  runs  finished  time of the others  stage"]
    stages = [*dict.fromkeys(spec.stage for spec in registry.specs.values()), "all"]
    for stage in stages:
        runs = {key for key, spec in registry.specs.items() if stage in (spec.stage, "all")}
        left = duration(3600 * sum(hours[run_id] for run_id in runs - finished))
        counted = "-" if stage in ("measure", "visualise") else left
        lines += [f"{len(runs):6,}{len(runs & finished):10,}{counted:>20}  {stage}"]
    lines += [
        "",
        "Not counted: drawing and reading videos, measurements and figures, start of processes.",
    ]
    return "\n".join(lines)


def draw(plan: Plan, path: Path) -> None:
    """Draw a bar of GPU hours per table or figure, split by stage.

    Raises:
        UserError: `path` does not end in .png, .svg or .pdf.
    """
    # Imported here because matplotlib takes a second to import.
    import matplotlib as mpl

    from mgm.report.figures.style import CLOCKS, INK, QUIET, STYLE, panels, write

    if path.suffix[1:] not in CLOCKS:
        raise UserError(
            f"{path}: this picture format is not supported; end the name in one of "
            f"{', '.join(f'.{kind}' for kind in CLOCKS)}"
        )
    parts, machine = plan.parts, plan.machine
    pretraining = [part["pretrain_h"] for part in parts]
    rest = [part["hours"] - part["pretrain_h"] for part in parts]
    longest = max(part["hours"] for part in parts) or 1
    key = (
        f"GPU hours on {machine.name.upper()} at {machine.flops / 1e12:.0f} TFLOP/s each. Each bar "
        "counts the runs that its table or figure needs. The last bar counts shared runs once. "
        "Numbers: GPU hours, and in brackets the wall time on "
        f"{machine.gpus} GPUs with {machine.gpus_a_run} per run. {plan.check.source} took "
        f"{plan.check.hours:g} h, {plan.check.implied:.1%} of their peak. {caution(plan.check)}"
    )
    bars = 0.24 * len(parts)
    with mpl.rc_context(STYLE):
        figure, [[axes]] = panels((1, 1), (7.4, bars + 0.62), (1.15, 1.1, 0.62, 0.5), [key])
        height = figure.get_figheight()
        at = range(len(parts))
        axes.barh(at, pretraining, 0.68, color=INK, label="Pretraining")
        axes.barh(
            at,
            rest,
            0.68,
            pretraining,
            color="#a8a8a8",
            label="Finetuning, linear probes and their tests",
        )
        for place, part in enumerate(parts):
            text = f"{part['hours']:,.1f}   ({part['wall_h']:,.1f} h)"
            end = part["hours"] + 0.008 * longest
            axes.text(end, place, text, size=7.5, va="center", color=QUIET)
        axes.set_yticks(list(at), [label_of(part["target"]) for part in parts], size=8)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(parts) - 0.4, -0.6), xlim=(0, 1.02 * longest))
        axes.set_xlabel("GPU hours", size=8.5)
        title = f"GPU hours of scale {plan.scale}"
        figure.text(0.08 / 7.4, 1 - 0.22 / height, title, size=11, weight="bold")
        corner = (0.02 / 7.4, 1 - 0.26 / height)
        figure.legend(loc="upper left", bbox_to_anchor=corner, ncols=3)
        write(figure, path, path.suffix[1:])
