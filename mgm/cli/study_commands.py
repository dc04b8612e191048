"""Commands for all experiments together: their files and their cost."""

from pathlib import Path
from typing import Annotated, Literal

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
    test: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled videos to test on, if those have none."),
    ] = None,
) -> None:
    """Write a study (YAML) of three masks on your own videos."""
    from mgm.data.index import read_index
    from mgm.spec.new_spec import write_new
    from mgm.study.load import new_study as text_of

    tested = test or root
    prepared = (tested / "index.json").is_file()
    labelled = len(read_index(tested).classes) > 1 if prepared else True
    say(write_new(text_of(out, root, test, labelled), out))


class PlanOptions(FrozenModel):
    """What to plan, and the GPU."""

    scale: str = Field("", description="A scale (paper, mini, smoke), or a YAML file.")
    study: str = Field("", description="A study, such as day; or a YAML file.")
    gpu: Literal["v100", "a100", "h100", "h200", "rtx4090", "a5000"] = "h100"
    utilisation: float = Field(
        0.4, ge=0.001, le=1, description="Share of the GPU's peak FLOP/s that training reaches."
    )
    spec: str = Field("", description="A run's id: print its fields, and where each comes from.")


@app.command()
@grouped
def plan(options: PlanOptions) -> None:
    """Print the GPU hours and disk space of each table, by stage.

    Default: scale paper.

    These are computed; nothing runs. A table counts all runs that it needs. GB are of weights and
    checkpoints, without videos.

    With --spec RUN, print the run's fields instead. Each line names the layer that the value is
    from (recipe, scale, study, row, column, option) and its place in the layer's file.
    """
    from mgm.dag.resolved import resolved
    from mgm.dag.workflow import Workflow
    from mgm.spec.compute import PEAK
    from mgm.study.cost import costs
    from mgm.study.videos import size_of

    scale = options.scale or ("" if options.study else "paper")
    workflow = Workflow({"scale": scale, "study": options.study})
    if options.spec:
        return say(resolved(workflow, options.spec).to_string(index=False, justify="left"))
    table = costs(
        workflow.plan,
        lambda data: size_of(workflow.datasets, workflow.key_of(data)),
        PEAK[options.gpu] * options.utilisation,
    )
    say(
        f"Computed for one {options.gpu}, at {options.utilisation:.0%} of its "
        f"{PEAK[options.gpu] / 1e12:,.0f} TFLOP/s. Nothing ran."
    )
    say(table.to_string(float_format=lambda x: "<0.1" if 0 < x < 0.05 else f"{x:,.1f}"))
