"""`mgm inspect DIR`: summarise a dataset.

Most facts are in the index. In a folder without an index, files are opened: a sample spread evenly
if there are many. The concentration of motion needs decoding, again of a sample.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mgm.data.copies import older_copies
from mgm.data.index import SPLITS, Video, read_index, spread
from mgm.data.opening import files_below, open_all
from mgm.data.tracks import current, has_track, write_track
from mgm.errors import UserError
from mgm.spec import MASKS, Clips, Model
from mgm.video.decode import is_interlaced
from mgm.video.track import Track, track_path
from mgm.video.vectors import INTERLACED, Inspection, inspect_track

SHOWN = 10
BARS = " ▁▂▃▄▅▆▇█"


def inspect_folder(folder: Path, videos: int = 100) -> str:
    """Return a summary of the dataset in `folder` as text, from its index or its files.

    At most `videos` are decoded, and opened if there is no index.
    """
    if (folder / "index.json").is_file():
        index = read_index(folder)
        facts, unreadable = list(index.videos), list(index.excluded)
        counts = " and ".join(
            f"{sum(video.split == split for video in facts):,} {split}" for split in SPLITS
        )
        counted = len(facts) + len(unreadable)
        unreadable += older_copies(index)
        about = f"{counts}, of {len(index.classes):,} classes, digest {index.digest}; {index.note}"
    else:
        names, unusable = files_below(folder)
        if not names:
            raise UserError(f"{folder}: holds no index and no file; pass the folder of the videos")
        readable, unreadable = open_all(folder, spread(sorted(names), videos))
        facts, counted = list(readable.values()), len(names) + len(unusable)
        unreadable += unusable
        about = f"{counted:,} files, without an index"
    opened, decoded, tracked = len(facts) + len(unreadable), list[Inspection](), list[Video]()
    with TemporaryDirectory() as scratch:
        for number, video in enumerate(spread([own for own in facts if own.has_vectors], videos)):
            try:
                if not current(video, "codec"):
                    video = replace(video, track=f"{scratch}/{number}")
                    write_track(video)
                decoded.append(inspect_track(video, Track(track_path(video.track, "codec"))))
                tracked.append(video)
            except UserError as error:
                unreadable.append((video.path, str(error).removeprefix(f"{video.path}: ")))
        visible = visible_lines(tracked or spread(facts, videos))
    lines = [str(folder), f"  videos      {about}"]
    if opened < counted:
        lines.append(f"  opened      {opened:,} of {counted:,}, evenly spread")
    if facts:
        lines += _of_files(facts, counted - len(unreadable))
    if decoded:
        lines += _of_motion(decoded)
    lines += [f"  warning     {line}" for line in interlaced_lines(spread(facts, videos), folder)]
    lines += [f"  {'' if n else 'visible':<12}{text}" for n, text in enumerate(visible)]
    lines.append(f"  unreadable  {len(unreadable):,} files" + (":" if unreadable else ""))
    lines += [f"    {name}: {reason}" for name, reason in unreadable[:SHOWN]]
    if (more := len(unreadable) - SHOWN) > 0:
        lines.append(f"    and {more:,} more")
    return "\n".join(lines)


def _of_files(facts: Sequence[Video], counted: int) -> list[str]:
    """Return lines about videos, of which there are `counted` in all."""
    seconds = np.array([video.frames / (video.fps or 25) for video in facts])
    low, middle, high = np.quantile(seconds, (0, 0.5, 1))
    share = np.mean([video.has_vectors for video in facts])
    without = sorted({video.kind for video in facts if not video.has_vectors})
    advice = "" if share else f" ({', '.join(without)}): transcode, or use flow or an unguided mask"
    return [
        f"  durations   {low:.1f} to {high:.1f} s, median {middle:.1f} s; about "
        f"{seconds.mean() * counted / 3600:,.1f} hours in all",
        f"  codecs      {_most(video.codec for video in facts)}",
        f"  sizes       {_most(f'{video.width} x {video.height}' for video in facts)}",
        f"  vectors     {share:.0%} of videos have them{advice}",
    ]


def _of_motion(decoded: Sequence[Inspection]) -> list[str]:
    concentration_M = [motion.concentration for motion in decoded]
    counts, _ = np.histogram(concentration_M, 10, (0, 1))
    heights = np.ceil(counts * (len(BARS) - 1) / max(counts.max(), 1)).astype(int)
    bars = "".join(BARS[height] for height in heights)
    return [
        f"  decoded     {len(decoded):,} videos with vectors, evenly spread; nonzero in "
        f"{np.mean([motion.coverage for motion in decoded]):.0%} of cells",
        f"  motion      0 |{bars}| 1: share of a frame's motion in a tenth of its cells, "
        f"median {np.median(concentration_M):.2f}",
        f"  windows     {sum(motion.blind for motion in decoded):,} of "
        f"{sum(motion.windows for motion in decoded):,} clips of 16 frames have no vector; there "
        "MGM's box is at random and static",
    ]


def interlaced_lines(videos: Sequence[Video], folder: Path) -> list[str]:
    """Return a warning if some of the videos are interlaced and have motion vectors.

    Args:
        folder: of the dataset. Its copies have the vectors of their sources, which are looked at.
    """
    if (folder / "source" / "index.json").is_file():
        videos = spread(read_index(folder / "source").videos, len(videos))
    moving, found = [video for video in videos if video.has_vectors], list[str]()
    for video in moving:
        # Another line reports a video that cannot be read.
        with suppress(UserError):
            if is_interlaced(video.path):
                found.append(video.path)
    return [f"{len(found)} of {len(moving)} videos are {INTERLACED}"] if found else []


def visible_lines(videos: Sequence[Video]) -> list[str]:
    """Return lines on what the paper's masks leave visible (`mgm.stages.measure.visible`).

    Clips are the paper's: 16 frames of 224 pixels, 4 frames apart, or less in shorter videos.
    There is no line without videos, or without torch.
    """
    if not videos or not find_spec("torch"):
        return []
    from mgm.stages.measure.visible import PAPER, describe, visible

    moving = [video for video in videos if video.has_vectors and has_track(video)]
    masks = [mask for mask in PAPER if moving or not MASKS[mask.name].guided]
    chosen = moving or videos
    typical = int(np.median([video.frames for video in chosen]))
    clips = Clips(frames=16, size=224, stride=min(max((typical - 1) // 15, 1), 4))
    # Videos in which nothing moves are no error.
    try:
        measured = visible(chosen, clips, Model(), masks)
    except UserError as error:
        return [str(error)]
    names = [f"{mask.name} {100 * mask.ratio:.0f} %" for mask in masks]
    return describe(dict(zip(names, measured)))


def _most(values: Any) -> str:
    """Return the most common values with their counts, as text."""
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({count:,})" for value, count in counts[:5])
    return shown + (f", {len(counts) - 5} others" if len(counts) > 5 else "")
