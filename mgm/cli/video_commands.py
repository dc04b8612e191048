"""Commands for videos and weights: features, predictions, exports, flow, pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.data.prepare import few
from mgm.errors import UserError
from mgm.spec import ApplyOptions, PredictOptions

Source = Annotated[
    Path,
    typer.Argument(
        help="A video, a folder of videos, or a folder that `mgm prepare` wrote.", metavar="SOURCE"
    ),
]
Weights = Annotated[
    Path,
    typer.Option(
        help="A run's folder, or weights of mgm, VideoMAE, Hugging Face or a later method."
    ),
]


@app.command()
@grouped
def embed(
    how: ApplyOptions,
    source: Source,
    weights: Weights,
    out: Annotated[Path, typer.Option(help="The file to write, .parquet or .npy.")],
    per: Annotated[
        Literal["clip", "video"], typer.Option(help="A feature per clip, or their mean per video.")
    ] = "video",
    tokens: Annotated[
        bool, typer.Option("--tokens", help="With --every: every token of each window, to .npy.")
    ] = False,
) -> None:
    """Write features of videos. Run it again to continue where it was stopped."""
    from mgm.stages.embed import embed as compute

    say(compute(source, weights, out, how, per, tokens))


@app.command()
@grouped
def predict(
    how: PredictOptions,
    source: Source,
    weights: Weights,
    out: Annotated[
        Path, typer.Option(help="Folder for predictions.csv, scores.parquet and index.html.")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="Class names: an index's folder, or a file with a name per line."),
    ] = None,
) -> None:
    """Write class scores of videos, and a page with their top 5.

    Run it again to continue where it was stopped.
    """
    from mgm.stages.predict import predict as compute

    say(compute(source, weights, out, classes, how))


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
        Path | None, typer.Option(help="hf: folder of the dataset's index, for class names.")
    ] = None,
) -> None:
    """Write a run's weights in another format, with a model card."""
    from mgm.report.card import write_card
    from mgm.stages.export import export as write

    about = write(run, to, out, index)
    # ONNX files hold their metadata.
    if to != "onnx":
        write_card(run, out, to, about)
    say(about)


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
        typer.Option(help="A state_dict of torchvision's raft_small; default: downloaded."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, callback=few("--processes"), help="Processes, one thread each.")
    ] = 1,
) -> None:
    """Write the optical flow of a dataset's videos next to them.

    Masks can follow it in place of motion vectors.
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
    out: Annotated[Path | None, typer.Option(help="Folder: the PNG to write.")] = None,
    videos: Annotated[
        int | None, typer.Option(min=1, help="Folder: videos to decode, evenly spaced (100).")
    ] = None,
) -> None:
    """Print what a video or a dataset holds: codecs, durations, motion vectors, motion."""
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
            f"{path}: is not a folder, and --out and --videos are for folders; leave them out"
        )

    from mgm.video.vectors import inspect_video

    say(inspect_video(path).describe())


@app.command()
def show(
    video: Annotated[Path, typer.Argument(help="A video file with motion vectors.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    masks: Annotated[
        str, typer.Option(help="Masks to draw, separated by commas; default: Table 4e's six.")
    ] = "",
    start: Annotated[
        int | None, typer.Option(min=0, help="First frame; default: the middle clip's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
) -> None:
    """Draw a clip's frames, motion vectors and masks in one picture."""
    from mgm.report.figures import draw, style
    from mgm.stages.visualise import show as compute

    arrays = compute(video, seed, [name for name in masks.split(",") if name], start)
    style.write(draw.masks_on_a_clip(arrays), out)
    say(f"wrote {out}")
