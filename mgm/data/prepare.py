"""Indices and copies of a dataset, and what a user is shown about them.

`mgm.cli.prepare_commands` has the commands.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from mgm.data.index import SPLITS, Index, new_index, read_index, write_index
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.data.tracks import make_tracks, missing_tracks
from mgm.errors import UserError
from mgm.reading import read_json, read_text
from mgm.results.lock import folder_lock

# Files left out that are shown. A set of 240,000 videos may lack thousands.
SHOWN = 20


def prepare_copies(
    make: Callable[[Path], Index], out: Path, copy: Callable[[Index, Path], Index]
) -> Index:
    """Index the sources in OUT/source, and write copies of them.

    Args:
        make: writes the index of the sources to a folder.
        copy: `copy_videos`, with its settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        make(out / "source")
        whole = copy(read_index(out / "source"), out)
        # The index's note mentions missing.txt.
        if (out / "source" / "missing.txt").is_file():
            shutil.copyfile(out / "source" / "missing.txt", out / "missing.txt")
    return whole


def prepare_tracks(make: Callable[[Path], Index], out: Path, processes: int) -> Index:
    """Index videos, and write their tracks. Videos without one are left out of the index.

    Args:
        make: writes the index to a folder.
    """
    make(out)
    with folder_lock(out):
        index = read_index(out)
        missing = missing_tracks(index)
        if missing:
            # A set without index.json is not whole, which a workflow sees if this is killed.
            (out / "index.json").unlink()
        lost = dict(make_tracks(index, missing, processes=processes))
        if lost:
            videos = [video for video in index.videos if index.name(video) not in lost]
            excluded = [*index.excluded, *lost.items()]
            index = new_index(index.root, index.classes, videos, excluded, index.note)
        if missing:
            write_index(index, out)
    return index


def require_own_index(out: Path) -> None:
    """Check that `out` has no index.csv or index.json of the user's, which would be replaced."""
    for name, mark in (("index.csv", "path,label,split,group,frames,"), ("index.json", '"digest"')):
        if (out / name).exists() and mark not in read_text(out / name):
            raise UserError(f"{out / name}: is not an index of mgm's; choose another --out")


def read_params(path: Path | None, changes: Iterable[str] = ()) -> Synthetic:
    """Read parameters from a JSON file, then from texts such as "layout=people".

    Parameters that none of them names have their defaults.
    """
    fields = read_json(path) if path else {}
    if isinstance(fields, dict):
        fields |= dict(text.partition("=")[::2] for text in changes)
    return parse_params(fields, str(path) if path else "--set")


def summary(index: Index) -> str:
    """Return a few lines about an index, for the terminal.

    They have the number of videos per split and class, where the split comes from, and which files
    were left out, with the reasons.
    """
    count = Counter((video.label, video.split) for video in index.videos)
    present = sorted({label for label, _ in count})
    width = max(len(index.classes[label]) for label in present)
    classes = f"{len(index.classes)} class{'es' * (len(index.classes) > 1)}"
    lines = [
        f"{len(index.videos)} videos of {classes} in {index.root}, digest {index.digest}",
        *re.split(r"; (?![^(]*\))", index.note),
        f"{'':{width}}  " + "  ".join(f"{split:>6}" for split in SPLITS),
    ]
    for label in present:
        counts = "  ".join(f"{count[label, split]:>6}" for split in SPLITS)
        lines.append(f"{index.classes[label]:{width}}  {counts}")
    if absent := len(index.classes) - len(present):
        lines.append(f"classes without videos: {absent}")
    if still := sum(not video.has_vectors for video in index.videos):
        codecs = "; ".join(sorted({video.kind for video in index.videos if not video.has_vectors}))
        lines.append(
            f"{still} videos have no motion vectors ({codecs}): masks that follow motion need "
            "their optical flow (`mgm track --method dis`) or --copy mp4"
        )
    if index.excluded:
        lines.append(f"{len(index.excluded)} files left out:")
        lines += [f"  {name}: {reason}" for name, reason in index.excluded[:SHOWN]]
    if (more := len(index.excluded) - SHOWN) > 0:
        lines.append(f"  and {more:,} more; index.json lists all")
    return "\n".join(lines)
