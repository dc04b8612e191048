"""Commands that run specs, one per stage, and `new-spec`, which writes a spec."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from pydantic import Field

from mgm.cli.base import Data, Out, all_processes, app, grouped, places
from mgm.console import say, show
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.reading import read_json, read_yaml
from mgm.spec import (
    PUBLISHED,
    FrozenModel,
    LoadOptions,
    Measure,
    RunOptions,
    parents,
    parse,
)
from mgm.spec.new_spec import commented, fields_of, write_new

# Stages that can run in several processes.
DISTRIBUTED = ("pretrain", "finetune")
MEASUREMENTS = get_args(Measure.model_fields["name"].annotation)
SPEC_FILES = (".json", ".yaml", ".yml")

Specs = Annotated[
    list[Path],
    typer.Argument(
        help="Spec files (JSON or YAML), run one after another. Without a file, --data and --set "
        "describe one run.",
        metavar="[SPEC.json...]",
    ),
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Without a spec file: a field of the spec, such as optim.epochs=50 or mask.name=tube. "
        "Repeat for more.",
        metavar="FIELD=VALUE",
    ),
]


def _command(stage: str, about: str) -> None:
    """Add the command of a stage."""

    def run(
        options: LoadOptions,
        specs: Specs = [],  # noqa: B006
        data: Data = [],  # noqa: B006
        changes: Changes = [],  # noqa: B006
        out: Out = Path("results"),
    ) -> None:
        _run_specs(stage, _read(specs, stage, data, changes), out, data, options)

    if stage in DISTRIBUTED:
        run.__annotations__["options"] = RunOptions
    text = f"{about}\n\n`mgm new-spec {stage}` lists the settings."
    app.command(stage, help=text)(grouped(run))


_command("pretrain", "Pretrain masked autoencoders.")
_command("finetune", "Fine-tune and test classifiers.")
_command("probe", "Fit and test classifiers on frozen features.")
_command("visualise", "Compute the arrays of figures of clips.")


@app.command("new-spec")
def new_spec(
    stage: Annotated[
        Literal["pretrain", "finetune", "probe", "visualise", "measure"],
        typer.Argument(help="The command that the spec is for.", metavar="STAGE"),
    ],
    dataset: Annotated[str, typer.Option(help="The dataset's name.")] = "mine",
    changes: Changes = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: print the spec.")
    ] = None,
) -> None:
    """Write a spec (YAML) with all settings, explained."""
    fields = fields_of(stage, dataset, changes)
    say(write_new(commented(parse(fields, "new-spec")), out))


def _read(
    paths: list[Path], stage: str, data: list[str], changes: list[str]
) -> list[tuple[str, Any]]:
    """Return each spec's fields, with its name for errors, from files or from options alone."""
    if paths:
        if changes:
            raise UserError(f"--set {changes[0]}: is for a run without a file; change {paths[0]}")
        return [(str(path), _fields(path)) for path in paths]
    if len(data) != 1:
        raise UserError(f"mgm {stage}: needs a spec file (`mgm new-spec {stage}`), or one --data")
    [(name, folder)] = places(data).items()
    fields = fields_of(stage, name, changes)
    # The digest distinguishes folders of one name. Published datasets need only their name.
    if name not in PUBLISHED:
        fields["data"].setdefault("digest", read_index(folder).digest)
    return [("--set", fields)]


def _fields(path: Path) -> Any:
    """Read a spec file."""
    return read_json(path) if path.suffix == ".json" else read_yaml(path)


def _run_specs(
    stage: str,
    named_fields: list[tuple[str, Any]],
    out: Path,
    data: list[str],
    options: LoadOptions,
) -> None:
    """Run a stage on each spec."""
    where = places(data)
    with all_processes():
        from mgm.stages.job import Workplace
        from mgm.stages.parents import complete
        from mgm.stages.runner import run_all
        from mgm.training import collectives

        if stage not in DISTRIBUTED and collectives.world_size() > 1:
            raise UserError(f"mgm {stage}: runs in one process; start it without torchrun")
        specs = []
        for source, fields in named_fields:
            spec = parse(complete(fields, source, out), source)
            if spec.stage != stage:
                raise UserError(f"{source}: is a {spec.stage} spec; run it with `mgm {spec.stage}`")
            specs.append(spec)
        for fault in dict.fromkeys(spec.model.misnamed for spec in specs if not parents(spec)):
            if fault and collectives.is_main():
                show(f"note: model.{fault}; a name of your own, such as toy, would say so")
        job: Callable[..., Any] = getattr(import_module(f"mgm.stages.{stage}"), stage)
        own = RunOptions(**options.model_dump())
        run_all(specs, job, Workplace(out, where, own))


class MeasureOptions(FrozenModel):
    """Options of `mgm measure NAME`. A spec has fields in their place."""

    index: Path | None = Field(None, description="NAME: a folder that `mgm prepare` wrote.")
    videos: int = Field(200, ge=0, description="NAME: number of test videos; 0: all.")
    like: Path | None = Field(
        None,
        description="controls: take labels, clips and model from this run or spec. explained: the "
        "pretraining run.",
    )


@app.command()
@grouped
def measure(
    how: MeasureOptions,
    options: LoadOptions,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME | SPEC.json...",
            help=f"NAME: {', '.join(MEASUREMENTS)}. SPEC.json: spec files.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="SPEC.json: folder of results.")] = None,
    data: Data = [],  # noqa: B006
) -> None:
    """Measure numbers of the papers' texts, and controls.

    With NAME, print the measurement at the papers' settings and store nothing. With spec files,
    store the results as runs.
    """
    if what[0].endswith(SPEC_FILES):
        if out is None:
            raise UserError(f"{what[0]}: is a spec, so its result is stored; add --out FOLDER")
        specs = [(word, _fields(Path(word))) for word in what]
        _run_specs("measure", specs, out, data, options)
        return
    if len(what) > 1 or what[0] not in MEASUREMENTS:
        raise UserError(f"{' '.join(what)}: name spec files, or one of {', '.join(MEASUREMENTS)}")

    import torch

    from mgm.stages.job import readers
    from mgm.stages.measure import measure_now
    from mgm.stages.measure.controls import controls_now

    torch.set_num_threads(options.threads)
    if how.index is None:
        raise UserError(f"{what[0]}: has no dataset; add --index DIR, which `mgm prepare` made")
    if what[0] == "controls":
        say(controls_now(how.index, how.like, readers(options)))
    else:
        say(measure_now(what[0], how.index, how.videos, how.like))
