"""`mgm inspect DIR`: summarise a dataset.

Most facts are in the index. In a folder without an index, files are opened: a sample spread evenly
if there are many. The concentration of motion needs decoding, again of a sample.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mgm.data.index import SPLITS, Video, read_index
from mgm.data.opening import files_below, open_all
from mgm.data.shards import verify_shards
from mgm.errors import UserError
from mgm.video.vectors import Inspection, inspect_video

T = TypeVar("T")
SHOWN = 10
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class DatasetSummary:
    """Facts about a dataset's videos.

    Attributes:
        about: a line on where the facts come from.
        counted: number of videos.
        facts: {path: video}, of all videos or of an evenly spread sample.
        decoded: measurements of the decoded videos.
        unreadable: (name, reason) of files that cannot be read.
    """

    folder: Path
    about: str
    counted: int
    facts: Mapping[str, Video]
    decoded: tuple[Inspection, ...]
    unreadable: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Return the summary as lines of text."""
        facts, opened = self.facts.values(), len(self.facts) + len(self.unreadable)
        seconds, concentration_M = (self.arrays()[of] for of in ("duration_N", "concentration_M"))
        lines = [str(self.folder), f"  videos      {self.about}"]
        if opened < self.counted:
            lines.append(f"  opened      {opened:,} of {self.counted:,}, evenly spread")
        if facts:
            low, middle, high = np.quantile(seconds, (0, 0.5, 1))
            hours = seconds.mean() * (self.counted - len(self.unreadable)) / 3600
            share = np.mean([video.has_vectors for video in facts])
            advice = "" if share else ": transcode, or use flow or an unguided mask"
            lines += [
                f"  durations   {low:.1f} to {high:.1f} s, median {middle:.1f} s; about "
                f"{hours:,.1f} hours in all",
                f"  codecs      {_most(video.codec for video in facts)}",
                f"  sizes       {_most(f'{video.width} x {video.height}' for video in facts)}",
                f"  vectors     {share:.0%} of videos have them{advice}",
            ]
        if self.decoded:
            counts, _ = np.histogram(concentration_M, 10, (0, 1))
            heights = np.ceil(counts * (len(BARS) - 1) / max(counts.max(), 1)).astype(int)
            bars = "".join(BARS[height] for height in heights)
            coverage = np.mean([motion.coverage for motion in self.decoded])
            lines += [
                f"  decoded     {len(self.decoded):,} videos with vectors, evenly spread; nonzero "
                f"in {coverage:.0%} of cells",
                f"  motion      0 |{bars}| 1: share of a frame's motion in a tenth of its cells, "
                f"median {np.median(concentration_M):.2f}",
            ]
        lines.append(
            f"  unreadable  {len(self.unreadable):,} files" + (":" if self.unreadable else "")
        )
        lines += [f"    {name}: {reason}" for name, reason in self.unreadable[:SHOWN]]
        if (more := len(self.unreadable) - SHOWN) > 0:
            lines.append(f"    and {more:,} more")
        return "\n".join(lines)

    def arrays(self) -> dict[str, Any]:
        """Return the arrays that `mgm.report.figures.dataset.draw` draws."""
        facts = self.facts.values()
        return {
            "duration_N": np.array([video.frames / (video.fps or 25) for video in facts]),
            "short_N": np.array([min(video.width, video.height) for video in facts]),
            "codec_N": np.array([video.codec for video in facts]),
            "vectors_N": np.array([video.has_vectors for video in facts]),
            "split_N": np.array([video.split for video in facts]),
            "concentration_M": np.array([motion.concentration for motion in self.decoded]),
            "counted": self.counted,
            "unreadable": len(self.unreadable),
        }


def inspect_folder(folder: Path, videos: int = 100) -> DatasetSummary:
    """Summarise the dataset in `folder`, from its index or its files.

    At most `videos` are decoded, and opened if there is no index.

    Raises:
        UserError: there is no video, or the index is damaged.
    """
    if (folder / "index.json").is_file():
        index = read_index(folder)
        facts, unreadable = {video.path: video for video in index.videos}, list(index.excluded)
        counts = " and ".join(
            f"{sum(video.split == split for video in index.videos):,} {split}" for split in SPLITS
        )
        counted = len(facts) + len(unreadable)
        if (index.root / "shards.json").is_file():
            unreadable += verify_shards(index, folder)
        about = f"{counts}, of {len(index.classes):,} classes, digest {index.digest}; {index.note}"
    else:
        names, unusable = files_below(folder)
        if not names:
            raise UserError(
                f"{folder}: holds no index and no file; pass the folder of the videos, or the "
                "folder that `mgm prepare` wrote"
            )
        readable, unreadable = open_all(folder, spread(sorted(names), videos))
        unreadable += unusable
        facts = {video.path: video for video in readable.values()}
        counted = len(names) + len(unusable)
        about = f"{counted:,} files, without an index"
    decoded = []
    for path in spread([path for path, video in facts.items() if video.has_vectors], videos):
        try:
            decoded.append(inspect_video(path))
        except UserError as error:
            unreadable.append((path, str(error).removeprefix(f"{path}: ")))
    return DatasetSummary(folder, about, counted, facts, tuple(decoded), tuple(unreadable))


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spread."""
    return (
        list(items)
        if len(items) <= count
        else [items[i * len(items) // count] for i in range(count)]
    )


def _most(values: Any) -> str:
    """Return the most common values with their counts, as text."""
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({count:,})" for value, count in counts[:5])
    return shown + (f", {len(counts) - 5} others" if len(counts) > 5 else "")
