"""Commands for videos and weights: features, predictions, exports, tracks, pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from mgm.cli.base import app, grouped
from mgm.console import say
from mgm.errors import MOST_PROCESSES, UserError
from mgm.spec import ApplyOptions, FrozenModel, Method, PredictOptions

SOURCE = "A video, a folder of videos, or a folder that `mgm prepare` wrote."
Source = Annotated[Path, typer.Argument(help=SOURCE, metavar="SOURCE")]
Video = Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")]
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
            help="Class names: a folder that `mgm prepare` wrote, or a file with a name per line. "
            "Default: class 0, class 1 and so on."
        ),
    ] = None,
) -> None:
    """Write the class of each video, and its scores, to one file."""
    from mgm.stages.apply import predict as compute

    say(compute(source, weights, out, classes, options))


class ExportOptions(FrozenModel):
    """How `mgm export` writes."""

    to: Literal["hf", "videomae"] = Field(
        description="hf: Hugging Face's transformers; videomae: VideoMAE's official code."
    )
    out: Path = Field(description="Folder to write to.")
    force: bool = Field(False, description="Replace files that no such command wrote.")


@app.command()
@grouped
def export(
    options: ExportOptions,
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder of a pretraining or fine-tuning run, or weights in another format.",
            metavar="WEIGHTS",
        ),
    ],
) -> None:
    """Write weights in another format."""
    from mgm.stages.export import export as write

    say(write(source, options.to, options.out, options.force))


class TrackOptions(FrozenModel):
    """How `mgm track` computes."""

    method: Method = Field(
        "codec",
        description="codec: the files' own motion vectors; raft-small: optical flow by a network "
        "of torchvision; dis: optical flow by OpenCV.",
    )
    weights: Path | None = Field(
        None, description="A state_dict of torchvision's raft_small; default: download it."
    )
    processes: int = Field(
        1, ge=1, le=MOST_PROCESSES, description="Number of processes, with one thread each."
    )


@app.command()
@grouped
def track(
    options: TrackOptions,
    index: Annotated[
        Path, typer.Argument(help="A folder that `mgm prepare` wrote.", metavar="INDEX_DIR")
    ],
) -> None:
    """Write the motion of a dataset's videos, which masks follow.

    It is their motion vectors, or optical flow.
    """
    from mgm.data.tracks import marker_of, write_tracks

    method = options.method
    done = write_tracks(index, method, options.weights, options.processes)
    say(f"tracks of {done['videos']} videos by {method}: {marker_of(index, method)}")


@app.command()
def inspect(
    path: Source,
    videos: Annotated[
        int | None,
        typer.Option(min=1, help="Folder: number of videos to decode, evenly spaced; default 100."),
    ] = None,
) -> None:
    """Print facts about a video or a dataset.

    They are codecs, durations, motion vectors and motion. Of a dataset they are also what masks
    leave visible.
    """
    if path.is_dir():
        from mgm.stages.inspect import inspect_folder

        say(inspect_folder(path, videos or 100))
        return
    if videos:
        raise UserError(f"{path}: is not a folder, and --videos is for folders; leave it out")

    from mgm.video.vectors import inspect_video

    say(inspect_video(path).describe())


@app.command()
def vectors(
    video: Video,
    out: Annotated[
        Path, typer.Option(help="The file to write, .npz: vectors per cell of 8 x 8 pixels.")
    ],
) -> None:
    """Write all motion vectors of a video."""
    from mgm.video.vectors import write_vectors

    say(write_vectors(video, out))


class ShowOptions(FrozenModel):
    """What `mgm show` draws."""

    out: Path = Field(
        Path("show.gif"), description="The picture to write: .gif, or .png of one frame."
    )
    masks: str = Field("block,tube,mgm", description="Masks, separated by commas.")
    ratio: float | None = Field(
        None, gt=0, lt=1, description="Share that is hidden; default: as in each mask's paper."
    )
    start: int | None = Field(
        None, ge=0, description="First frame of the clip; default: the clip in the middle."
    )
    stride: int = Field(0, ge=0, description="Frames from one to the next; 0: up to 2.")
    seed: int = Field(0, ge=0, description="Seed of the masks.")


@app.command()
@grouped
def show(options: ShowOptions, video: Video) -> None:
    """Draw a video, its motion vectors and what masks hide.

    What stays visible is printed. Without motion vectors, only unguided masks are drawn.
    """
    # Refuse these before PyTorch is imported, which takes seconds.
    if options.out.suffix not in (".gif", ".png"):
        raise UserError(f"{options.out}: the picture is a .gif, or a .png of one frame; name it so")
    video.stat()
    from mgm.stages.show import show as arrays_of

    names = [name for name in options.masks.split(",") if name]
    # Before the arrays are computed, since it needs another extra.
    from mgm.report.figures.moving import write_moving

    arrays, lines = arrays_of(video, names, **options.model_dump(exclude={"out", "masks"}))
    write_moving(arrays, options.out)
    say("\n".join(lines))
    say(f"wrote {options.out}; next: mgm prepare folder --source VIDEOS --out data/mine")
