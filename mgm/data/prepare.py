"""Indices and copies of a dataset, and what a user is shown about them.

`mgm.cli.prepare_commands` has the commands.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mgm.data.index import SPLITS, Index, read_index
from mgm.data.opening import PreparedPart
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.reading import read_json, read_text
from mgm.results.lock import folder_lock

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
        make: writes the index of the sources to a folder.
        copy: `copy_videos`, with its settings.
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


def require_own_index(out: Path) -> None:
    """Check that `out` has no index.csv or index.json of the user's, which would be replaced."""
    for name, mark in (("index.csv", "path,label,split,group,frames,"), ("index.json", '"digest"')):
        if (out / name).exists() and mark not in read_text(out / name):
            raise UserError(f"{out / name}: is not an index of mgm's; choose another --out")


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
    return parse_params(read_json(path), str(path))


def summary(index: Index | PreparedPart) -> str:
    """Return a few lines about an index or a part, for the terminal.

    For an index: the number of videos per split and class, where the split comes from, and which
    files were left out, with the reasons. For a part: the number of videos, and the files left out.
    """
    if isinstance(index, PreparedPart):
        done = f"{index.videos:,} of {index.videos + len(index.failed):,} videos are done"
        lines = [f"part {index.number} of {index.of}: {done}", *_left_out(index.failed)]
        return "\n".join(lines)
    count = Counter((video.label, video.split) for video in index.videos)
    present = sorted({label for label, _ in count})
    width = max(len(index.classes[label]) for label in present)
    lines = [
        f"{len(index.videos)} videos of {len(index.classes)} classes in {index.root}, digest "
        f"{index.digest}",
        *re.split(r"; (?![^(]*\))", index.note),
        f"{'':{width}}  " + "  ".join(f"{split:>6}" for split in SPLITS),
    ]
    for label in present:
        counts = "  ".join(f"{count[label, split]:>6}" for split in SPLITS)
        lines.append(f"{index.classes[label]:{width}}  {counts}")
    if absent := len(index.classes) - len(present):
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
