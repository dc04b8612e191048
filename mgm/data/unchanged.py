"""Check that the videos of an index are the files that were indexed."""

from concurrent.futures import ThreadPoolExecutor

from mgm.data.copies import older_copies
from mgm.data.index import Index
from mgm.data.opening import GONE, fault
from mgm.errors import UserError


def compared(index: Index) -> str:
    """Describe what `check_files` compares, for a run's result."""
    return (
        f"size of {len(index.videos):,} videos; first, middle and last 4 KiB of "
        f"{sum(bool(video.content) for video in index.videos):,}"
    )


def check_files(index: Index) -> None:
    """Compare every video with the index, by size and by `content_hash` if the index has one.

    Raises:
        UserError: a video is missing or has changed. The message names the first, and counts them.
            Or a copy is older than its source.
    """
    # A shared file system answers several requests at a time.
    with ThreadPoolExecutor(8) as pool:
        faults = [
            (video, wrong)
            for video, wrong in zip(index.videos, pool.map(fault, index.videos))
            if wrong
        ]
    if faults:
        video, wrong = faults[0]
        gone = [wrong for _, wrong in faults].count(GONE)
        raise UserError(
            f"{video.path}: {wrong}; of the index's {len(index.videos):,} videos {gone:,} are "
            f"missing and {len(faults) - gone:,} have "
            "changed: put them back, or run `mgm prepare` again"
        )
    for path, reason in older_copies(index):
        raise UserError(f"{path}: {reason}")
