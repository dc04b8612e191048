"""`mgm prepare`: a command for own videos, one per published dataset, one for generated sets."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field

from mgm.cli.base import grouped
from mgm.console import say
from mgm.data.prepare import prepare_copies, prepare_tracks, read_params, require_own_index, summary
from mgm.data.published import index_published
from mgm.errors import MOST_PROCESSES, UserError
from mgm.spec import PUBLISHED, FrozenModel, Method, Published

SHOWN = 20  # videos whose visible shares are measured

prepare_app = typer.Typer(
    no_args_is_help=True, help="Make a dataset ready: check every video, write an index."
)
Out = Annotated[Path, typer.Option(help="Folder to write the index to.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the 80/20 split that is drawn if the source has none.")
]


class CopyOptions(FrozenModel):
    """What `mgm prepare DATASET` writes besides the index. Every field is an option."""

    motion: Literal[Method, "none"] = Field(
        "codec",
        description="codec: write OUT/tracks too, the motion vectors and times of every video, "
        "which masks follow; dis, raft-small: tracks of optical flow besides; none: only the "
        "index.",
    )
    copy_as: Annotated[
        Literal["mp4"] | None,
        typer.Option(
            "--copy",
            help="Write OUT/videos too, H.264 that is fast to read at random, and index those. "
            "Their tracks have the sources' own vectors.",
        ),
    ] = None
    short_side: int | None = Field(
        None,
        ge=64,
        le=4096,
        description="Copies: their short side in pixels, 256 by default; never enlarged.",
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=MOST_PROCESSES,
        description="Processes that write tracks and copies; default: one per core.",
    )


def _prepare(make: Callable[..., Any], out: Path, how: CopyOptions) -> None:
    """Index a dataset, write copies if asked, and print the summary.

    Args:
        make: writes the index to the folder that it is given.

    Raises:
        UserError: an option of copies is given, and no copy is asked for.
    """
    if how.short_side and not how.copy_as:
        raise UserError("--short-side is for --copy, which is not given; add it, or leave it out")
    if how.motion == "none" and how.copy_as:
        raise UserError("--copy writes tracks too; leave --motion none out")
    require_own_index(out)
    from mgm.data.opening import cores

    processes = how.processes or cores()
    if how.copy_as:
        from mgm.data.copies import copy_videos

        copy = partial(copy_videos, short_side=how.short_side or 256, processes=processes)
        index = prepare_copies(make, out, copy)
    else:
        index = make(out) if how.motion == "none" else prepare_tracks(make, out, processes)
    if how.motion == "dis" or how.motion == "raft-small":
        from mgm.data.tracks import write_tracks

        write_tracks(out, how.motion, processes=processes)
    say(summary(index))

    from mgm.data.index import spread
    from mgm.stages.inspect import interlaced_lines, visible_lines

    videos = spread(index.train, SHOWN)
    for line in (*interlaced_lines(videos, out), *visible_lines(videos)):
        say(line)


@prepare_app.command()
@grouped
def folder(
    how: CopyOptions,
    source: Annotated[
        Path,
        typer.Option(help="One folder per class, or a CSV path,label[,split][,group]."),
    ],
    out: Out,
    seed: Seed = 0,
    groups: Annotated[
        str,
        typer.Option(
            metavar="REGEX",
            help="What marks a recording or a person in a file's path, such as 'g[0-9]+'. Files "
            "of a group stay on one side of the split.",
        ),
    ] = "",
) -> None:
    """Index your own videos."""
    from mgm.data.folder import index_folder

    _prepare(partial(index_folder, source, seed=seed, groups=groups), out, how)


def _published(dataset: Published) -> Callable[..., None]:
    """Return the command of a dataset that is read as it is published."""

    def index(
        how: CopyOptions,
        source: Annotated[Path, typer.Option(help=f"The folder that holds {dataset.source}.")],
        out: Out,
        split: Annotated[
            int,
            typer.Option(
                min=1, max=len(dataset.splits), help="The official split; the paper's is 1."
            ),
        ] = 1,
    ) -> None:
        options = {"split": split} if dataset.later else {}
        _prepare(partial(index_published, dataset.name, source, **options), out, how)

    return grouped(index, () if dataset.later else ("split",))


def _derived(dataset: Published) -> Callable[..., None]:
    """Return the command of a dataset that is made from the indices of one or two others."""
    first, *others = dataset.derived_from

    def index(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")],
        target: Annotated[
            Path, typer.Option(help=f"The folder of the index of {''.join(others)}, to test on.")
        ],
        out: Out,
    ) -> None:
        require_own_index(out)
        folders = [source, target] if others else [source]
        say(summary(index_published(dataset.name, *folders, out)))

    return index if others else grouped(partial(index, target=Path()), ("target",))


for _dataset in PUBLISHED.values():
    prepare_app.command(_dataset.name, help=f"Index {_dataset.about or _dataset.title}.")(
        (_derived if _dataset.derived_from else _published)(_dataset)
    )


def _installed(reader: EntryPoint) -> Callable[..., None]:
    """Return the command of a dataset whose reader an installed package brings."""

    def index(
        how: CopyOptions,
        source: Annotated[Path, typer.Option(help="What the reader expects.")],
        out: Out,
    ) -> None:
        _prepare(partial(reader.load(), source), out, how)

    return grouped(index)


for _reader in entry_points(group="mgm.datasets"):
    prepare_app.command(_reader.name, help=f"Index a dataset, read by {_reader.value}.")(
        _installed(_reader)
    )


@prepare_app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder to draw the videos into.")],
    params: Annotated[
        Path | None, typer.Option(help="A JSON file with the generator's parameters.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter, such as layout=people. Repeat."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Processes that draw.")
    ] = 2,
) -> None:
    """Draw a set of videos whose classes are motions."""
    from mgm.data.synthetic.generator import generate

    require_own_index(out)
    say(summary(generate(read_params(params, changes or []), out, processes)))
