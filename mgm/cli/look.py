"""Commands that look at videos, and that apply or export weights."""

from pathlib import Path
from typing import Annotated

import typer

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.errors import UserError, require_new
from mgm.spec import MASKS, ApplyOptions, PredictOptions

SOURCE = "A video, or a folder that `mgm prepare` wrote."
Source = Annotated[Path, typer.Argument(help=SOURCE, metavar="VIDEO|DATASET")]
WEIGHTS = (
    "A run's folder, or a file or folder of weights: of mgm, VideoMAE, Hugging Face or a later "
    "method."
)
Weights = Annotated[Path, typer.Option(help=WEIGHTS)]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@app.command()
def show(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture of a video: .gif, or .png with a row per mask. Default: show.gif."
        ),
    ] = None,
    masks: Annotated[
        str, typer.Option(help="Masks, separated by commas; or all.")
    ] = "block,tube,mgm",
) -> None:
    """Draw a video, its motion and what masks hide. Print how much of the motion they hide.

    Of a dataset, print the mean over its videos.
    """
    from mgm.stages.show import show as look

    names = [*MASKS] if masks == "all" else masks.split(",")
    if out and source.is_dir():
        raise UserError(f"--out {out}: is the picture of a video, and {source} is a folder")
    out = out or Path("show.gif")
    if out.suffix not in (".gif", ".png"):
        raise UserError(f"{out}: the picture is a .gif, or a .png; name it so")
    say("\n".join(look(source, names, out)))


@app.command()
def motion(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder that `mgm prepare` wrote; or a video, or a folder of videos, which are "
            "decoded.",
            metavar="DIR",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--csv", help="The file to write. Default: stdout.")
    ] = None,
    force: Force = False,
) -> None:
    """Measure how much moves in each video, to sort out static and shaky ones.

    A row per video: mean speed and pan (pixels of the source per frame), the share of cells that
    move, the share of I-frames, and seconds.
    """
    from mgm.stages.motion import table

    require_new(out, force)
    for line in table(source, out):
        say(line)


@app.command()
@grouped
def embed(
    options: ApplyOptions,
    source: Source,
    weights: Weights,
    out: Annotated[Path, typer.Option(help="The file to write, .npz: path_N and feature_ND.")],
) -> None:
    """Write a feature per video to one file."""
    from mgm.stages.apply import embed as compute

    say(compute(source, weights, out, options))


@app.command()
@grouped
def predict(
    options: PredictOptions,
    source: Source,
    weights: Weights,
    out: Annotated[Path, typer.Option(help="The file to write, .csv: a row per video.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class names: a folder that `mgm prepare` wrote, or a file with a name per line, "
            "in the order of the labels or with their numbers. Default: those of the weights."
        ),
    ] = None,
) -> None:
    """Write the class of each video, and its scores, to one file."""
    from mgm.stages.apply import predict as compute

    if options.split and not source.is_dir():
        raise UserError(f"--split {options.split}: is of a prepared folder, and {source} is none")
    say(compute(source, weights, out, classes, options))


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="The folder of a pretraining or fine-tuning run.", metavar="RUN")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    force: Force = False,
) -> None:
    """Write a run's weights as a folder for Hugging Face's transformers."""
    from mgm.stages.export import export as write

    say(write(run, out, force))


@app.command()
def controls(
    folder: Annotated[
        Path, typer.Argument(help="A labelled folder that `mgm prepare` wrote.", metavar="FOLDER")
    ],
    csv: Annotated[Path | None, typer.Option(help="Write the numbers to this file too.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Worker processes. Default: one per core.")
    ] = None,
    force: Force = False,
) -> None:
    """Print what tells the class without a model: file facts, one frame, motion statistics.

    Where a fact about the file or one frame is far above guessing, accuracies on these videos say
    little about motion.
    """
    from mgm.stages.controls import look

    require_new(csv, force)
    say(look(folder, csv, processes))
