"""Check that the videos of an index are the files that were indexed."""

from concurrent.futures import ThreadPoolExecutor

from mgm.data.copies import older_copies
from mgm.data.index import Index
from mgm.data.opening import GONE, fault
from mgm.errors import UserError


def check_files(index: Index) -> None:
    """Compare the size of every video with the index.

    Raises:
        UserError: a video is missing or has changed. The message names the first, and counts them.
            Or a copy is older than its source.
    """
    # A shared file system answers several requests at a time.
    with ThreadPoolExecutor(8) as pool:
        found = zip(index.videos, pool.map(fault, index.videos))
        faults = [(video, wrong) for video, wrong in found if wrong]
    if faults:
        (video, wrong), gone = faults[0], sum(wrong == GONE for _, wrong in faults)
        raise UserError(
            f"{video.path}: {wrong}; of {len(index.videos):,} videos {gone:,} are missing and "
            f"{len(faults) - gone:,} have changed: put them back, or run `mgm prepare` again"
        )
    for path, reason in older_copies(index):
        raise UserError(f"{path}: {reason}")
