"""`mgm prepare`: a verb for own videos, one for each published dataset, and one for generated sets."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mgm.datasets.index import Index
from mgm.datasets.published import PUBLISHED, Published
from mgm.errors import UserError

prepare_app = typer.Typer(no_args_is_help=True, help="Make a dataset ready: check every video, write an index.")

Out = Annotated[Path, typer.Option(help="Folder to write the index to.")]
Transcode = Annotated[bool, typer.Option("--transcode", help="Write OUT/videos too: H.264 that gives random clips fast; index those.")]
Shards = Annotated[bool, typer.Option("--shards", help="Write OUT/shards too: frames as JPEG and the sources' vectors; index those.")]
Every = Annotated[int, typer.Option(min=1, help="Shards: keep every k-th frame; then clips start at multiples of k.")]
Quality = Annotated[int, typer.Option(help="Shards: of the JPEG frames.")]
ShortSide = Annotated[int | None, typer.Option(help="256 (default) or 320 pixels (shards: any); smaller videos stay as they are.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes that transcode or write shards; one a core unless given.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Transcode only the I-th of N parts of the videos; index later, without.")]


@prepare_app.command()
def folder(
    source: Annotated[Path, typer.Option(help="One folder per class, or a CSV path,label[,split][,group].")], out: Out,
    seed: Annotated[int, typer.Option(min=0, help="Of the 80/20 split that is made when the source has none.")] = 0,
    transcode: Transcode = False, shards: Shards = False, every: Every = 1, quality: Quality = 90,
        short_side: ShortSide = None, processes: Processes = None, shard: Shard = None,
) -> None:  # fmt: skip
    """Index your own videos."""
    from mgm.datasets.folder import index_folder

    _prepare(partial(index_folder, source, seed=seed), out, transcode, shards, every, quality, short_side, processes, shard)


def _downloaded(dataset: Published) -> Callable[..., None]:
    """The verb of a dataset that is indexed as its users downloaded it."""

    def verb(
        source: Annotated[Path, typer.Option(help=f"The folder that holds {dataset.source}.")], out: Out,
        split: Annotated[int, typer.Option(min=1, max=dataset.splits, help="The official split; the paper's is 1.")] = 1,
        transcode: Transcode = False, shards: Shards = False, every: Every = 1, quality: Quality = 90,
        short_side: ShortSide = None, processes: Processes = None, shard: Shard = None,
    ) -> None:  # fmt: skip
        options = {"split": split} if dataset.splits > 1 else {}
        _prepare(partial(dataset.index, source, **options), out, transcode, shards, every, quality, short_side, processes, shard)

    return verb if dataset.splits > 1 else _without(verb, "split")


def _derived(dataset: Published) -> Callable[..., None]:
    """The verb of a dataset that is made of the indices of one or two others."""
    first, *others = dataset.derived_from

    def verb(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")],
        target: Annotated[Path, typer.Option(help=f"The folder of the index of {''.join(others)}, to test on.")],
        out: Out,
    ) -> None:
        from mgm.datasets.prepare import summary

        typer.echo(summary(dataset.index(source, target, out)))

    def of_one(source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")], out: Out) -> None:
        from mgm.datasets.prepare import summary

        typer.echo(summary(dataset.index(source, out)))

    return verb if others else of_one


def _without(verb: Callable[..., None], parameter: str) -> Callable[..., None]:
    """Hide a parameter, which then keeps its default, from the command line."""
    signature = inspect.signature(verb)
    shown = [known for known in signature.parameters.values() if known.name != parameter]
    verb.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return verb


for _dataset in PUBLISHED.values():
    _make = _derived if _dataset.derived_from else _downloaded
    prepare_app.command(_dataset.name, help=f"Index {_dataset.title}.")(_make(_dataset))


@prepare_app.command()
def synthetic(
    params: Annotated[Path, typer.Option(help="A JSON file with the generator's parameters; {} for its defaults.")],
    out: Annotated[Path, typer.Option(help="Folder to draw the videos into.")],
    processes: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 2,
) -> None:
    """Draw a set of videos whose classes are motions."""
    from mgm.datasets.prepare import read_params, summary
    from mgm.datasets.synthetic.make import generate  # PyAV

    typer.echo(summary(generate(read_params(params), out, processes)))


def _prepare(
    make: Callable[[Path], Index], out: Path, transcode: bool, shards: bool, every: int, quality: int, short_side: int | None,
    processes: int | None, shard: str | None,
) -> None:  # fmt: skip
    from mgm.datasets.prepare import prepare_shards, prepare_transcoded, summary

    if shards:
        from mgm.datasets.shards import Settings

        files = partial(prepare_transcoded, make, short_side=short_side or 256, processes=processes) if transcode else make
        typer.echo(summary(prepare_shards(files, out, Settings(short_side or 256, every, quality), processes, shard)))
    elif transcode:
        typer.echo(summary(prepare_transcoded(make, out, short_side or 256, processes, shard)))
    elif given := [name for name, value in (("short-side", short_side), ("processes", processes), ("shard", shard)) if value is not None]:
        raise UserError(f"--{given[0]} says how to transcode, and --transcode is not given; add it, or leave out --{given[0]}")
    else:
        typer.echo(summary(make(out)))
