"""Commands for videos and weights: features, predictions, exports, flow, pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mgm.cli.base import Force, app, grouped
from mgm.console import say
from mgm.errors import MOST_PROCESSES, UserError
from mgm.spec import ApplyOptions, Compensate, PredictOptions

Source = Annotated[
    Path,
    typer.Argument(
        help="A video, a folder of videos, or a folder that `mgm prepare` wrote.", metavar="SOURCE"
    ),
]
Weights = Annotated[
    Path,
    typer.Option(
        help="A run's folder, or a file or folder of weights: of mgm, VideoMAE, Hugging Face or a "
        "later method."
    ),
]


@app.command()
@grouped
def embed(
    how: ApplyOptions,
    source: Source,
    weights: Weights,
    out: Annotated[Path, typer.Option(help="The file to write, .npz: path_N and feature_ND.")],
) -> None:
    """Write a feature per video to one file."""
    from mgm.stages.apply import embed as compute

    say(compute(source, weights, out, how))


@app.command()
@grouped
def predict(
    how: PredictOptions,
    source: Source,
    weights: Weights,
    out: Annotated[Path, typer.Option(help="The file to write, .csv: a row per video.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class names: a folder that `mgm prepare` wrote, or a file with a name per line. "
            "Default: class 0, class 1 and so on."
        ),
    ] = None,
) -> None:
    """Write the class of each video, and its scores, to one file."""
    from mgm.stages.apply import predict as compute

    say(compute(source, weights, out, classes, how))


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(help="The folder of a pretraining or fine-tuning run.", metavar="RUN")
    ],
    to: Annotated[
        Literal["hf", "videomae", "onnx"],
        typer.Option(
            help="hf: Hugging Face's transformers; videomae: VideoMAE's official code; onnx: ONNX."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    index: Annotated[
        Path | None,
        typer.Option(help="hf: the dataset's folder that `mgm prepare` wrote, for class names."),
    ] = None,
    force: Force = False,
) -> None:
    """Write a run's weights in another format."""
    from mgm.stages.export import export as write

    say(write(run, to, out, index, force))


@app.command()
def flow(
    index: Annotated[
        Path,
        typer.Argument(help="A dataset's folder that `mgm prepare` wrote.", metavar="INDEX_DIR"),
    ],
    method: Annotated[
        Literal["raft-small", "dis"],
        typer.Option(help="raft-small: of torchvision, a network; dis: of OpenCV, without one."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A file with a state_dict of torchvision's raft_small; default: download it."
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(min=1, max=MOST_PROCESSES, help="Number of processes, with one thread each."),
    ] = 1,
) -> None:
    """Write the optical flow of a dataset's videos next to them.

    Masks can follow optical flow in place of motion vectors.
    """
    from mgm.stages.flow import flow as compute

    done = compute(index, method, weights, processes)
    say(f"flow of {done['videos']} videos by {method}: {index}/flow-{method}.json")


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A video file, a folder of videos, or a folder that `mgm prepare` wrote.",
            metavar="SOURCE",
        ),
    ],
    videos: Annotated[
        int | None,
        typer.Option(min=1, help="Folder: number of videos to decode, evenly spaced; default 100."),
    ] = None,
) -> None:
    """Print facts about a video or a dataset.

    They are codecs, durations, motion vectors, motion, and of a dataset what masks leave visible.
    """
    if path.is_dir():
        from mgm.stages.inspect import inspect_folder

        say(inspect_folder(path, videos or 100).describe())
        return
    if videos:
        raise UserError(f"{path}: is not a folder, and --videos is for folders; leave it out")

    from mgm.video.vectors import inspect_video

    say(inspect_video(path).describe())


@app.command()
def vectors(
    video: Annotated[
        Path, typer.Argument(help="A video file with motion vectors.", metavar="VIDEO")
    ],
    out: Annotated[
        Path,
        typer.Option(help="The file to write, .npz: vectors per cell of 8 x 8 pixels."),
    ],
) -> None:
    """Write all motion vectors of a video."""
    from mgm.video.vectors import write_vectors

    say(write_vectors(video, out))


@app.command()
def show(
    video: Annotated[
        Path,
        typer.Argument(
            help="A video file. --vectors and guided masks need its motion vectors.",
            metavar="VIDEO",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write: .png, or .gif for a moving picture.")
    ],
    masks: Annotated[
        str,
        typer.Option(
            help="Masks, separated by commas, such as mgm,tube; default: the six of Table 4e, or "
            "mgm in a moving picture."
        ),
    ] = "",
    ratio: Annotated[
        float | None,
        typer.Option(help="Share of patches to hide; default: as in training, 0.9 or 0.75."),
    ] = None,
    compensate: Annotated[
        Compensate, typer.Option(help="How guided masks subtract the camera's motion.")
    ] = "none",
    start: Annotated[
        int | None,
        typer.Option(min=0, help="First frame of the clip; default: the clip in the middle."),
    ] = None,
    stride: Annotated[
        int, typer.Option(min=0, help="Frames from one to the next of the clip; 0: up to 4.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the masks.")] = 0,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Draw consecutive frames and vectors without masks.")
    ] = False,
) -> None:
    """Draw a clip's frames, motion vectors and masks in one picture."""
    # A missing file is refused before PyTorch is imported, which takes seconds.
    video.stat()
    if vectors:
        from mgm.video.picture import show_vectors

        show_vectors(video, out, start)
    else:
        from mgm.stages.visualise import masks_to_show, show_moving
        from mgm.stages.visualise import show as compute
        from mgm.study.experiments import TABLE_4E

        moving = out.suffix == ".gif"
        names = [name for name in masks.split(",") if name] or (["mgm"] if moving else TABLE_4E)
        shown = masks_to_show(names, ratio, compensate)
        if moving:
            show_moving(video, out, shown, seed, start, stride)
        else:
            from mgm.report.figures import draw, style

            arrays = compute(video, shown, seed, start, stride)
            style.write(draw.masks_on_a_clip(arrays), out)
    say(f"wrote {out}")
