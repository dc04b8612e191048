"""Prepare the five folds of study hands: EgoGestAR's finger gestures, filmed by phone.

    git clone https://github.com/varunj/EgoGestAR     # 220 MB with its history
    python studies/hands.py EgoGestAR                 # 3 minutes

Writes data/hands-0 to data/hands-4. hands.csv lists each video with its class, its scene (found by
colour histograms) and its fold. No scene is in two folds. The repository states no licence, so this
project has none of its videos.

Each clip is 32 frames, spread evenly over the gesture, of 96 x 96 pixels: a class is the path of a
finger over the whole picture, at any speed.
"""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd

FRAMES, SIDE = 32, 96
LIST = Path(__file__).with_suffix(".csv")


def retimed(source: Path, out: Path) -> None:
    """Write at most `FRAMES` frames of a video, evenly spread, with motion vectors."""
    with av.open(str(source)) as container:
        frames = [
            frame.reformat(SIDE, SIDE, "yuv420p", interpolation="AREA")
            for frame in container.decode(video=0)
        ]
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "18", "bf": "2"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number, index in enumerate(chosen):
            frame = frames[index]
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 16), 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main(clone: str, data: str = "data") -> None:
    """Re-time every video of the clone, and prepare each fold as the test split of a dataset."""
    videos = pd.read_csv(LIST, dtype=str)
    folder = Path(data, "hands")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    names = []
    for video in videos.itertuples():
        names.append(f"{video.Index:03}-{video.label}.mp4")
        if not (folder / names[-1]).exists():
            blob = ["git", "-C", clone, "show", f"{video.commit}:{video.path}"]
            source.write_bytes(subprocess.run(blob, check=True, stdout=subprocess.PIPE).stdout)
            retimed(source, folder / "part.mp4")
            (folder / "part.mp4").rename(folder / names[-1])
    source.unlink(missing_ok=True)
    listed = videos.assign(path=names)[["path", "label", "group"]]
    for fold in sorted(videos.fold.unique()):
        table = folder / f"fold-{fold}.csv"
        split = np.where(videos.fold == fold, "test", "train")
        listed.assign(split=split).to_csv(table, index=False)
        out = Path(data, f"hands-{fold}")
        command = ["mgm", "prepare", "folder", "--source", str(table), "--out", str(out)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
