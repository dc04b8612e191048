"""`mgm VERB`:

each verb is a thin door to the package; what a verb needs is imported when it is called.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mgm import __version__
from mgm.console import say
from mgm.data.commands import few, prepare_app
from mgm.errors import UserError, one_line, valid
from mgm.spec import LoadOptions, RunOptions

if TYPE_CHECKING:
    from mgm.paper.registry import Registry

app = typer.Typer(
    help="Motion-guided masking for video masked autoencoders, and the experiments of its paper.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DISTRIBUTED = ("pretrain", "finetune", "evaluate")  # verbs that several processes share
app.add_typer(prepare_app, name="prepare")

Specs = Annotated[
    list[Path],
    typer.Argument(
        help="Spec files; several are run one after another in one process.", metavar="SPEC.json..."
    ),
]
Out = Annotated[
    Path, typer.Option(help="Folder of results; each run gets a folder in it, named by its run id.")
]
Data = Annotated[
    list[str], typer.Option(help="Where a dataset's index is, as NAME=FOLDER; repeat for several.")
]
Threads = Annotated[
    int, typer.Option(min=1, callback=few("--threads"), help="Threads of a process.")
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        callback=few("--workers"),
        help="Processes that decode videos for one that computes; 0: it does.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the results.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
Reports = Annotated[Path, typer.Option(help="Folder of all reports.")]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"mgm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its parameter `options` as one command-line option per field."""
    plain = signature(command)
    model: type[LoadOptions] = plain.parameters["options"].annotation
    added = []
    for name, field in model.model_fields.items():
        least = next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)
        flag = (f"--{name.replace('_', '-')}",) if field.annotation is bool else ()
        option = typer.Option(*flag, min=least, help=field.description)
        annotation: Any = Annotated[field.annotation, option]  # type: ignore[valid-type]
        added.append(
            Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
        )

    @wraps(command)
    def called(**given: Any) -> None:
        with valid("--"):
            options = model(**{name: given.pop(name) for name in model.model_fields})
        command(**given, options=options)

    own = [one for name, one in plain.parameters.items() if name != "options"]
    called.__signature__ = plain.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in [*own, *added]}
    return called


@contextmanager
def _together() -> Iterator[None]:
    """Join the other processes that torchrun started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os.environ.setdefault(
            "TORCH_CPP_LOG_LEVEL", "ERROR"
        )  # or a connection that closes at the end is a page of warnings
        from mgm.training.collectives import process_group

        with process_group():
            yield
    else:
        yield


def _run(
    context: typer.Context,
    specs: list[Path],
    out: Path,
    data: list[str],
    options: LoadOptions,
    flow_weights: Path | None = None,
) -> None:
    """Run the stage that was called on each spec."""
    verb, parsed, places = str(context.info_name), [], _places(data)
    with _together():
        from mgm.reading import read_json
        from mgm.spec import parse
        from mgm.stages.data import Workplace
        from mgm.stages.initial_weights import resolve_init
        from mgm.stages.runner import run_all
        from mgm.training import collectives

        if verb not in DISTRIBUTED and (processes := collectives.world_size()) > 1:
            raise UserError(
                f"mgm {verb}: runs in one process, and torchrun started {processes}; start it without torchrun"
            )
        for path in specs:
            try:
                parsed.append(parse(resolve_init(read_json(path), str(path), out), str(path)))
            except FileNotFoundError:
                raise UserError(f"{path}: no such spec") from None
            if parsed[-1].verb != verb:
                raise UserError(
                    f"{path}: is a {parsed[-1].verb} spec; run it with `mgm {parsed[-1].verb}`"
                )
        job = getattr(import_module(f"mgm.stages.{verb}"), verb)
        own = RunOptions(**options.model_dump())
        run_all(parsed, job, Workplace(out, places, own, flow_weights))


def _registry(results: Path) -> "Registry":
    """The registry of a results folder. Thousands of runs are millions of objects that stay:
    looking for cycles among them is a fifth of a report's time."""
    import gc

    from mgm.paper.suite import registry_of

    gc.set_threshold(1_000_000)
    return registry_of(results)


def _places(data: list[str]) -> dict[str, Path]:
    if wrong := next((pair for pair in data if "=" not in pair), None):
        raise UserError(f"--data {wrong}: write it as NAME=FOLDER")
    return {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in data)}


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(help="An empty folder, or one to be made.", metavar="DIR")
    ],
) -> None:
    """Write the workflow's files (Snakefile, rules, scales, profiles) to a folder, to run the
    experiments there.
    """
    from mgm.dag.scaffold import write_workflow as write

    write(folder)
    say(
        f"wrote {folder}/workflow; next: pip install 'mgm-video[suite]', cd {folder}, snakemake --cores all"
    )


@app.command(
    "finetune", help="Train classifiers, from pretrained weights or from scratch, and test them."
)
@app.command("pretrain", help="Train masked autoencoders.")
@_with_options
def train(context: typer.Context, specs: Specs, out: Out, data: Data, options: RunOptions) -> None:
    _run(context, specs, out, data, options)


@app.command("visualise", help="Make the arrays of the figures that show clips.")
@app.command("probe", help="Fit linear classifiers on frozen features and test them.")
@_with_options
def compute(
    context: typer.Context, specs: Specs, out: Out, data: Data, options: LoadOptions
) -> None:
    _run(context, specs, out, data, options)


def _one_or_three(spatial: int | None) -> int | None:
    if spatial not in (None, 1, 3):
        raise UserError(f"--spatial {spatial}: choose 1 or 3")
    return spatial


@app.command()
def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of finetuning runs, or their spec files.", metavar="RUN | SPEC.json..."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="The dataset to test on and the folder of its index, as NAME=FOLDER."),
    ],
    temporal: Annotated[
        int | None, typer.Option(min=1, help="Temporal views; by default the spec's.")
    ] = None,
    spatial: Annotated[
        int | None,
        typer.Option(callback=_one_or_three, help="Spatial views, 1 or 3; by default the spec's."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of ours, VideoMAE's or Hugging Face's; by default the run's."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for predictions and scores; by default nothing is written."),
    ] = None,
    threads: Threads = 1,
    workers: Workers = 0,
) -> None:
    """Test finetuned weights, with other views or on other data; print top-1."""
    if len(runs) > 1 and weights:
        raise UserError(
            f"--weights {weights}: fits one run, but {len(runs)} are given; evaluate them one at a time"
        )
    places = _places([data])

    from mgm.stages.data import Workplace
    from mgm.stages.evaluate import evaluate as test

    views = {name: count for name, count in (("temporal", temporal), ("spatial", spatial)) if count}
    with _together():
        for run in runs:
            workplace = Workplace(Path(), places, RunOptions(threads=threads, workers=workers))
            if text := test(
                run, weights, workplace, views, out / run.stem if out and len(runs) > 1 else out
            ):
                say(text)


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="The folder of a pretraining or finetuning run.", metavar="RUN")
    ],
    to: Annotated[
        Literal["hf", "videomae", "onnx"],
        typer.Option(help="Hugging Face's transformers, VideoMAE's official code, or ONNX."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    index: Annotated[
        Path | None, typer.Option(help="hf: folder of the dataset's index, for the classes' names.")
    ] = None,
) -> None:
    """Write a run's weights in another format."""
    from mgm.stages.export import export as write

    say(write(run, to, out, index))


Every = Annotated[
    float | None,
    typer.Option(min=0.01, help="Seconds between windows of a long video; default: whole videos."),
]
Window = Annotated[
    float,
    typer.Option(min=0, help="Seconds that a window spans; default: the clip's frames and stride."),
]
Source = Annotated[
    Path,
    typer.Argument(
        help="A folder of videos, one that `mgm prepare` wrote, or a video.", metavar="SOURCE"
    ),
]
AnyWeights = Annotated[
    Path,
    typer.Option(
        help="A run's folder, or weights of ours, VideoMAE's, Hugging Face's or a later method's."
    ),
]
Temporal = Annotated[int, typer.Option(min=1, help="Clips of a video, evenly spread.")]
Spatial = Annotated[int, typer.Option(callback=_one_or_three, help="Crops of a clip, 1 or 3.")]
Frames = Annotated[int, typer.Option(min=1, help="Weights without a run: frames of a clip.")]
Size = Annotated[int, typer.Option(min=8, help="Weights without a run: pixels of a clip's side.")]
Stride = Annotated[
    int,
    typer.Option(
        min=1, help="Weights without a run: frames of the video from one of a clip to the next."
    ),
]


@app.command()
def embed(
    source: Source,
    weights: AnyWeights,
    out: Annotated[Path, typer.Option(help="The file to write, .parquet or .npy.")],
    per: Annotated[
        Literal["clip", "video"], typer.Option(help="A feature a clip, or the mean of a video's.")
    ] = "video",
    temporal: Temporal = 1,
    spatial: Spatial = 1,
    frames: Frames = 16,
    size: Size = 224,
    stride: Stride = 4,
    threads: Threads = 1,
    workers: Workers = 0,
    every: Every = None,
    window: Window = 0.0,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Every token of each window, to a .npy file.")
    ] = False,
) -> None:
    """Write features of videos; run again, it continues where it was stopped."""
    from mgm.stages.apply import read_views
    from mgm.stages.embed import embed as compute
    from mgm.stages.windows import Windows

    say(
        compute(
            source,
            weights,
            out,
            read_views(temporal, spatial),
            per,
            frames,
            size,
            stride,
            workers,
            threads,
            Windows(every, window) if every else None,
            tokens,
        )
    )


@app.command()
def predict(
    source: Source,
    weights: AnyWeights,
    out: Annotated[
        Path, typer.Option(help="Folder for predictions.csv, scores.parquet and index.html.")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="The classes' names: an index's folder, or a file with a name a line."),
    ] = None,
    temporal: Temporal = 5,
    spatial: Spatial = 3,
    frames: Frames = 16,
    size: Size = 224,
    stride: Stride = 4,
    threads: Threads = 1,
    workers: Workers = 0,
    every: Every = None,
    window: Window = 0.0,
) -> None:
    """Say what a classifier sees in videos, with a page of their top 5;

    run again, it continues where it was stopped.
    """
    from mgm.stages.apply import read_views
    from mgm.stages.predict import predict as compute
    from mgm.stages.windows import Windows

    say(
        compute(
            source,
            weights,
            out,
            classes,
            read_views(temporal, spatial),
            frames,
            size,
            stride,
            workers,
            threads,
            Windows(every, window) if every else None,
        )
    )


@app.command()
@_with_options
def measure(
    context: typer.Context,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME | SPEC.json...",
            help="saliency, motion-time, step-time, coverage or controls.",
        ),
    ],
    index: Annotated[
        Path | None, typer.Option(help="NAME: folder of the dataset's index; step-time needs none.")
    ] = None,
    videos: Annotated[
        int, typer.Option(min=0, help="NAME: test videos to measure, evenly spaced; 0: all.")
    ] = 200,
    flow: Annotated[
        str, typer.Option(help="motion-time: what to compare with, raft-small or dis.")
    ] = "raft-small",
    weights: Annotated[
        Path | None,
        typer.Option(help="motion-time: RAFT-small's weights; by default torchvision's own."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="controls: a run or its spec, whose labels, clips and model to take.",
            metavar="RUN | SPEC.json",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="SPEC.json: folder of results; each run gets a folder in it."),
    ] = None,
    data: Data = [],  # noqa: B006
    options: LoadOptions = LoadOptions(),
) -> None:
    """Measure what the papers state:

    NAME at their settings, printed and not kept; or specs, as runs.
    """
    from typing import get_args

    from mgm.spec import Measure

    names = get_args(Measure.model_fields["name"].annotation)
    if not set(names) & set(what):
        if unknown := next((word for word in what if not word.endswith(".json")), None):
            raise UserError(
                f"{unknown}: is neither a measurement ({', '.join(names)}) nor a spec file"
            )
        if out is None:
            raise UserError(f"{what[0]}: a spec is a run; pass --out FOLDER for its result")
        _run(context, [Path(word) for word in what], out, data, options, flow_weights=weights)
        return
    if len(what) > 1:
        raise UserError(f"{' '.join(what)}: measure one NAME at a time, or spec files alone")

    import torch

    from mgm.stages.measure import controls_now, measure_now

    torch.set_num_threads(options.threads)
    if what[0] == "controls":
        if index is None:
            raise UserError("controls: pass --index FOLDER, one that `mgm prepare` made")
        say(controls_now(index, like, options.workers))
        return
    say(measure_now(what[0], index, videos, flow, weights))


@app.command()
def flow(
    index: Annotated[
        Path,
        typer.Argument(
            help="The folder of a dataset's index, as `mgm prepare` made it.", metavar="INDEX_DIR"
        ),
    ],
    method: Annotated[
        Literal["raft-small", "dis"],
        typer.Option(help="raft-small (torchvision's) or dis (OpenCV's)."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A state_dict of torchvision's raft_small; by default its own, downloaded."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, callback=few("--processes"), help="Processes, of one thread each.")
    ] = 1,
) -> None:
    """Write the optical flow of a dataset's videos beside them, to guide masks in the place of
    motion vectors.
    """
    from mgm.stages.flow import flow as compute

    done = compute(index, method, weights, processes)
    say(f"flow of {done['videos']} videos by {method}: {index}/flow-{method}.json")


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="A video file, a folder of videos, or one that `mgm prepare` wrote."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder: a PNG to draw.")] = None,
    videos: Annotated[
        int | None, typer.Option(min=1, help="Folder: videos to decode, evenly spread (100).")
    ] = None,
) -> None:
    """Say what a video file or a dataset holds:

    codecs, durations, motion vectors, where the motion is.
    """
    if path.is_dir():
        from mgm.stages.inspect import inspect_folder

        found = inspect_folder(path, videos or 100)
        say(found.describe())
        if out:
            from mgm.report.figures.dataset import draw
            from mgm.report.figures.style import write

            write(draw(found.arrays(), str(path)), out)
            say(f"wrote {out}")
        return
    if out or videos:
        raise UserError(
            f"{path}: is no folder, and --out and --videos are for folders; leave them out"
        )

    from mgm.video.inspection import inspect_video

    say(inspect_video(path).describe())


@app.command()
def show(
    video: Annotated[Path, typer.Argument(help="A video file with motion vectors.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    masks: Annotated[
        str, typer.Option(help="Masks to draw, separated by commas; by default Table 4e's six.")
    ] = "",
    start: Annotated[
        int | None, typer.Option(min=0, help="First frame; by default the clip is in the middle.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the masks' random draws.")] = 0,
) -> None:
    """Draw a clip's frames, motion vectors and masks in one picture."""
    from mgm.stages.visualise import show as draw

    draw(video, out, seed, [name for name in masks.split(",") if name], start)
    say(f"wrote {out}")


@app.command()
def plan(
    scale: Annotated[
        str, typer.Option(help="A scale of published datasets, or a YAML file.")
    ] = "paper",
    gpu: Annotated[
        str | None,
        typer.Option(
            help="v100, a5000, rtx4090, a100, h100 (default), h200; with --clips-per-s any name."
        ),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of a GPU's peak that training sustains.")
    ] = 0.4,
    measured: Annotated[
        Path, typer.Option(help="Results of `make gpu`, whose rate counts without --gpu.")
    ] = Path("reports/gpu"),
    clips_per_s: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="In its place: clips/s a GPU, measured pretraining ViT-B by MGM."
        ),
    ] = None,
    loader_clips_per_s: Annotated[
        float | None,
        typer.Option(min=0.1, help="Videos/s that one core decodes; by default always enough."),
    ] = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores a GPU that decode.")] = 8,
    size: Annotated[
        str, typer.Option(help="A scale's size, by default the largest that fits the GPU.")
    ] = "",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs in all.")] = 64,
    gpus_per_run: Annotated[
        int | None, typer.Option(min=1, help="GPUs of one run; by default 8, or all if fewer.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="One table or figure, such as table4e.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A picture of it to write: .svg, .png or .pdf.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="A file for all its numbers.", metavar="FILE")
    ] = None,
) -> None:
    """Say what the experiments will cost: GPU hours, time and disk of each table and figure."""
    from mgm.dag.study import CONFIG, Workflow
    from mgm.paper.plan import machine, make_day, make_plan, read_measured, size_for
    from mgm.report.plan import DECODED, describe, describe_day, write_json

    decoded = None if loader_clips_per_s is None else loader_clips_per_s * cores
    rate = (not gpu and not clips_per_s and read_measured(measured)) or {
        "gpu": gpu or "h100",
        "clips_per_s": clips_per_s,
    }
    path = Path(scale) if scale.endswith((".yaml", ".yml")) else CONFIG / f"{scale}.yaml"
    if path.exists() and not size:
        size = size_for(path, str(rate["gpu"]))
    workflow = Workflow({"scale": scale, "gpu": size})
    if workflow.scale.grid:
        gpus, gpus_per_run, decoded = 1, 1, cores * (loader_clips_per_s or DECODED)
    given = machine(
        utilisation=utilisation, gpus=gpus, gpus_a_run=gpus_per_run, decoded=decoded, **rate
    )
    if workflow.scale.grid:
        day = make_day(workflow.registry, given, utilisation)
        name = " ".join(filter(None, (workflow.name, size)))
        say(describe_day(name, day, given, cores, loader_clips_per_s or DECODED))
        return
    found = make_plan(workflow.registry, given, utilisation, target)
    if out:
        from mgm.report.figures.plan import draw

        draw(found, out)
    if json_file:
        write_json(found, json_file)
    say(describe(found))


@app.command()
def trace(
    cell: Annotated[
        str,
        typer.Argument(
            help="TABLE/ROW or TABLE/ROW/COLUMN, such as table4e/mgm; parts of names will do."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the results.")] = "smoke",
    results: Results = Path("results"),
) -> None:
    """Say what a table's cell rests on: runs, specs, commit, data, weights, logs."""
    from mgm.report.trace import trace as describe

    say(describe(_registry(results / name), results / name, cell))


@app.command()
def diff(
    run: Annotated[str, typer.Argument(help="A run id, or a run's folder.")],
    other: Annotated[str, typer.Argument(help="Another.")],
    results: Results = Path("results"),
) -> None:
    """Say in which fields two runs differ, and their metrics."""
    from mgm.report.diff import diff as compare

    say(compare(results, run, other))


@app.command()
def results(
    name: Name = "smoke",
    results: Results = Path("results"),
    csv: Annotated[Path | None, typer.Option(help="CSV file to write.", metavar="FILE")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Parquet file to write.", metavar="FILE")
    ] = None,
) -> None:
    """Write all runs as one table, a row a run: what it is, its status, its metrics."""
    if not (csv or parquet):
        raise UserError("mgm results: has nothing to write; add --csv FILE or --parquet FILE")

    from mgm.paper.suite import registry_of
    from mgm.results import frame

    try:
        registry = registry_of(results / name)
    except UserError:  # runs without a scale stand in no table
        registry = None
    table = frame(results / name, registry)
    for path, write in ((csv, table.to_csv), (parquet, table.to_parquet)):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, index=False)
    say(f"wrote {len(table)} runs: {', '.join(str(path) for path in (csv, parquet) if path)}")


@app.command()
def pack(name: Name, results: Results = Path("results")) -> None:
    """Write finished runs to one file, results/NAME.tar.xz, or add new runs to it.

    It holds specs, results, predictions, logs and arrays, but no weights. Every command that reads
    results/NAME unpacks it on first use.
    """
    from mgm.results.archive import pack as write

    archive = write(results / name)
    say(f"wrote {archive} ({archive.stat().st_size / 1e6:.1f} MB) and its digest")


@app.command()
def clean(
    name: Name,
    results: Results = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Delete them.")] = False,
) -> None:
    """List the runs that no table or figure wants, and delete them with --yes."""
    from mgm.report.clean import clean as tidy

    if Path(name).name != name or name == "..":
        raise UserError(
            f"{name}: is no name of results; pass the folder's name in {results}/ alone"
        )
    say(tidy(_registry(results / name), results / name, yes))


@app.command()
def report(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    only: Annotated[
        str | None, typer.Option(help="One target, such as table4e or figure5.")
    ] = None,
) -> None:
    """Write tables, figures and the page from the results that exist. Never trains."""
    from mgm.report.build import build_report

    page = build_report(_registry(results / name), results / name, reports / name, only)
    say(f"wrote {page}")


@app.command()
def crate(
    name: Name = "smoke",
    results: Results = Path("results"),
    reports: Reports = Path("reports"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="The zip to write; NAME.crate.zip beside the reports unless given.", metavar="FILE"
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Put weights in too; else they are named by their digest."),
    ] = False,
) -> None:
    """Write results, their report and how they came about as a Workflow Run RO-Crate."""
    from mgm.report.crate import write_crate

    out = out or reports / f"{name}.crate.zip"
    count = write_crate(_registry(results / name), results / name, reports / name, out, weights)
    say(f"wrote {out}: {count} runs with their report")


@app.command()
def sync(
    name: Name = "smoke",
    results: Results = Path("results"),
    uri: Annotated[
        str | None,
        typer.Option(help="MLflow's tracking address; a database beside the results by default."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on while jobs run, until every run is finished.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="Copy weights too; else they are named by path and digest."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; say where MLflow differs from the files."),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Check, and mirror anew what differs.")
    ] = False,
    register: Annotated[
        list[str],
        typer.Option(
            help="Register this run's weights in MLflow's model registry; repeat for several.",
            metavar="RUN",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Mirror results to MLflow. Files are the truth: a tracker that is down loses nothing."""
    if (
        len(
            given := [
                f"--{flag}"
                for flag, on in (("follow", follow), ("check", check), ("repair", repair))
                if on
            ]
        )
        > 1
    ):
        raise UserError(f"{' '.join(given)}: choose one")

    from mgm.report.mlflow import sync as mlflow

    registry, uri = _registry(results / name), uri or mlflow.default_uri(results / name)
    if follow:
        mlflow.follow(registry, results / name, uri, weights)
        return
    differing = {}
    if check or repair:
        from mgm.report.mlflow.check import check as compare

        differing = compare(registry, results / name, uri)
        lines = [f"{run_id}: {line}" for run_id, several in differing.items() for line in several]
        say(
            "\n".join(lines[:50] + [f"and {len(lines) - 50} differences more"] * (len(lines) > 50))
            or "MLflow has what the files say"
        )
        if check and lines:
            raise UserError(
                f"{uri}: {len(lines)} differences in {len(differing)} runs; `mgm sync {name} --repair` mirrors these anew"
            )
        if check:
            return
    say(str(mlflow.sync(registry, results / name, uri, weights, differing.keys())))
    if register:
        from mgm.report.mlflow.models import register as add_versions

        say("\n".join(add_versions(results / name, uri, register)))


def main() -> None:
    try:
        with one_line():
            app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)
