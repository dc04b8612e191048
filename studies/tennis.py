"""Prepare 371 tennis strokes of 7 classes, to see by `mgm controls` whether they can be studied.

    git clone https://github.com/Nelijahk/3DCNN-Tennis-Action-Recognition
    python studies/tennis.py 3DCNN-Tennis-Action-Recognition
    mgm controls data/tennis-0

As published, the file size tells the class, and so does a watermark. So the lower 14 % are cut off,
and every clip becomes 32 frames of 160 x 80 pixels, written alike without compression. Scenes are
clusters of colour histograms, and no scene is in two folds. The repository states no licence, so
this project has none of its videos, and no study uses them.
"""

import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.cluster import AgglomerativeClustering
from sklearn.model_selection import StratifiedGroupKFold

from mgm.console import progress, say
from mgm.data.folder import list_folder
from mgm.data.prepare import prepare, summary
from mgm.errors import UserError, one_line
from mgm.video.decode import Source

COMMIT = "56a1f4532bac26dc027abd30ea7597dc4d83b10f"
FRAMES, WIDTH, HEIGHT = 32, 160, 80
KEPT = 0.86  # of a picture's height. A watermark stands below
BINS = 8  # per colour, of a scene's histogram
SAME = 0.35  # distance between histograms, from 0 to 1, up to which clips show one scene


def resized(frame: NDArray[np.uint8], height: int) -> list[NDArray[np.uint8]]:
    """Return the upper part of a frame's planes, averaged to one size."""
    kept = int(height * KEPT) // 2 * 2
    chroma_2HW = frame[height:].reshape(2, height // 2, -1)
    planes = frame[:kept], chroma_2HW[0, : kept // 2], chroma_2HW[1, : kept // 2]
    sides = (WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2), (WIDTH // 2, HEIGHT // 2)
    return [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX))
        for plane, size in zip(planes, sides, strict=True)
    ]


def retimed(source: Path, out: Path) -> NDArray[np.float64]:
    """Write `FRAMES` frames of a video, evenly spread, and return its colour histogram."""
    count = sum(1 for _ in Source(source, motion=False))
    chosen = np.linspace(0, count - 1, FRAMES).round().astype(int).tolist()
    pictures, histogram = dict[int, bytes](), np.zeros(BINS**3)
    for number, picture in enumerate(Source(source, motion=False)):
        if number in chosen:
            planes = resized(picture.frame.to_ndarray(format="yuv420p"), picture.frame.height)
            pictures[number] = b"FRAME\n" + b"".join(plane.tobytes() for plane in planes)
            small = planes[0][::2, ::2], planes[1], planes[2]
            colours = np.stack([plane.ravel() for plane in small], 1) // (256 // BINS)
            place = np.ravel_multi_index(tuple(colours.T), (BINS, BINS, BINS))
            histogram += np.bincount(place, minlength=BINS**3)
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F16:1 Ip A1:1 C420jpeg\n"
    out.write_bytes(header.encode() + b"".join(pictures[number] for number in chosen))
    return histogram / histogram.sum()


def main(clone: str, data: str = "data") -> None:
    """Write each clip of the clone alike, and prepare each fold as the test split of a dataset."""
    git = ["git", "-C", clone]
    tree = [*git, "ls-tree", "-r", "--name-only", COMMIT, "tennis_dataset"]
    listed = subprocess.run(tree, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"{clone}: is not a clone that has commit {COMMIT[:7]}")
    paths = [PurePosixPath(path) for path in listed.stdout.splitlines() if path.endswith(".mp4")]
    folder = Path(data, "tennis")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    rows, histograms, left_out = list[tuple[str, str]](), list[NDArray[np.float64]](), list[str]()
    for path in progress(paths, "cutting clips", len(paths)):
        blob = subprocess.run([*git, "show", f"{COMMIT}:{path}"], capture_output=True)
        source.write_bytes(blob.stdout)
        try:
            histograms.append(retimed(source, folder / f"{path.stem}.y4m"))
        except UserError as error:
            left_out.append(f"  {path}: {str(error).removeprefix(f'{source}: ')}")
            continue
        rows.append((f"{path.stem}.y4m", path.parent.name))
    source.unlink(missing_ok=True)
    if left_out:
        say("\n".join([f"{len(left_out)} of {len(paths)} clips are left out:", *left_out]))
    videos = pd.DataFrame(rows, columns=["path", "label"])
    likeness = np.minimum(np.array(histograms)[:, None], np.array(histograms)[None]).sum(2)
    clusters = AgglomerativeClustering(
        None, metric="precomputed", linkage="average", distance_threshold=SAME
    )
    videos["group"] = [f"scene{number}" for number in clusters.fit_predict(1 - likeness)]
    say(f"{len(videos)} clips of {videos.group.nunique()} scenes")
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for fold, (_, test) in enumerate(folds.split(videos, videos.label, videos.group)):
        table, out = folder / f"fold-{fold}.csv", Path(data, f"tennis-{fold}")
        videos.assign(split=np.where(videos.index.isin(test), "test", "train")).to_csv(
            table, index=False
        )
        if fold:
            # The videos are the same. `mgm prepare` keeps them, and changes their splits.
            shutil.copytree(Path(data, "tennis-0"), out, dirs_exist_ok=True)
        say(summary(prepare(list_folder(table), out)))


if __name__ == "__main__":
    with one_line():
        main(*sys.argv[1:])
