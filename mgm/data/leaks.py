"""Find videos of one recording: by their names, and by their first frames.

Clips of one recording on both sides of a split make a test easy: the background gives the answer.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from av.video.reformatter import Interpolation

from mgm.data.index import SPLITS, Video
from mgm.data.opening import CHUNK, cores, in_processes
from mgm.errors import UserError
from mgm.reading import read_json
from mgm.results.atomic import write
from mgm.video.container import open_video

# Names that mark a recording or a person, in the order in which they are tried. The last two stand
# for clips that were cut from one video and numbered, as `match-Scene-003` and `film_12`.
PATTERNS = (
    r"(?:person|subject|subj|actor|speaker)[-_ ]?\d+",
    r"(?<![a-z0-9])s\d+(?![a-z0-9])",
    r"(?<![a-z0-9])g\d+(?![a-z0-9])",
    r"[^/]*[a-z][^/]*?(?=[-_ .]*(?:scene|shot|clip|part|seg)[-_ ]*\d+$)",
    r"[^/]*[a-z][^/]*?(?=(?:[-_ ]+\d+)+$)",
)
# Numbers alone are a weak mark. Fewer such groups, as in `set1_3_12`, are rather parts of a set.
FEWEST_NUMBERED = 5
SIDE = 16  # cells of a thumbnail
# First frames whose thumbnails correlate more look alike. 92 % of AVLetters' clips have such a clip
# of the same person; none of AVLetters, UCF101 and UT-Interaction has one of another recording.
ALIKE = 0.95
LEAST_CONTRAST = 4  # standard deviation of a thumbnail, in grey levels of 255


def group_of(name: str, pattern: str) -> str | None:
    """Return the part of a name without its suffix that matches: group 1, or the whole match."""
    match = re.search(pattern, str(PurePosixPath(name).with_suffix("")), re.IGNORECASE)
    return match and (match[1] if match.re.groups else match[0])


def groups_by_name(labels: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Yield each plausible way to group files by their names, as {name: group}.

    A way is plausible if it joins files, finds a group in at least half of them, and leaves at
    least half of the classes with several groups.

    Args:
        labels: names of the classes, by file.
    """
    for pattern in PATTERNS:
        group_by_name = {name: group_of(name, pattern) for name in labels}
        groups = {name: group or name for name, group in group_by_name.items()}
        named = sum(group is not None for group in group_by_name.values())
        count = len(set(groups.values()))
        if 2 * named < len(group_by_name) or count == len(groups):
            continue
        if pattern == PATTERNS[-1] and count < FEWEST_NUMBERED:
            continue
        pairs = {(label, groups[name]) for name, own in labels.items() for label in own}
        files = Counter(label for own in labels.values() for label in own)
        of_class = Counter(label for label, _ in pairs)
        has_several = [of_class[label] > 1 for label, count in files.items() if count > 1]
        if 2 * sum(has_several) >= len(has_several):
            yield groups


def example(groups: Mapping[str, str]) -> str:
    """Return the name of the largest group."""
    return Counter(groups.values()).most_common(1)[0][0]


def first_frames_note(videos: Sequence[Video], cache: Path) -> str:
    """Return a warning if test videos begin like training videos; empty otherwise.

    Args:
        cache: a file that keeps the thumbnails. A later call opens only new videos.
    """
    known = _read(cache)
    unknown = [video for video in videos if video.content not in known]
    if unknown:
        chunks = [unknown[start : start + CHUNK] for start in range(0, len(unknown), CHUNK)]
        processes = min(cores(), max(len(chunks) // 2, 1))
        known |= chain.from_iterable(in_processes(_thumbnails, chunks, processes))
        write(cache, json.dumps({content: grey_C.hex() for content, grey_C in known.items()}))
    train, test = (
        [video for video in videos if video.split == split and known[video.content]]
        for split in SPLITS
    )
    if not train or not test:
        return ""
    train_NC, test_NC = (
        _standardised([known[video.content] for video in side]) for side in (train, test)
    )
    pairs = []
    # A block of rows at a time: all products of 20,000 and 200,000 videos would not fit.
    for start in range(0, len(test), CHUNK):
        alike_NN = test_NC[start : start + CHUNK] @ train_NC.T
        for video, row_N in zip(test[start : start + CHUNK], alike_NN):
            if row_N.max() > ALIKE:
                pairs.append((video, train[int(row_N.argmax())]))
    if not pairs:
        return ""
    first, other = (Path(video.path).name for video in pairs[0])
    return (
        f"warning: {len(pairs):,} of {len(test):,} test videos begin almost as a training video "
        f"does (the first: {first} and {other}), so name groups if they are of one recording"
    )


def _read(cache: Path) -> dict[str, bytes]:
    """Read the thumbnails that an earlier call kept. A damaged file is not used."""
    with suppress(FileNotFoundError, UserError, ValueError, TypeError, AttributeError):
        known = {str(name): bytes.fromhex(text) for name, text in read_json(cache).items()}
        if all(len(grey_C) in (0, SIDE * SIDE) for grey_C in known.values()):
            return known
    return {}


def _thumbnails(videos: Sequence[Video]) -> list[tuple[str, bytes]]:
    """Return (content, grey thumbnail of the first frame) of each video.

    A thumbnail is empty if the frame has little contrast or does not decode. A video that fades in
    from black begins like many others.
    """
    thumbnails = []
    for video in videos:
        pixels = b""
        with suppress(UserError), open_video(video.path) as file:
            frame = next(file.pictures(motion=False)).frame
            grey_HW = frame.reformat(
                SIDE, SIDE, "gray", interpolation=Interpolation.AREA
            ).to_ndarray()
            if grey_HW.std() > LEAST_CONTRAST:
                pixels = grey_HW.tobytes()
        thumbnails.append((video.content, pixels))
    return thumbnails


def _standardised(thumbnails: Sequence[bytes]) -> np.ndarray:
    """Return thumbnails with mean 0 and length 1, so that products are correlations."""
    grey_NC = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1)
    grey_NC = grey_NC - grey_NC.mean(axis=1, keepdims=True, dtype=np.float32)
    return grey_NC / np.linalg.norm(grey_NC, axis=1, keepdims=True)
