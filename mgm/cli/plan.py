"""`mgm plan` and `mgm new-study`: what experiments cost, and a file for your own.

A training step counts as three forward passes, or as one with a frozen encoder, and a multiply-add
as two FLOPs. Only matrix products count, and reading videos takes no time.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.errors import UserError
from mgm.spec import PUBLISHED, Finetune, FrozenModel, Pretrain, Probe, Spec

if TYPE_CHECKING:
    from mgm.dag.workflow import Workflow

STAGES = ("pretrain", "finetune", "probe")
# Milliseconds of a worker's core per video, for 16 frames of a store of 256 x 340 pixels: crops of
# 224 x 224 as planes with a mask (estimated), or whole frames for RandAugment (measured once, on a
# loaded machine).
READ_MS = {"pretrain": 10.0, "finetune": 16.0}


class PlanOptions(FrozenModel):
    """What to plan, and the machine."""

    study: str = Field("paper", description="A study, such as mini or day; or a YAML file.")
    gpu: Literal["a100", "h100", "h200", "rtx4090", "a5000"] = Field("h100", description="The GPU.")
    mfu: float = Field(
        0.25, ge=0.001, le=1, description="Share of the GPU's peak FLOP/s that training reaches."
    )
    gpus: int = Field(1, ge=1, description="GPUs that work at the same time.")


@app.command()
@grouped
def plan(options: PlanOptions) -> None:
    """Print the GPU hours and the disk space of each table and figure.

    Default: the paper. The numbers are computed; nothing runs. A table counts all runs that it
    needs, so tables overlap; the last row counts each run once. GB are of weights and checkpoints,
    without videos.
    """
    from mgm.dag.workflow import Workflow
    from mgm.spec.compute import PEAK

    workflow = Workflow({"study": options.study})
    flops, at_once = PEAK[options.gpu] * options.mfu, options.gpus
    say(
        f"{workflow.name} on {at_once} {options.gpu}, at {100 * options.mfu:g} % of "
        f"{PEAK[options.gpu] / 1e12:,.0f} TFLOP/s. Computed; nothing ran."
    )
    say("Rows share runs; the last counts each run once. GB are of weights and checkpoints.")
    say(reading(workflow, flops))
    table = costs(workflow, flops, at_once)
    say(table.to_string(float_format=lambda x: "<0.1" if 0 < x < 0.05 else f"{x:,.1f}"))


def reading(workflow: "Workflow", flops: float) -> str:
    """Return how many cores per GPU read the videos of its fastest runs. With fewer, it waits."""
    from mgm.spec.compute import multiply_adds, passes

    need = dict[str, float]()
    for spec in workflow.specs.values():
        if isinstance(spec, Pretrain | Finetune):
            rate = flops / (2 * passes(spec) * multiply_adds(spec) * spec.repeats)
            pixels = spec.clips.frames * spec.clips.size**2 / (16 * 224**2)
            cores = rate * READ_MS[spec.stage] * pixels / 1000
            need[spec.stage] = max(need.get(spec.stage, 0), cores)
    each = ", ".join(f"{stage} {cores:,.0f}" for stage, cores in need.items())
    return f"Cores per GPU that read as fast as its fastest runs train: {each}. Fewer limit it."


def costs(workflow: "Workflow", flops: float, at_once: int) -> Any:
    """Return a table of each target: hours by stage, all of it, and GB on disk.

    A run computes `flops` per second, and `at_once` runs go on at the same time.
    """
    import pandas as pd

    from mgm.spec.compute import parameters

    sizes = {key: _size(workflow, key) for key in workflow.datasets}
    size_of = {run_id: sizes[workflow.key(spec)] for run_id, spec in workflow.specs.items()}
    time_of = {run: cost(spec, *size_of[run]) / flops for run, spec in workflow.specs.items()}
    rows = {}
    for target in sorted(workflow.expansion.targets, key=lambda name: name == "all"):
        specs = workflow.shown_by(target)
        row: dict[str, float] = {"runs": len(specs)}
        for stage in STAGES:
            taken = sum(time_of[spec.run_id] for spec in specs if spec.stage == stage)
            row[f"{stage} h"] = taken / 3600
        row["total h"] = sum(row[f"{stage} h"] for stage in STAGES)
        row["wall h"] = row["total h"] / at_once
        trained = [
            parameters(spec, size_of[spec.run_id][2])
            for spec in specs
            if isinstance(spec, Pretrain | Finetune)
        ]
        # 4 bytes per weight. A checkpoint has AdamW's two moments too.
        row["GB"] = (4 * sum(trained) + 12 * max(trained, default=0)) / 1e9
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
    return (passes(spec) * steps * spec.optim.batch * spec.repeats + tested) * forward


def _size(workflow: "Workflow", key: str) -> tuple[int, int, int]:
    """Return the numbers of training videos, test videos and classes of a dataset."""
    dataset = workflow.datasets[key]
    if dataset.adapt:
        # Trained on one, tested on the classes that another has of it.
        (train, _, classes), (_, test, _) = (_size(workflow, part) for part in dataset.adapt)
        return train, test, classes
    if dataset.generate:
        from mgm.drawn.params import parse_params

        drawn = parse_params(dataset.generate, key)
        return drawn.counts["train"], drawn.counts["test"], drawn.classes
    if dataset.name in PUBLISHED:
        published = PUBLISHED[dataset.name]
        return published.train, published.test, published.classes
    from mgm.data.index import read_index

    index = read_index(dataset.place)
    return len(index.train), len(index.test), len(index.classes)


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
    hours: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How long it may take here. A few steps are measured, and decide the size of "
            "the model, the seeds and the steps.",
        ),
    ] = None,
) -> None:
    """Write a study (YAML) of three masks on your own videos, and say what runs it has."""
    from mgm.dag.budget import budget
    from mgm.dag.workflow import Workflow
    from mgm.data.index import read_index
    from mgm.data.prepare import FEW
    from mgm.files import write_text
    from mgm.study.schema import NEW
    from mgm.study.schema import new_study as text_of

    if out.exists():
        raise UserError(f"{out}: exists already; choose another --out")
    tested = read_index(test or root)
    if len(tested.classes) < 2:
        raise UserError(
            f"{tested.root}: has one class ({tested.classes[0]}), and probes need two; name "
            "labelled videos by --test"
        )
    chosen = budget(out, root, test, hours) if hours is not None else None
    write_text(out, text_of(out, root, test, chosen.fields() if chosen else NEW))
    workflow = Workflow({"study": str(out)})
    spec = next(spec for spec in workflow.specs.values() if isinstance(spec, Pretrain))
    say(
        f"wrote {out}: {len(workflow.specs)} runs of a small model (width {spec.model.width}, "
        f"{spec.model.depth} blocks) on clips of {spec.clips.frames} frames, {spec.clips.size} x "
        f"{spec.clips.size} pixels"
    )
    for line in chosen.says() if chosen else ():
        say(line)
    counts = Counter(video.label for video in tested.test)
    if few := [name for label, name in enumerate(tested.classes) if counts[label] < FEW]:
        say(f"{len(few)} classes have fewer than {FEW} test videos, such as {few[0]}: uncertain")
    say(f"Next: snakemake --cores all --config study={out}")
