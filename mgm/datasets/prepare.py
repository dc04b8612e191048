"""What `mgm prepare` does. These functions print nothing; `summary` is what a user is shown."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgm.datasets.files import cores
from mgm.datasets.index import SPLITS, Index
from mgm.datasets.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.runs.files import read_json
from mgm.runs.lock import folder_lock

if TYPE_CHECKING:
    from mgm.datasets.shards import Part, Settings
    from mgm.datasets.transcode import Shard

SHOWN = 20  # of the files left out; a set of 240,000 may lack thousands


def prepare_transcoded(
    prepare: Callable[[Path], Index], out: Path, short_side: int = 256, processes: int | None = None, shard: str | None = None
) -> "Index | Shard":
    """`mgm prepare DATASET --transcode [--short-side 256] [--processes N] [--shard I/N]`: see `mgm.datasets.transcode`.

    `prepare` is given OUT/source and makes the index of the sources there; with a shard it must be there already. `processes` is one a
    core that this process may use, unless given.
    """
    from mgm.datasets.transcode import read_shard, read_sources, transcode_index, transcode_shard  # PyAV

    processes = processes or cores()
    if shard is not None:
        number, of = read_shard(shard)
        return transcode_shard(read_sources(out), out, number, of, short_side, processes)
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        index = transcode_index(prepare(out / "source"), out, short_side, processes)
        if (out / "source" / "missing.txt").is_file():  # the note speaks of it
            shutil.copyfile(out / "source" / "missing.txt", out / "missing.txt")
    return index


def prepare_shards(
    prepare: "Callable[[Path], Index | Shard]", out: Path, settings: "Settings", processes: int | None = None, shard: str | None = None
) -> "Index | Part":
    """`mgm prepare DATASET --shards [--shard I/N]`: see `mgm.datasets.shards`. Arguments are those of `prepare_transcoded`.

    With `--transcode` too the sources are the transcoded files: videos of a codec without motion vectors then have them.
    """
    from mgm.datasets.shards import shard_index, shard_part
    from mgm.datasets.transcode import read_shard, read_sources  # PyAV

    processes = processes or cores()
    if shard is not None:
        return shard_part(read_sources(out), out, settings, *read_shard(shard), processes)
    prepare(out / "source")
    index = shard_index(read_sources(out), out, settings, processes)
    if (out / "source" / "missing.txt").is_file():  # the note speaks of it
        shutil.copyfile(out / "source" / "missing.txt", out / "missing.txt")
    return index


def prepare_synthetic(params: Path | Synthetic, out: Path, processes: int = 1) -> Index:
    """`mgm prepare synthetic --params params.json --out DIR`: see `mgm.datasets.synthetic.make`.

    Raises:
        UserError: a parameter is unknown or out of range, or `out` holds other videos.
    """
    from mgm.datasets.synthetic.make import generate  # PyAV

    return generate(params if isinstance(params, Synthetic) else read_params(params), out, processes)


def read_params(path: Path) -> Synthetic:
    """The parameters that a JSON file holds; those it does not name have their defaults."""
    try:
        return parse_params(read_json(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write the parameters there, for example {Synthetic().model_dump_json()}") from None


def summary(index: "Index | Shard | Part") -> str:
    """A few lines to read: videos per split and class, how they were split, and what was left out and why. Of a shard, only the last."""
    from mgm.datasets.shards import Part

    if isinstance(index, Part):
        about = f"part {index.number} of {index.of}: {index.shards:,} shards are written, with {index.videos:,} videos"
        return "\n".join([about, *_left_out(index.failed)])
    if not isinstance(index, Index):
        total = index.done + len(index.failed)
        return "\n".join([f"shard {index.number} of {index.of}: {index.done:,} of {total:,} videos transcoded", *_left_out(index.failed)])
    there = {video.label for video in index.videos}
    width = max(len(index.classes[label]) for label in there)
    lines = [f"{len(index.videos)} videos of {len(index.classes)} classes in {index.root}, digest {index.digest}", index.note]
    lines += [f"{'':{width}}  " + "  ".join(f"{split:>6}" for split in SPLITS)]
    count = Counter((video.label, video.split) for video in index.videos)
    for label in sorted(there):
        counts = [count[label, split] for split in SPLITS]
        lines.append(f"{index.classes[label]:{width}}  " + "  ".join(f"{number:>6}" for number in counts))
    if absent := len(index.classes) - len(there):
        lines.append(f"no videos of the other {absent} classes")
    if still := sum(not video.has_vectors for video in index.videos):
        codecs = ", ".join(sorted({video.codec for video in index.videos if not video.has_vectors}))
        lines.append(f"{still} videos have no motion vectors ({codecs}): masks that follow motion need their optical flow (`mgm flow`)")
    return "\n".join([*lines, *_left_out(index.excluded)])


def _left_out(excluded: Sequence[tuple[str, str]]) -> list[str]:
    if not excluded:
        return []
    lines = [f"{len(excluded)} files left out:", *(f"  {name}: {reason}" for name, reason in excluded[:SHOWN])]
    if (more := len(excluded) - SHOWN) > 0:
        lines.append(f"  and {more:,} more: index.json has them all")
    return lines
