"""Prepare the folds of study lips: a speaker's mouth as he says a word, with MPEG-1's own vectors.

    git clone https://github.com/SAGAR0097/LIP-READING-USING-DEEP-LEARNING-   # 435 MB
    python studies/lips.py LIP-READING-USING-DEEP-LEARNING-                   # 3 minutes

Writes data/lips-0 to data/lips-5, whose classes are the ten digits. A second argument, letters,
colours or commands, writes data/lips-letters-0 and so on. The clips are of speaker 1 of the GRID
corpus. lips.csv has its licence, and each clip's fold and the frames of its words.

A word is 16 frames of 128 x 128 pixels around the mouth. Where the word lies in them depends on the
clip's name, so no frame is always its middle.

Vectors are the original's. `mgm prepare` reads whole files, and no file of a part of a stream has
its vectors. So this writes the part's pixels, prepares them, and replaces the vectors that
`mgm prepare` computed. MPEG-1 has one per 16 x 16 pixels, and the part begins at multiples of 16.
Pixels are written without compression, so all files have one size.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mgm.console import progress, say
from mgm.data.folder import list_folder
from mgm.data.index import Index, read_index, write_index
from mgm.data.prepare import prepare, summary
from mgm.errors import UserError, one_line
from mgm.video.decode import Source
from mgm.video.motion import CELL
from mgm.video.track import Track, TrackWriter

COMMIT = "96c9ef95878fc9b54410f52dbc364c3a65f99f57"
LIST = Path(__file__).with_suffix(".csv")
PLACE = {"digits": 4, "letters": 3, "colours": 1, "commands": 0}  # in a clip's name
FRAMES = 16
FOLDS = 6
SHIFT = 6  # most frames from the middle of a word to that of its clip
TOP, LEFT, SIDE = 144, 96, 128  # of the mouth in a picture of 288 x 360
SHORT_SIDE = 96  # of the prepared clips
# Mean change of grey levels between two frames. Speech is below 13. Lost packets are above 27.
JUMP = 20.0


def window(name: str, start: float, end: float) -> range:
    """Return the frames of a word's clip. Its name decides where the word lies in them.

    The clip has the whole word, unless that is longer.
    """
    room = min(max(FRAMES - (end - start), 0) / 2, SHIFT)
    draw = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    first = max(round((start + end - FRAMES) / 2 + (2 * draw - 1) * room), 0)
    return range(first, first + FRAMES)


def mouth(frame: NDArray[np.uint8], height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the mouth's part of a frame's three planes, which lie one below the other."""
    chroma_2HW = frame[height:].reshape(2, height // 2, -1)
    for plane_HW, scale in (frame[:height], 1), (chroma_2HW[0], 2), (chroma_2HW[1], 2):
        top, left, side = TOP // scale, LEFT // scale, SIDE // scale
        yield plane_HW[top : top + side, left : left + side]


def cut(source: Path, chosen: range, out: Path) -> TrackWriter:
    """Write the mouth in chosen frames as a Y4M file, and return its motion vectors.

    Raises:
        UserError: the source lacks a frame, or packets of it.
    """
    vectors, pictures, last_HW = TrackWriter(), list[bytes](), None
    top, left, side = TOP // CELL, LEFT // CELL, SIDE // CELL
    # FFmpeg's simple inverse transform gives the same pixels on every processor.
    for number, picture in enumerate(Source(source, idct="simple")):
        if number not in chosen:
            continue
        parts = [*mouth(picture.frame.to_ndarray(format="yuv420p"), picture.frame.height)]
        grey_HW = parts[0].astype(int)
        if last_HW is not None and np.abs(grey_HW - last_HW).mean() > JUMP:
            raise UserError(f"is damaged: picture {number} does not follow from the one before")
        last_HW = grey_HW
        pictures.append(b"FRAME\n" + b"".join(part.tobytes() for part in parts))
        cells = [x_HW[top : top + side, left : left + side] for x_HW in picture.cells()]
        vectors.add(picture.kind, *cells)
    if len(pictures) < FRAMES:
        raise UserError(f"is damaged: it ends before picture {chosen[-1]}")
    header = f"YUV4MPEG2 W{SIDE} H{SIDE} F25:1 Ip A1:1 C420jpeg\n"
    out.write_bytes(header.encode() + b"".join(pictures))
    return vectors


def with_vectors(index: Index, vectors: dict[str, TrackWriter]) -> Index:
    """Replace the vectors of a prepared dataset."""
    videos = []
    for video in index.videos:
        path = Path(video.track())
        made = Track(path)
        own = {"codec": "mpeg1video", "vectors": "source"}
        facts = replace(made.facts, source_width=SIDE, source_height=SIDE, **own)
        places = {"offset": made.offset_N, "size": made.size_N, "crc": made.crc_N}
        vectors[video.name].write(path, facts, {"time": made.time_T, **places})
        videos.append(video._replace(**own))
    return replace(index, videos=tuple(videos))


def main(clone: str, words: str = "digits", data: str = "data") -> None:
    """Cut each clip of the clone, and prepare each fold as the test split of a dataset."""
    if words not in PLACE:
        raise UserError(f"{words}: choose from {', '.join(PLACE)}")
    git = ["git", "-C", clone]
    known = [*git, "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if subprocess.run(known, capture_output=True).returncode:
        raise UserError(f"{clone}: is not a clone that has commit {COMMIT[:7]}")
    clips = pd.read_csv(LIST, dtype=str, comment="#", keep_default_na=False)
    folder = Path(data, "lips" if words == "digits" else f"lips-{words}")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    rows, vectors, left_out = list[tuple[str, str, str]](), dict[str, TrackWriter](), list[str]()
    for clip in progress(clips.itertuples(), "cutting clips", len(clips)):
        try:
            if clip.why:
                raise UserError(clip.why)
            blob = [*git, "show", f"{COMMIT}:data/s1/{clip.name}.mpg"]
            found = subprocess.run(blob, capture_output=True)
            if found.returncode:
                raise UserError("is not in the clone")
            source.write_bytes(found.stdout)
            start, end = map(float, getattr(clip, words).split("-"))
            chosen = window(clip.name, start, end)
            vectors[clip.name] = cut(source, chosen, folder / f"{clip.name}.y4m")
        except UserError as error:
            left_out.append(f"  {clip.name}: {str(error).removeprefix(f'{source}: ')}")
            continue
        rows.append((f"{clip.name}.y4m", clip.name[PLACE[words]], clip.fold))
    source.unlink(missing_ok=True)
    say("\n".join([f"{len(left_out)} of {len(clips):,} clips are left out:", *left_out]))
    listed = pd.DataFrame(rows, columns=["path", "label", "fold"])
    for fold in range(FOLDS):
        table, out = folder / f"fold-{fold}.csv", Path(f"{folder}-{fold}")
        split = np.where(listed.fold == str(fold), "test", "train")
        listed[["path", "label"]].assign(split=split).to_csv(table, index=False)
        # No index says that the folder is ready before the vectors are the original's.
        (out / "index.json").unlink(missing_ok=True)
        if fold:
            # The videos are the same. `mgm prepare` keeps them, and changes their splits.
            shutil.copytree(f"{folder}-0", out, dirs_exist_ok=True)
        index = prepare(list_folder(table), out, SHORT_SIDE)
        write_index(index if fold else with_vectors(index, vectors))
        say(summary(read_index(out)))


if __name__ == "__main__":
    with one_line():
        main(*sys.argv[1:])
