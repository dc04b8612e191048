"""`mgm prepare`: a command for own videos, one per published dataset, and one for generated sets.

The functions above the commands print nothing; `summary` is what a user is shown.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from mgm.console import say
from mgm.data.index import SPLITS, Index, read_index
from mgm.data.opening import PreparedPart
from mgm.data.published import index_published
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError, require_few
from mgm.reading import read_json
from mgm.results.lock import folder_lock
from mgm.results.outputs import require_own
from mgm.spec import PUBLISHED, Published

# Files left out that are shown. A set of 240,000 videos may lack thousands.
SHOWN = 20


def prepare_copies(
    make: Callable[[Path], Index | PreparedPart],
    out: Path,
    copy: Callable[..., Index | PreparedPart],
    shard: str | None = None,
) -> Index | PreparedPart:
    """Index the sources in OUT/source, and write copies of them.

    Args:
        make: writes the index of the sources to a folder. With both `--transcode` and `--shards` it
            transcodes first, so that videos of any codec have motion vectors.
        copy: `transcode` or `write_shards`, with its settings.
        shard: I/N, to write one part. Then the index of the sources must exist already. If each
            part made it, every video would be opened N times.
    """
    if shard is not None:
        return copy(read_index(out / "source"), out, part=read_shard(shard))
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        make(out / "source")
        whole = copy(read_index(out / "source"), out)
        # The index's note mentions missing.txt.
        if (out / "source" / "missing.txt").is_file():
            shutil.copyfile(out / "source" / "missing.txt", out / "missing.txt")
    return whole


def _require_own_index(out: Path, force: bool) -> None:
    """Check that the index in `out` may be replaced: it is whole, or mgm wrote its files."""
    try:
        read_index(out)
    except UserError:
        names = ("index.csv", "index.json", "croissant.json")
        require_own(*(out / name for name in names), force=force)


def read_shard(text: str) -> tuple[int, int]:
    """Return the two numbers of I/N.

    Raises:
        UserError: the text has another form, or I is not from 1 to N.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(
            f"--shard {text!r} is not I/N with I from 1 to N; the second of eight shards is 2/8"
        )
    return int(number), int(of)


def read_params(path: Path) -> Synthetic:
    """Read parameters from a JSON file. Those that the file lacks have their defaults."""
    try:
        return parse_params(read_json(path), str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; write the parameters there, for example "
            f"{Synthetic().model_dump_json()}"
        ) from None


def summary(index: Index | PreparedPart) -> str:
    """Return a few lines about an index or a part, for the terminal.

    For an index: the number of videos per split and class, where the split comes from, and which
    files were left out, with the reasons. For a part: the number of videos, and the files left out.
    """
    if isinstance(index, PreparedPart):
        total = index.videos + len(index.failed)
        return "\n".join(
            [
                f"part {index.number} of {index.of}: {index.videos:,} of {total:,} videos are done",
                *_left_out(index.failed),
            ]
        )
    labels_of = {video.path: video.labels or (video.label,) for video in index.videos}
    there = {label for labels in labels_of.values() for label in labels}
    width = max(len(index.classes[label]) for label in there)
    lines = [
        f"{len(index.videos)} videos of {len(index.classes)} classes in {index.root}, digest "
        f"{index.digest}",
        *re.split(r"; (?![^(]*\))", index.note),
    ]
    lines += [f"{'':{width}}  " + "  ".join(f"{split:>6}" for split in SPLITS)]
    count = Counter(
        (label, video.split) for video in index.videos for label in labels_of[video.path]
    )
    for label in sorted(there):
        counts = [count[label, split] for split in SPLITS]
        lines.append(
            f"{index.classes[label]:{width}}  " + "  ".join(f"{number:>6}" for number in counts)
        )
    if absent := len(index.classes) - len(there):
        lines.append(f"classes without videos: {absent}")
    if still := sum(not video.has_vectors for video in index.videos):
        codecs = ", ".join(sorted({video.codec for video in index.videos if not video.has_vectors}))
        lines.append(
            f"{still} videos have no motion vectors ({codecs}): masks that follow motion need "
            "their optical flow (`mgm flow`)"
        )
    return "\n".join([*lines, *_left_out(index.excluded)])


def _left_out(excluded: Sequence[tuple[str, str]]) -> list[str]:
    if not excluded:
        return []
    lines = [
        f"{len(excluded)} files left out:",
        *(f"  {name}: {reason}" for name, reason in excluded[:SHOWN]),
    ]
    if (more := len(excluded) - SHOWN) > 0:
        lines.append(f"  and {more:,} more; index.json lists all")
    return lines


prepare_app = typer.Typer(
    no_args_is_help=True, help="Make a dataset ready: check every video, write an index."
)


def few(option: str) -> Callable[[int | None], int | None]:
    """Return a callback that refuses more processes or threads than a machine can start."""

    def check(count: int | None) -> int | None:
        return require_few(option, count)

    return check


Out = Annotated[Path, typer.Option(help="Folder to write the index to.")]
Force = Annotated[
    bool, typer.Option("--force", help="Replace index files that `mgm prepare` did not write.")
]


@dataclass(frozen=True)
class CopyOptions:
    """How the videos are copied. Every field is an option of `mgm prepare DATASET`."""

    transcode: Annotated[
        bool,
        typer.Option(
            "--transcode",
            help="Write OUT/videos too: H.264 that is fast to read at random; index those.",
        ),
    ] = False
    shards: Annotated[
        bool,
        typer.Option(
            "--shards",
            help="Write OUT/shards too: frames as JPEG and the sources' vectors; index those.",
        ),
    ] = False
    every: Annotated[
        int,
        typer.Option(
            min=1, help="Shards: keep every k-th frame; then clips start at multiples of k."
        ),
    ] = 1
    quality: Annotated[int, typer.Option(help="Shards: JPEG quality of the frames.")] = 90
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Pixels: 256 (default) or 320; shards: any. Smaller videos keep their size."
        ),
    ] = None
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=few("--processes"),
            help="Processes that transcode or write shards; default: one per core.",
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Do only the I-th of N parts of the videos; index later, without it.",
        ),
    ] = None
    force: Force = False

    def copies(self) -> list[Callable[..., Any]]:
        """Return what writes each copy, transcoded files before shards.

        Raises:
            UserError: an option of copies is given, and no copy is asked for.
        """
        from mgm.data.opening import cores

        side, processes = self.short_side or 256, self.processes or cores()
        made: list[Callable[..., Any]] = []
        if self.transcode:
            from mgm.data.transcode import transcode

            made.append(partial(transcode, short_side=side, processes=processes))
        if self.shards:
            from mgm.data.shards import Settings, write_shards

            settings = Settings(side, self.every, self.quality)
            made.append(partial(write_shards, settings=settings, processes=processes))
        given = {"short-side": self.short_side, "processes": self.processes, "shard": self.shard}
        if not made and (idle := [name for name, value in given.items() if value is not None]):
            raise UserError(
                f"--{idle[0]} is for --transcode or --shards, and neither is given; add one, or "
                f"leave out --{idle[0]}"
            )
        return made


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _command(index: Callable[..., Index], holds: str, *own: Parameter) -> Callable[..., None]:
    """Return the command that indexes a dataset, and writes copies if asked.

    Args:
        index: writes the index, given (source, out) and the options in `own`.
        holds: what `--source` must hold.
        own: further options of this dataset.
    """

    def command(source: Path, out: Path, **given: Any) -> None:
        make: Callable[..., Any] = partial(
            index, source, **{p.name: given.pop(p.name) for p in own}
        )
        options = CopyOptions(**given)
        copies = options.copies()
        _require_own_index(out, options.force)
        for copy in copies[:-1]:
            make = partial(prepare_copies, make, copy=copy)
        whole = prepare_copies(make, out, copies[-1], options.shard) if copies else make(out)
        say(summary(whole))

    shown = [
        _parameter("source", Annotated[Path, typer.Option(help=holds)]),
        _parameter("out", Out),
    ]
    shown += own
    shown += [_parameter(field.name, field.type, field.default) for field in fields(CopyOptions)]
    command.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    return command


def _folder(source: Path, out: Path, seed: int, groups: str) -> Index:
    from mgm.data.folder import index_folder

    return index_folder(source, out, seed, groups)


def _derived(dataset: Published) -> Callable[..., None]:
    """Return the command of a dataset that is made from the indices of one or two others."""
    first, *others = dataset.derived_from

    def of_two(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")],
        target: Annotated[
            Path, typer.Option(help=f"The folder of the index of {''.join(others)}, to test on.")
        ],
        out: Out,
        force: Force = False,
    ) -> None:
        _require_own_index(out, force)
        say(summary(index_published(dataset.name, source, target, out)))

    def of_one(
        source: Annotated[Path, typer.Option(help=f"The folder of the index of {first}.")],
        out: Out,
        force: Force = False,
    ) -> None:
        _require_own_index(out, force)
        say(summary(index_published(dataset.name, source, out)))

    return of_two if others else of_one


def _lerobot(source: Path, out: Path, seed: int, camera: str) -> Index:
    from mgm.data.lerobot import index_lerobot

    return index_lerobot(source, out, seed, camera)


SEED = Annotated[
    int, typer.Option(min=0, help="Seed of the 80/20 split that is drawn if the source has none.")
]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise typer.BadParameter(f"{text!r} is not a regular expression: {error}") from None
    return text


GROUPS = Annotated[
    str,
    typer.Option(
        metavar="REGEX",
        callback=_pattern,
        help="What marks a recording or a person in a file's path; such files stay on one side of "
        "the split. Default: marks such as g01, s01, person01 or Scene-001; '.+': none.",
    ),
]
prepare_app.command("folder", help="Index your own videos.")(
    _command(
        _folder,
        "One folder per class, or a CSV path,label[,split][,group]. Several labels per video: "
        "a column labels in place of label.",
        _parameter("seed", SEED, 0),
        _parameter("groups", GROUPS, ""),
    )
)
CAMERA = Annotated[str, typer.Option(help="Key of the camera; default: the first of the dataset.")]
prepare_app.command("lerobot", help="Cut the episodes of a LeRobot dataset (v3), as H.264.")(
    _command(
        _lerobot,
        "A dataset of LeRobot v3: a folder with meta and videos.",
        _parameter("seed", SEED, 0),
        _parameter("camera", CAMERA, ""),
    )
)


def _splits(dataset: Published) -> list[Parameter]:
    """Return the option `--split` of a dataset with several official splits."""
    help_text = "The official split; the paper's is 1."
    option = typer.Option(min=1, max=dataset.splits, help=help_text)
    return [_parameter("split", Annotated[int, option], 1)] if dataset.splits > 1 else []


for _dataset in PUBLISHED.values():
    prepare_app.command(_dataset.name, help=f"Index {_dataset.about or _dataset.title}.")(
        _derived(_dataset)
        if _dataset.derived_from
        else _command(
            partial(index_published, _dataset.name),
            f"The folder that holds {_dataset.source}.",
            *_splits(_dataset),
        )
    )


@prepare_app.command()
def synthetic(
    params: Annotated[
        Path, typer.Option(help="A JSON file with the generator's parameters; {} for its defaults.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to draw the videos into.")],
    processes: Annotated[
        int, typer.Option(min=1, callback=few("--processes"), help="Processes that draw.")
    ] = 2,
    force: Force = False,
) -> None:
    """Draw a set of videos whose classes are motions."""
    from mgm.data.synthetic.generator import generate  # PyAV

    _require_own_index(out, force)
    say(summary(generate(read_params(params), out, processes)))
