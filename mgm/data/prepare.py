"""What `mgm prepare` does. These functions print nothing; `summary` is what a user is shown."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mgm.data.files import Part
from mgm.data.index import SPLITS, Index, read_index
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.lock import folder_lock

SHOWN = 20  # of the files left out; a set of 240,000 may lack thousands


def prepare_copies(
    make: Callable[[Path], Index | Part],
    out: Path,
    copy: Callable[..., Index | Part],
    shard: str | None = None,
) -> Index | Part:
    """`mgm prepare DATASET --transcode` or `--shards`, with `--shard I/N`: `copy` is `transcode` or
    `write_shards`, given its settings.

    `make` is given OUT/source and makes the index of the sources there; with a shard it must be
    there already: if each made it, every video would be opened once a shard. With both options
    `make` transcodes: videos of a codec without motion vectors then have them.
    """
    if shard is not None:
        return copy(read_index(out / "source"), out, part=read_shard(shard))
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        make(out / "source")
        whole = copy(read_index(out / "source"), out)
        if (out / "source" / "missing.txt").is_file():  # the note speaks of it
            shutil.copyfile(out / "source" / "missing.txt", out / "missing.txt")
    return whole


def read_shard(text: str) -> tuple[int, int]:
    """I/N as numbers.

    Raises:
        UserError: it is not of that form, with 1 <= I <= N.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(
            f"--shard {text!r} is not I/N with I from 1 to N; the second of eight shards is 2/8"
        )
    return int(number), int(of)


def read_params(path: Path) -> Synthetic:
    """The parameters that a JSON file holds; those it does not name have their defaults."""
    try:
        return parse_params(read_json(path), str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; write the parameters there, for example {Synthetic().model_dump_json()}"
        ) from None


def summary(index: Index | Part) -> str:
    """A few lines to read:

    videos per split and class, how they were split, and what was left out and why. Of a part, only
    the last.
    """
    if isinstance(index, Part):
        total = index.videos + len(index.failed)
        return "\n".join(
            [
                f"part {index.number} of {index.of}: {index.videos:,} of {total:,} videos are done",
                *_left_out(index.failed),
            ]
        )
    there = {video.label for video in index.videos}
    width = max(len(index.classes[label]) for label in there)
    lines = [
        f"{len(index.videos)} videos of {len(index.classes)} classes in {index.root}, digest {index.digest}",
        index.note,
    ]
    lines += [f"{'':{width}}  " + "  ".join(f"{split:>6}" for split in SPLITS)]
    count = Counter((video.label, video.split) for video in index.videos)
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
            f"{still} videos have no motion vectors ({codecs}): masks that follow motion need their optical flow (`mgm flow`)"
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
        lines.append(f"  and {more:,} more: index.json has them all")
    return lines
