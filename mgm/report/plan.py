"""A compute plan as text, as JSON and as a picture."""

import json
import textwrap
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from mgm.errors import UserError
from mgm.experiments.plan import Check, Line, Part, Plan, dearer
from mgm.runs import files as atomic

FORMATS = (".png", ".svg", ".pdf")
NOTE = (
    "A training step is three forward passes, a multiply-add two FLOPs; matrix products alone are counted. Every model runs at one rate, "
    "and a run's GPUs lose nothing to one another. Disk: while a run trains, two checkpoints and the one being written, of 12 bytes a "
    "parameter; afterwards weights of 4. Not counted: datasets, measurements, pictures of clips, and the optical flow of Table 4b."
)


def describe(plan: Plan) -> str:
    """The whole plan: compute beside epochs row by row, then table by table, what bounds it, and how far the formula was off once."""
    machine, last = plan.machine, plan.parts[-1]
    rate = f"{machine.flops / 1e12:.0f} TFLOP/s a GPU"
    head = f"Scale {plan.scale} on {machine.gpus} {machine.name.upper()}, {machine.gpus_a_run} a run, at {rate}"
    chain = [f"  {hours:8.1f} h  {run_id}" for run_id, hours in plan.chain]
    return "\n".join(
        [
            *_rows(plan.lines),
            head,
            "",
            *_parts(plan.parts),
            "",
            f"Longest chain of runs that wait for one another, {sum(hours for _, hours in plan.chain):.1f} h:",
            *chain,
            "",
            f"Loader: up to {last.needs:.0f} videos/s a GPU, {last.needs * machine.gpus:,.0f} in all, keep the GPUs busy.",
            f"  {_bound(plan)}",
            "",
            *cheapest(plan.parts),
            *_check(plan.check),
            "",
            *textwrap.wrap(NOTE, 120),
        ]
    )


def _rows(lines: list[Line]) -> list[str]:
    """Compute beside epochs: equal epochs are not equal compute."""
    ours, official = dearer()
    told = (
        f"Each row's runs with all they start from. A ViT-B epoch at mask ratio 0.75 computes {ours:.2f} times one at 0.9 "
        f"({official:.2f} in the official code, which embeds hidden tubelets before it drops them): 'alike' is how many epochs at 0.9 "
        "compute as much. Supervised: epochs of finetuning or of training from scratch. EFLOP: 10^18 operations; the rest is supervised "
        "training and tests."
    )
    text = [*textwrap.wrap(told, 120), ""]
    text.append(f"{'':56} ratio epochs  alike {'supervised':>10} {'pretraining':>12} {'rest':>8} {'GPU':>8}")
    text.append(f"{'':56} {'':5} {'':6} {'':6} {'epochs':>10} {'EFLOP':>12} {'EFLOP':>8} {'hours':>8}")
    for target, several in groupby(lines, lambda line: line.target):
        text.append(_label(target))
        for line in several:
            row, column = _fit(line.row, 32), _fit(line.column, 21)
            trained = f"{line.ratio:5.2f} {line.epochs:6} {line.alike:6.0f}" if line.epochs else f"{'-':>5} {'-':>6} {'-':>6}"
            supervised = "+".join(map(str, line.supervised)) or "-"
            numbers = f"{supervised:>10} {line.pretrain / 1e18:12.2f} {line.rest / 1e18:8.2f} {line.hours:8.2f}"
            text.append(f"  {row} {column} {trained} {numbers}")
    return [*text, ""]


def _parts(parts: list[Part]) -> list[str]:
    text = ["Each alone, with the fewest runs that fill it; 'own': hours of runs that nothing else wants. Shared runs count once in 'all'."]
    text.append(f"{'':18} {'runs':>5} {'EFLOP':>9} {'GPU hours':>10} {'own':>9} {'wall h':>8} {'disk GB':>8} {'videos/s a GPU':>15}")
    for one in parts:
        numbers = (
            f"{one.flops / 1e18:9.2f} {one.hours:10.1f} {one.own_hours:9.1f} {one.wall_h:8.1f} {one.disk / 1e9:8.1f} {one.needs:15.0f}"
        )
        text.append(f"{one.target:18} {one.runs:5} {numbers}")
    return text


def cheapest(parts: list[Part]) -> list[str]:
    """A line for the table that a reader with few GPUs can fill: 'Table 4e alone: ...'."""
    tables = [one for one in parts if one.target.startswith("table")]
    order = sorted(tables, key=lambda one: one.hours)
    return [
        f"{_label(one.target)} alone: {one.runs} runs, {one.hours:.1f} GPU hours, {one.wall_h:.1f} h, {one.disk / 1e9:.1f} GB."
        for one in order
    ] + [""] * bool(order)


def _bound(plan: Plan) -> str:
    given, needs = plan.machine.decoded, plan.parts[-1].needs
    if given == float("inf"):
        return "The plan takes that for granted; pass --loader-clips-per-s as measured."
    return f"A GPU's cores give {given:.0f}: " + (
        "enough." if given >= needs else "runs that need more wait for them, and the hours say so."
    )


def _check(check: Check) -> list[str]:
    times = check.hours / check.planned_h
    return [
        f"Against the one published time ({check.source}): {check.hours:g} h, {check.clips_per_s:.0f} clips/s a GPU.",
        f"  By this formula it is {check.flops / 1e18:.1f} EFLOP: {check.planned_h:.1f} h at {check.utilisation:.0%} of the peak, off by a "
        f"factor of {max(times, 1 / times):.1f}. The published time is {check.implied:.1%} of the peak; the maintainer names CPUs and I/O.",
        f"  {_caution(check)}",
        "  To do so, pass the clips/s a GPU of a pretraining log (MGM, ViT-B) as --clips-per-s.",
    ]


def _caution(check: Check) -> str:
    """What the published time says of the assumed utilisation."""
    times = check.utilisation / check.implied
    return (
        f"Were GPUs kept no busier than those were, a plan at {check.utilisation:.0%} of the peak would take {times:.1f} times its hours: "
        "measure yours."
    )


def to_json(plan: Plan) -> str:
    """Every number of the plan; hours, FLOPs and bytes as they are, an unbounded loader as null."""
    fields = asdict(plan)
    if plan.machine.decoded == float("inf"):
        fields["machine"]["decoded"] = None
    return json.dumps(fields, indent=1, allow_nan=False) + "\n"


def write_json(plan: Plan, path: Path) -> None:
    atomic.write(path, to_json(plan))


def draw(plan: Plan, path: Path) -> None:
    """Bars of GPU hours, a table or figure each, by what they go into; readable in grey.

    Raises:
        UserError: `path` does not end as a picture does.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: is no picture that is drawn here; end it in one of {', '.join(FORMATS)}")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from mgm.report.figures.style import INK, QUIET, STYLE

    parts, machine = plan.parts, plan.machine
    pretraining = [one.pretrain_h for one in parts]
    rest = [one.hours - one.pretrain_h for one in parts]
    longest = max(one.hours for one in parts) or 1
    key = (
        f"GPU hours on {machine.name.upper()} at {machine.flops / 1e12:.0f} TFLOP/s each, every table or figure alone with the fewest runs "
        "that fill it; shared runs count once in the last bar. Behind each bar: GPU hours, and the wall time on "
        f"{machine.gpus} GPUs, {machine.gpus_a_run} a run. {plan.check.source} took {plan.check.hours:g} h, {plan.check.implied:.1%} of "
        f"their peak. {_caution(plan.check)}"
    )
    words = textwrap.wrap(key, 138)
    with mpl.rc_context(STYLE):
        bars, foot = 0.24 * len(parts), 0.5 + 0.15 * (len(words) + 0.8)
        height = bars + foot + 0.62
        figure = Figure((7.4, height))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((1.15 / 7.4, foot / height, 5.15 / 7.4, bars / height))
        at = range(len(parts))
        axes.barh(at, pretraining, 0.68, color=INK, label="pretraining")
        axes.barh(at, rest, 0.68, pretraining, color="#a8a8a8", label="finetuning, linear probes and their tests")
        for position, one in enumerate(parts):
            said = f"{one.hours:,.1f}   ({one.wall_h:,.1f} h)"
            axes.text(one.hours + 0.008 * longest, position, said, size=7.5, va="center", color=QUIET)
        axes.set_yticks(list(at), [_label(one.target) for one in parts], size=8)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(parts) - 0.4, -0.6), xlim=(0, 1.02 * longest))
        axes.set_xlabel("GPU hours", size=8.5)
        figure.text(0.08 / 7.4, 1 - 0.22 / height, f"What scale {plan.scale} computes", size=11, weight="bold")
        figure.legend(loc="upper left", bbox_to_anchor=(0.02 / 7.4, 1 - 0.26 / height), ncols=3, frameon=False, fontsize=8)
        figure.text(0.08 / 7.4, (len(words) + 0.4) * 0.15 / height, "\n".join(words), size=7.5, color=QUIET, va="top", linespacing=1.25)
        path.parent.mkdir(parents=True, exist_ok=True)
        date = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}[path.suffix]
        figure.savefig(path, dpi=200, metadata={date: None})


def _label(target: str) -> str:
    """'Table 4e' of table4e."""
    if target == "tablemeasured":
        return "Measured"
    for kind in ("table", "figure"):
        if target.startswith(kind):
            return f"{kind.capitalize()} {target.removeprefix(kind).replace('_', ', ')}"
    return target.capitalize()


def _fit(name: str, width: int) -> str:
    return f"{name if len(name) <= width else name[: width - 1] + '…':{width}}"
