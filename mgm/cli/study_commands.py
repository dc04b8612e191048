"""Commands for all experiments together: their files and their cost."""

from math import inf
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.spec import FrozenModel


@app.command("new-study")
def new_study(
    root: Annotated[
        Path, typer.Option(help="Folder that `mgm prepare folder` wrote.", metavar="DIR")
    ] = Path("data/mine"),
    out: Annotated[
        Path, typer.Option(help="The file to write; its name is the study's.", metavar="FILE")
    ] = Path("studies/mine.yaml"),
) -> None:
    """Write a study (YAML) of three masks on your own videos, explained in comments."""
    # Commands import what they need, so that `mgm --help` starts fast.
    from mgm.spec.new_spec import write_new
    from mgm.study.runs import new_study as text_of

    say(write_new(text_of(out, root), out))


MOST = 10**6  # GPUs, or clips per second of one GPU


class PlanOptions(FrozenModel):
    """The GPUs of a plan."""

    gpu: str | None = Field(
        None,
        description="v100, a5000, rtx4090, a100, h100 or h200; any name with --clips-per-s. "
        "Default: the GPU in --measured, or else h100.",
    )
    utilisation: float = Field(
        0.4,
        ge=0.001,
        le=1,
        description="Share of the GPU's peak FLOP/s that training reaches. A day is planned at "
        "10, 17 and 40 %.",
    )
    measured: Path = Field(
        Path("reports/gpu"),
        description="Folder of results of `make gpu`. Without --gpu, the plan uses the rate in it.",
    )
    clips_per_s: float | None = Field(
        None,
        ge=0.1,
        le=MOST,
        description="Measured clips/s per GPU of pretraining ViT-B with MGM; replaces "
        "--utilisation.",
    )
    loader_clips_per_s: float | None = Field(
        None, ge=0.1, description="Videos/s that one core decodes; default: enough for the GPU."
    )
    cores: int = Field(8, ge=1, description="Cores per GPU that decode videos.")
    size: str = Field(
        "",
        description="One of the scale's sizes, such as 24gb; default: the largest that fits the "
        "GPU.",
    )
    gpus: int = Field(64, ge=1, le=MOST, description="Number of GPUs.")
    gpus_per_run: int | None = Field(
        None, ge=1, description="GPUs per run; default: 8, or all if fewer."
    )


@app.command()
@grouped
def plan(
    how: PlanOptions,
    scale: Annotated[
        str, typer.Option(help="A scale (paper, mini, smoke), or a YAML file.")
    ] = "paper",
    study: Annotated[
        str, typer.Option(help="A study, such as day, in place of the scale; or a YAML file.")
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="One table or figure, such as table4e.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Draw the plan to this file: .svg, .png or .pdf.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers to this file.", metavar="FILE")
    ] = None,
) -> None:
    """Print the GPU hours, time and disk space of the experiments.

    The plan lists each table and figure. It computes these numbers and runs nothing.
    """
    from mgm.dag.setting import Setting, scale_file
    from mgm.report import compute_plan
    from mgm.study.machine import day_machine, machine, read_measured, size_for
    from mgm.study.plan import SHARES, make_plan

    per_core = how.loader_clips_per_s
    rate = (not how.gpu and not how.clips_per_s and read_measured(how.measured)) or {
        "gpu": how.gpu or "h100",
        "clips_per_s": how.clips_per_s,
    }
    path = scale_file(scale, study)
    size = how.size
    if path.exists() and not size:
        size = size_for(path, str(rate["gpu"]))
    setting = Setting({"scale": scale, "study": study, "gpu": size})
    if setting.scale.backbones:
        # Small models run on cores.
        say(compute_plan.describe_runs(setting.name, setting.registry, setting.results))
        return
    if study:
        speed = per_core or compute_plan.DECODED
        # Without worker processes, the main process decodes.
        workers = max(1, min(how.cores, setting.scale.execution.workers))
        machines = [
            day_machine(machine(utilisation=share, gpus=1, **rate), workers, speed)
            for share in (SHARES[:1] if rate["clips_per_s"] else SHARES)
        ]
        name = " ".join(filter(None, (setting.name, size)))
        say(compute_plan.describe_day(name, setting.registry, machines, how.cores, workers))
        return
    chosen = machine(
        utilisation=how.utilisation,
        gpus=how.gpus,
        gpus_a_run=how.gpus_per_run,
        decoded=(per_core or inf) * how.cores,
        **rate,
    )
    plan_of_scale = make_plan(setting.registry, chosen, how.utilisation, target)
    if out:
        compute_plan.draw(plan_of_scale, out)
    if json_file:
        compute_plan.write_json(plan_of_scale, json_file)
    say(compute_plan.describe(plan_of_scale))
