"""`mgm plan` and `mgm new-study`: what experiments cost, and a file for your own.

A training step counts as three forward passes, or as one with a frozen encoder, and a multiply-add
as two FLOPs. Only matrix products count, and reading videos takes no time.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from mgm.cli.base import app, grouped
from mgm.console import duration, say
from mgm.errors import UserError
from mgm.spec import PUBLISHED, Finetune, FrozenModel, Pretrain, Probe, Spec

if TYPE_CHECKING:
    from mgm.dag.workflow import Workflow

STAGES = ("pretrain", "finetune", "probe")


class PlanOptions(FrozenModel):
    """What to plan, and the machine."""

    scale: str = Field("", description="A scale (paper, mini, smoke), or a YAML file.")
    study: str = Field("", description="A study, such as ladder; or a YAML file.")
    gpu: Literal["v100", "a100", "h100", "h200", "rtx4090", "a5000", "cpu"] = Field(
        "h100", description="The GPU; cpu: this machine's processor, by a step that is timed now."
    )
    mfu: float = Field(
        0.25, ge=0.001, le=1, description="Share of the GPU's peak FLOP/s that training reaches."
    )
    gpus: int = Field(1, ge=1, description="GPUs that work at the same time.")


@app.command()
@grouped
def plan(options: PlanOptions) -> None:
    """Print the GPU hours and the disk space of each table and figure.

    Default: scale paper. The numbers are computed; nothing runs. A table counts all runs that it
    needs. GB are of weights and checkpoints, without videos.
    """
    from mgm.dag.workflow import Workflow
    from mgm.spec.compute import PEAK

    scale = options.scale or ("" if options.study else "paper")
    workflow = Workflow({"scale": scale, "study": options.study})
    if options.gpu == "cpu":
        flops, at_once = timed_flops(workflow), os.cpu_count() or 1
        at_once = max(at_once // workflow.execution.threads, 1)
        unit, seconds = "min", 60
        say(f"{workflow.name} on this machine, {at_once} runs at once, by a step that was timed.")
    else:
        flops, at_once, unit, seconds = PEAK[options.gpu] * options.mfu, options.gpus, "h", 3600
        say(
            f"{workflow.name} on {at_once} {options.gpu}, at {100 * options.mfu:g} % of "
            f"{PEAK[options.gpu] / 1e12:,.0f} TFLOP/s. Computed; nothing ran."
        )
    table = costs(workflow, flops, seconds, unit, at_once)
    say(table.to_string(float_format=lambda x: "<0.1" if 0 < x < 0.05 else f"{x:,.1f}"))


def costs(workflow: "Workflow", flops: float, seconds: int, unit: str, at_once: int) -> Any:
    """Return a table: the time of each stage, all of it, and GB on disk, of each target.

    Args:
        flops: FLOP/s of a run.
        seconds: per `unit` of time.
        at_once: runs that go on at the same time.
    """
    import pandas as pd

    from mgm.spec.compute import parameters
    from mgm.study.expand import with_parents

    sizes = {key: _size(workflow, key) for key in workflow.datasets}
    size_of = {run_id: sizes[workflow.key(spec)] for run_id, spec in workflow.specs.items()}
    time_of = {run: cost(spec, *size_of[run]) / flops for run, spec in workflow.specs.items()}
    rows = {}
    targets = workflow.expansion.targets
    for target in sorted(targets, key=lambda name: name == "all"):
        specs = with_parents(workflow.specs, targets[target])
        row: dict[str, float] = {"runs": len(specs)}
        for stage in STAGES:
            taken = sum(time_of[spec.run_id] for spec in specs if spec.stage == stage)
            row[f"{stage} {unit}"] = taken / seconds
        row[f"total {unit}"] = sum(row[f"{stage} {unit}"] for stage in STAGES)
        row[f"wall {unit}"] = row[f"total {unit}"] / at_once
        trained = [
            parameters(spec, size_of[spec.run_id][2])
            for spec in specs
            if isinstance(spec, Pretrain | Finetune)
        ]
        # 4 bytes per weight. A checkpoint has AdamW's two moments too, and three are kept.
        row["GB"] = (4 * sum(trained) + 36 * max(trained, default=0)) / 1e9
        rows[target] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def cost(spec: Spec, train: int, test: int, classes: int) -> float:
    """Return the FLOPs of a run on a dataset with so many videos and classes."""
    from mgm.spec.compute import multiply_adds, passes

    if not isinstance(spec, Pretrain | Finetune | Probe):
        return 0.0
    forward = 2.0 * multiply_adds(spec, classes if isinstance(spec, Finetune) else 0)
    tested = 0
    if not isinstance(spec, Pretrain):
        tested = test * spec.views.temporal * spec.views.spatial
    if isinstance(spec, Probe):
        return (spec.train_clips * train + tested) * forward
    steps = spec.optim.steps or spec.optim.epochs * (train // spec.optim.batch)
    repeats = spec.augment.repeats if isinstance(spec, Finetune) else spec.repeats
    return (passes(spec) * steps * spec.optim.batch * repeats + tested) * forward


def _size(workflow: "Workflow", key: str) -> tuple[int, int, int]:
    """Return the numbers of training videos, test videos and classes of a dataset."""
    dataset = workflow.datasets[key]
    if dataset.generate:
        from mgm.drawn.params import parse_params

        drawn = parse_params(dataset.generate, key)
        return drawn.counts["train"], drawn.counts["test"], drawn.classes
    if (name := dataset.name or key) in PUBLISHED:
        published = PUBLISHED[name]
        return published.train, published.test, published.classes
    from mgm.data.index import read_index

    index = read_index(workflow.places[key])
    return len(index.train), len(index.test), len(index.classes)


def timed_flops(workflow: "Workflow") -> float:
    """Return the FLOP/s of this machine in training steps of the workflow's first pretraining."""
    import torch

    from mgm.models import build_mae
    from mgm.spec.compute import multiply_adds, passes
    from mgm.training.optim import build_optimiser

    spec = next((spec for spec in workflow.specs.values() if isinstance(spec, Pretrain)), None)
    if spec is None:
        raise UserError(f"{workflow.name}: pretrains nothing, so there is no step to time")
    torch.set_num_threads(workflow.execution.threads)
    model, batch = build_mae(spec), min(spec.optim.batch, 16)
    optimiser = build_optimiser(model, spec.optim)
    side = spec.clips.size
    frames = torch.randint(0, 256, (batch, spec.clips.frames, side, side, 3), dtype=torch.uint8)
    slots, rows, columns = spec.grid
    masked = torch.zeros(batch, slots, rows * columns, dtype=torch.bool)
    masked[..., : spec.hidden] = True

    def step() -> None:
        loss, _ = model(frames, masked.flatten(1), torch.ones(batch))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    taken = _seconds_of(step)
    return passes(spec) * batch * 2.0 * multiply_adds(spec) / taken


def _seconds_of(step: Callable[[], None]) -> float:
    """Return the median time of a step, after one that warms up."""
    times = list[float]()
    step()
    until = time.perf_counter() + 2
    while len(times) < 3 or (time.perf_counter() < until and len(times) < 50):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


@app.command("new-study")
def new_study(
    root: Annotated[
        Path, typer.Option(help="Folder that `mgm prepare folder` wrote.", metavar="DIR")
    ] = Path("data/mine"),
    out: Annotated[
        Path, typer.Option(help="The file to write; its name is the study's.", metavar="FILE")
    ] = Path("studies/mine.yaml"),
    test: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled videos to test on, if those have none."),
    ] = None,
) -> None:
    """Write a study (YAML) of three masks on your own videos, and say what it takes."""
    from mgm.dag.workflow import Workflow
    from mgm.data.index import read_index
    from mgm.data.prepare import FEW
    from mgm.files import write_text
    from mgm.study.schema import new_study as text_of

    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out")
    tested = read_index(test or root)
    write_text(out, text_of(out, root, test))
    workflow = Workflow({"study": str(out)})
    spec = next(spec for spec in workflow.specs.values() if isinstance(spec, Pretrain))
    say(
        f"wrote {out}: {len(workflow.specs)} runs of a small model (width {spec.model.width}, "
        f"{spec.model.depth} blocks) on clips of {spec.clips.frames} frames, {spec.clips.size} x "
        f"{spec.clips.size} pixels"
    )
    counts = Counter(video.label for video in tested.test)
    if few := [name for label, name in enumerate(tested.classes) if counts[label] < FEW]:
        say(f"{len(few)} classes have fewer than {FEW} test videos, such as {few[0]}: uncertain")
    table = costs(workflow, timed_flops(workflow), 1, "s", os.cpu_count() or 1)
    say(
        f"It takes at least {duration(table.loc['all', 'wall s'])} on this machine's processor, as "
        f"timed now, without reading videos. Next: snakemake --cores all --config study={out}"
    )
