"""The picture of a compute plan."""

import textwrap
from pathlib import Path

import matplotlib as mpl

from mgm.errors import UserError
from mgm.paper.plan import Plan
from mgm.paper.registry import label_of
from mgm.report.figures.style import CLOCKS, INK, LINE, QUIET, STYLE, blank, write, write_below
from mgm.report.plan import caution


@mpl.rc_context(STYLE)
def draw(plan: Plan, path: Path) -> None:
    """Bars of GPU hours, a table or figure each, by what they go into; readable in grey.

    Raises:
        UserError: `path` does not end as a picture does.
    """
    if path.suffix[1:] not in CLOCKS:
        raise UserError(
            f"{path}: is no picture that is drawn here; end it in one of {', '.join(f'.{kind}' for kind in CLOCKS)}"
        )
    parts, machine = plan.parts, plan.machine
    pretraining = [one.pretrain_h for one in parts]
    rest = [one.hours - one.pretrain_h for one in parts]
    longest = max(one.hours for one in parts) or 1
    key = (
        f"GPU hours on {machine.name.upper()} at {machine.flops / 1e12:.0f} TFLOP/s each, every table or figure alone with the fewest runs "
        "that fill it; shared runs count once in the last bar. Behind each bar: GPU hours, and the wall time on "
        f"{machine.gpus} GPUs, {machine.gpus_a_run} a run. {plan.check.source} took {plan.check.hours:g} h, {plan.check.implied:.1%} of "
        f"their peak. {caution(plan.check)}"
    )
    words = textwrap.wrap(key, 138)
    bars, foot = 0.24 * len(parts), 0.5 + LINE * (len(words) + 0.8)
    height = bars + foot + 0.62
    figure = blank(7.4, height)
    axes = figure.add_axes((1.15 / 7.4, foot / height, 5.15 / 7.4, bars / height))
    at = range(len(parts))
    axes.barh(at, pretraining, 0.68, color=INK, label="pretraining")
    axes.barh(
        at,
        rest,
        0.68,
        pretraining,
        color="#a8a8a8",
        label="finetuning, linear probes and their tests",
    )
    for position, one in enumerate(parts):
        said = f"{one.hours:,.1f}   ({one.wall_h:,.1f} h)"
        axes.text(one.hours + 0.008 * longest, position, said, size=7.5, va="center", color=QUIET)
    axes.set_yticks(list(at), [label_of(one.target) for one in parts], size=8)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(parts) - 0.4, -0.6), xlim=(0, 1.02 * longest))
    axes.set_xlabel("GPU hours", size=8.5)
    figure.text(
        0.08 / 7.4, 1 - 0.22 / height, f"What scale {plan.scale} computes", size=11, weight="bold"
    )
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(0.02 / 7.4, 1 - 0.26 / height),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    write_below(figure, words)
    write(figure, path, path.suffix[1:])
