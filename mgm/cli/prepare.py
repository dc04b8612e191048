"""The commands that make a dataset ready: `mgm prepare` and `mgm track`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mgm.cli.base import app
from mgm.console import say, show
from mgm.data.index import DEFAULTS
from mgm.errors import UserError, nearest
from mgm.files import read_json
from mgm.spec import PUBLISHED, SHARED, Flow

DATASETS = ("folder", "drawn", SHARED, *PUBLISHED)
# The options of each kind of dataset, besides those that all have.
WRITTEN = ("processes", "check", "prune")
LISTED = ("source", "test", "first", "short_side", "quality", *WRITTEN)
TAKEN: dict[str, tuple[str, ...]] = {
    "drawn": ("params", *WRITTEN),
    "derived": ("source", "target"),
    "folder": LISTED,
    "published": (*LISTED, "split"),
}
Processes = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Worker processes. Default: one per core.")
]


@app.command()
def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="folder: your own videos. drawn: generated ones. shared: one prepared set to "
            "train on, and the classes of another with the same names to test on. Or a published "
            f"one: {', '.join(PUBLISHED)}.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write videos, tracks and index to.")],
    source: Annotated[
        Path | None,
        typer.Option(
            help="The videos. folder: class folders, a flat folder, lists of `path label`, or a "
            "table path[,label][,split][,group]. Published: a folder with the official files. "
            "Derived sets: the prepared set that they are made of."
        ),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Domain adaptation: the prepared set to test on.")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="drawn: a JSON file with the generator's parameters.")
    ] = None,
    split: Annotated[
        int, typer.Option(min=1, max=3, help="ucf101, hmdb51: the official split.")
    ] = 1,
    short_side: Annotated[
        int, typer.Option(min=16, max=4096, help="Most pixels of a video's short side.")
    ] = DEFAULTS["short_side"],
    quality: Annotated[
        int, typer.Option(min=2, max=31, help="Of JPEG: 2 is the best and largest.")
    ] = DEFAULTS["quality"],
    processes: Processes = None,
    test: Annotated[
        str, typer.Option(help="The split to test on: test or val. Default: test, or else val.")
    ] = "",
    first: Annotated[
        bool, typer.Option("--first", help="Of a video that is listed twice, keep the first row.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read all that was written, and write anew what is damaged."),
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files of videos that left the set.")
    ] = False,
) -> None:
    """Decode each video once, and write what training reads. Run it again to continue."""
    from mgm.data.prepare import list_drawn, summary
    from mgm.data.prepare import prepare as write

    if dataset not in DATASETS:
        raise UserError(f"{dataset}: no such dataset; {nearest(dataset, DATASETS)}")
    derived = dataset == SHARED or (dataset in PUBLISHED and PUBLISHED[dataset].derived_from)
    kind = "derived" if derived else "published" if dataset in PUBLISHED else dataset
    given: dict[str, object] = {"params": params, "source": source, "target": target}
    given |= {"split": split > 1, "test": test, "first": first}
    given |= {"check": check, "prune": prune, "processes": processes}
    written = {"short_side": short_side, "quality": quality}
    given |= {name: value != DEFAULTS[name] for name, value in written.items()}
    for name, value in given.items():
        if value and name not in TAKEN[kind]:
            raise UserError(f"{dataset}: takes no --{name.replace('_', '-')}")
    if dataset != "drawn" and source is None:
        raise UserError(f"{dataset}: needs --source, the folder of the videos")
    if test not in ("", "test", "val"):
        raise UserError(f"--test {test}: choose test or val")
    drawn = None
    if source is None:
        from mgm.drawn.params import parse_params

        drawn = parse_params(read_json(params) if params else {}, str(params or "drawn"))
        listing = list_drawn(drawn)
    elif dataset == "folder":
        from mgm.data.folder import list_folder

        listing = list_folder(source, test, first)
    elif derived:
        from mgm.data.published import derive

        say(summary(derive(dataset, source, target, out)))
        return
    else:
        from mgm.data.published import list_published

        listing = list_published(dataset, source, split, test, first)
    with _kept(out):
        say(summary(write(listing, out, short_side, quality, processes, drawn, check, prune)))


@app.command()
def track(
    folder: Annotated[
        Path, typer.Argument(help="A folder that `mgm prepare` wrote.", metavar="FOLDER")
    ],
    method: Annotated[
        Flow,
        typer.Option(help="raft-small: RAFT-small of torchvision; dis: OpenCV's, with no weights."),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="A state_dict of torchvision's raft_small; default: download it."),
    ] = None,
    processes: Processes = None,
) -> None:
    """Write the optical flow of a dataset's videos, which masks may follow."""
    from mgm.data.prepare import write_tracks

    with _kept(folder):
        write_tracks(folder, method, weights, processes)
    say(f"{folder}: {method} tracks of all videos are there")


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say after Ctrl-C what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        show(f"{folder}: stopped; what is done is kept, and the same command continues")
        raise
