"""Commands that run specs, one per stage, and `new-spec`, which writes a spec."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from pydantic import Field

from mgm.cli.base import Data, Force, Out, all_processes, app, grouped, places
from mgm.console import say
from mgm.data.index import read_index
from mgm.errors import UserError
from mgm.reading import read_json, read_yaml
from mgm.spec import (
    PUBLISHED,
    FrozenModel,
    LoadOptions,
    Measure,
    ReadOptions,
    RunOptions,
    parse,
    require_named_sizes,
)
from mgm.spec.new_spec import commented, fields_of, write_new

# Stages that can run in several processes.
DISTRIBUTED = ("pretrain", "finetune")
YAML = (".yaml", ".yml")
MEASUREMENTS = get_args(Measure.model_fields["name"].annotation)

Specs = Annotated[
    list[Path],
    typer.Argument(
        help="Spec files (JSON or YAML), run one after another. Without a file, --data and --set "
        "describe one run.",
        metavar="[SPEC.json...]",
    ),
]
Mask = Annotated[
    str, typer.Option(help="Without a spec file: the mask's name, such as mgm or tube.")
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Without a spec file: a field of the spec, such as optim.epochs=50. Repeat for more.",
        metavar="FIELD=VALUE",
    ),
]
DEFAULT_OUT = Path("results")


@app.command(help="Pretrain masked autoencoders.\n\n`mgm new-spec pretrain` lists the settings.")
@grouped
def pretrain(
    options: RunOptions,
    specs: Specs = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    mask: Mask = "",
    changes: Changes = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
) -> None:
    _run_specs("pretrain", _read(specs, "pretrain", data, mask, changes), out, data, options)


@app.command(
    help="Fine-tune and test classifiers.\n\nThey start from the run in the field `parent`, or "
    "from scratch. `mgm new-spec finetune` lists the settings."
)
@grouped
def finetune(
    options: RunOptions,
    specs: Specs = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    changes: Changes = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
) -> None:
    _run_specs("finetune", _read(specs, "finetune", data, "", changes), out, data, options)


@app.command(
    help="Fit and test classifiers on frozen features.\n\n`mgm new-spec probe` lists the settings."
)
@grouped
def probe(
    options: LoadOptions,
    specs: Specs = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    changes: Changes = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
) -> None:
    _run_specs("probe", _read(specs, "probe", data, "", changes), out, data, options)


@app.command(help="Compute the arrays of figures that show clips.\n\n`mgm report` draws them.")
@grouped
def visualise(
    options: LoadOptions,
    specs: Specs = [],  # noqa: B006
    data: Data = [],  # noqa: B006
    changes: Changes = [],  # noqa: B006
    out: Out = DEFAULT_OUT,
) -> None:
    _run_specs("visualise", _read(specs, "visualise", data, "", changes), out, data, options)


@app.command("new-spec")
def new_spec(
    stage: Annotated[
        Literal["pretrain", "finetune", "probe", "visualise", "measure"],
        typer.Argument(help="The command that the spec is for.", metavar="STAGE"),
    ],
    dataset: Annotated[str, typer.Option(help="The dataset's name.")] = "mine",
    mask: Annotated[str, typer.Option(help="pretrain: the mask's name, such as mgm or tube.")] = "",
    changes: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="A field of the spec, such as optim.epochs=50. Repeat for more.",
            metavar="FIELD=VALUE",
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: print the spec.")
    ] = None,
) -> None:
    """Write a spec (YAML) with all settings, explained in comments."""
    fields = fields_of(stage, dataset, mask, changes)
    say(write_new(commented(parse(fields, "new-spec")), out))


def _read(
    paths: list[Path], stage: str, data: list[str], mask: str, changes: list[str]
) -> list[tuple[str, Any]]:
    """Return each spec's fields, with its name for errors, from files or from options alone."""
    if paths:
        words = [f"--mask {mask}"] if mask else []
        if words := [*words, *(f"--set {change}" for change in changes)]:
            raise UserError(f"{words[0]}: is for a run without a spec file; change {paths[0]}")
        return [(str(path), _fields(path)) for path in paths]
    if not data:
        raise UserError(
            f"mgm {stage}: has no spec and no dataset; pass a spec file (`mgm new-spec {stage}` "
            "writes one), or --data NAME=FOLDER"
        )
    ((name, folder), *more) = places(data).items()
    if more:
        raise UserError(
            f"--data {more[0][0]}: a run without a spec file has one dataset; remove this one"
        )
    fields = fields_of(stage, name, mask, changes)
    # The digest distinguishes folders of one name. Published datasets need only their name.
    if name not in PUBLISHED:
        fields["data"].setdefault("digest", read_index(folder).digest)
    return [("--set", fields)]


def _fields(path: Path) -> Any:
    """Read a spec file."""
    try:
        return read_yaml(path) if path.suffix in YAML else read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such spec; correct the path or the name") from None


def _run_specs(
    stage: str,
    named_fields: list[tuple[str, Any]],
    out: Path,
    data: list[str],
    options: LoadOptions,
    flow_weights: Path | None = None,
) -> None:
    """Run a stage on each spec."""
    where = places(data)
    with all_processes():
        # Commands import torch when they are called, so that `mgm --help` is fast.
        from mgm.stages.job import Workplace
        from mgm.stages.parents import complete
        from mgm.stages.runner import run_all
        from mgm.training import collectives

        if stage not in DISTRIBUTED and (processes := collectives.world_size()) > 1:
            raise UserError(
                f"mgm {stage}: runs in one process, and torchrun started {processes}; start it "
                "without torchrun"
            )
        specs = []
        for source, fields in named_fields:
            spec = parse(complete(fields, source, out), source)
            if spec.stage != stage:
                raise UserError(f"{source}: is a {spec.stage} spec; run it with `mgm {spec.stage}`")
            require_named_sizes(spec, source)
            specs.append(spec)
        job = getattr(import_module(f"mgm.stages.{stage}"), stage)
        own = RunOptions(**options.model_dump())
        run_all(specs, job, Workplace(out, where, own, flow_weights))


class OtherViews(FrozenModel):
    """Test views that replace a spec's."""

    temporal: int | None = Field(None, ge=1, description="Temporal views; default: the spec's.")
    spatial: int | None = Field(None, description="Spatial views, 1 or 3; default: the spec's.")


@app.command()
@grouped
def evaluate(
    views: OtherViews,
    options: ReadOptions,
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of fine-tuning runs, or spec files with --weights.",
            metavar="RUN | SPEC.json...",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="The dataset to test on: its name and the folder that `mgm prepare` wrote.",
            metavar="NAME=FOLDER",
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of mgm, VideoMAE or Hugging Face; default: those of the run."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write predictions and scores to; default: none are written."),
    ] = None,
    force: Force = False,
) -> None:
    """Test fine-tuned weights on any data and views; print top-1.

    The weights stay as they are.
    """
    if len(runs) > 1 and weights:
        raise UserError(
            f"--weights {weights}: fits one run, but {len(runs)} are given; evaluate them one at "
            "a time"
        )
    where = places([data])

    from mgm.stages.evaluate import evaluate as evaluate_run
    from mgm.stages.job import Workplace

    changed = views.model_dump(exclude_none=True)
    with all_processes():
        for run in runs:
            workplace = Workplace(Path(), where, RunOptions(**options.model_dump()))
            own_out = out / run.stem if out and len(runs) > 1 else out
            if text := evaluate_run(run, weights, workplace, changed, own_out, force):
                say(text)


class MeasureOptions(FrozenModel):
    """Options of `mgm measure NAME`. For specs, fields of the spec replace them."""

    index: Path | None = Field(
        None, description="NAME: a folder that `mgm prepare` wrote. step-time needs none."
    )
    videos: int = Field(
        200, ge=0, description="NAME: number of test videos, evenly spaced; 0: all."
    )
    flow: str = Field(
        "raft-small",
        description="motion-time: the optical flow to compare with, raft-small or dis.",
    )
    weights: Path | None = Field(
        None, description="motion-time: a file with RAFT-small's weights; default: torchvision's."
    )
    like: Annotated[
        Path | None,
        typer.Option(
            help="controls: take labels, clips and model from this run or spec.",
            metavar="RUN | SPEC.json",
        ),
    ] = None


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
    out: Annotated[
        Path | None, typer.Option(help="SPEC.json: folder of results, with one folder per run.")
    ] = None,
    data: Data = [],  # noqa: B006
) -> None:
    """Measure numbers of the papers' texts, and controls.

    With NAME, print the measurement at the papers' settings and store nothing. With spec files,
    store the results as runs.
    """
    if not set(MEASUREMENTS) & set(what):
        if unknown := next((word for word in what if not word.endswith((".json", *YAML))), None):
            raise UserError(
                f"{unknown}: is neither a measurement ({', '.join(MEASUREMENTS)}) nor a spec file"
            )
        if out is None:
            raise UserError(f"{what[0]}: is a spec, so its result is stored; add --out FOLDER")
        specs = [(word, _fields(Path(word))) for word in what]
        _run_specs("measure", specs, out, data, options, flow_weights=how.weights)
        return
    if len(what) > 1:
        raise UserError(f"{' '.join(what)}: measure one NAME at a time, or only spec files")

    import torch

    from mgm.stages.measure import measure_now
    from mgm.stages.measure.controls import controls_now

    torch.set_num_threads(options.threads)
    if what[0] == "controls":
        if how.index is None:
            raise UserError(
                "controls: has no dataset; add --index FOLDER, one that `mgm prepare` made"
            )
        say(controls_now(how.index, how.like, options.workers))
        return
    say(measure_now(what[0], how.index, how.videos, how.flow, how.weights))
