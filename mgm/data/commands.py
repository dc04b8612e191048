"""`mgm prepare`:

a verb for own videos, one for each published dataset, and one for generated sets.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mgm.console import say
from mgm.data.index import Index
from mgm.data.published import PUBLISHED, Published
from mgm.errors import UserError, require_few

prepare_app = typer.Typer(
    no_args_is_help=True, help="Make a dataset ready: check every video, write an index."
)


def few(option: str) -> Callable[[int | None], int | None]:
    """Return a callback that refuses more processes or threads than a machine can start."""

    def check(count: int | None) -> int | None:
        return require_few(option, count)

    return check


Out = Annotated[Path, typer.Option(help="Folder to write the index to.")]
Transcode = Annotated[
    bool,
    typer.Option(
        "--transcode", help="Write OUT/videos too: H.264 that gives random clips fast; index those."
    ),
]
Shards = Annotated[
    bool,
    typer.Option(
        "--shards",
        help="Write OUT/shards too: frames as JPEG and the sources' vectors; index those.",
    ),
]
Every = Annotated[
    int,
    typer.Option(min=1, help="Shards: keep every k-th frame; then clips start at multiples of k."),
]
Quality = Annotated[int, typer.Option(help="Shards: of the JPEG frames.")]
ShortSide = Annotated[
    int | None,
    typer.Option(
        help="256 (default) or 320 pixels (shards: any); smaller videos stay as they are."
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=few("--processes"),
        help="Processes that transcode or write shards; one a core unless given.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Transcode only the I-th of N parts of the videos; index later, without.",
    ),
]


def _indexed(
    index: Callable[..., Index], holds: str, own: str = "", splits: int = 1
) -> Callable[..., None]:
    """The verb of a dataset that is indexed as its users have it, and copied if asked to;

    `own`: the option that it alone has.
    """

    def verb(
        source: Annotated[Path, typer.Option(help=holds)],
        out: Out,
        split: Annotated[
            int, typer.Option(min=1, max=splits, help="The official split; the paper's is 1.")
        ] = 1,
        seed: Annotated[
            int,
            typer.Option(min=0, help="Of the 80/20 split that is made when the source has none."),
        ] = 0,
        transcode: Transcode = False,
        shards: Shards = False,
        every: Every = 1,
        quality: Quality = 90,
        short_side: ShortSide = None,
        processes: Processes = None,
        shard: Shard = None,
    ) -> None:
        from mgm.data.files import cores
        from mgm.data.prepare import prepare_copies, summary

        chosen = {name: value for name, value in (("split", split), ("seed", seed)) if name == own}
        make: Callable[..., Any] = partial(index, source, **chosen)
        side, workers = short_side or 256, processes or cores()
        copies: list[Callable[..., Any]] = []
        if transcode:
            from mgm.data.transcode import transcode as write_videos  # PyAV

            copies.append(partial(write_videos, short_side=side, processes=workers))
        if shards:
            from mgm.data.shards import Settings, write_shards

            copies.append(
                partial(write_shards, settings=Settings(side, every, quality), processes=workers)
            )
        given = {"short-side": short_side, "processes": processes, "shard": shard}
        if not copies and (idle := [name for name, value in given.items() if value is not None]):
            raise UserError(
                f"--{idle[0]} says how to transcode, and --transcode is not given; add it, or leave out --{idle[0]}"
            )
        for copy in copies[:-1]:
            make = partial(prepare_copies, make, copy=copy)
        say(summary(prepare_copies(make, out, copies[-1], shard) if copies else make(out)))

    signature = inspect.signature(verb)
    hidden = {"split", "seed"} - {own}  # these keep their defaults
    shown = [known for known in signature.parameters.values() if known.name not in hidden]
    verb.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return verb


def _folder(source: Path, out: Path, seed: int) -> Index:
    from mgm.data.folder import index_folder

    return index_folder(source, out, seed)


def _derived(dataset: Published) -> Callable[..., None]:
    """The verb of a dataset that is made of the indices of one or two others."""
    first, *others = dataset.derived_from

    def verb(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")],
        target: Annotated[
            Path, typer.Option(help=f"The folder of the index of {''.join(others)}, to test on.")
        ],
        out: Out,
    ) -> None:
        from mgm.data.prepare import summary

        say(summary(dataset.index(source, target, out)))

    def of_one(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")], out: Out
    ) -> None:
        from mgm.data.prepare import summary

        say(summary(dataset.index(source, out)))

    return verb if others else of_one


prepare_app.command("folder", help="Index your own videos.")(
    _indexed(_folder, "One folder per class, or a CSV path,label[,split][,group].", own="seed")
)
for _dataset in PUBLISHED.values():
    if _dataset.derived_from:
        _verb = _derived(_dataset)
    else:
        _own = "split" if _dataset.splits > 1 else ""
        _verb = _indexed(
            _dataset.index, f"The folder that holds {_dataset.source}.", _own, _dataset.splits
        )
    prepare_app.command(_dataset.name, help=f"Index {_dataset.title}.")(_verb)


@prepare_app.command()
def synthetic(
    params: Annotated[
        Path, typer.Option(help="A JSON file with the generator's parameters; {} for its defaults.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to draw the videos into.")],
    processes: Annotated[
        int, typer.Option(min=1, callback=few("--processes"), help="Processes that draw.")
    ] = 2,
) -> None:
    """Draw a set of videos whose classes are motions."""
    from mgm.data.prepare import read_params, summary
    from mgm.data.synthetic.make import generate  # PyAV

    say(summary(generate(read_params(params), out, processes)))
