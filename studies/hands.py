"""Prepare the folds of study hands: EgoGestAR's finger gestures, filmed by phone.

    git clone https://github.com/varunj/EgoGestAR     # 220 MB with its history
    python studies/hands.py EgoGestAR                 # 3 minutes

Writes data/hands-0 to data/hands-9. hands.csv lists each video with its class, its scene (found by
colour histograms) and its fold, 0 to 4 in a first division of the scenes and 5 to 9 in another. No
scene is in two folds of a division. The repository states no licence, so this project has none of
its videos.

Each clip is 32 frames, spread evenly over the gesture, of 96 x 96 pixels: a class is the path of a
finger over the whole picture, at any speed.
"""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

FRAMES, SIDE = 32, 96
# x264 gives the same stream on every processor, so the runs of a packed study keep their ids.
ENCODING = {"crf": "18", "bf": "2", "x264-params": "cpu-independent=1:mbtree=0:threads=1"}
LIST = Path(__file__).with_suffix(".csv")


def resized(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Average the pixels of a frame to `SIDE` x `SIDE`: planes of yuv420p, one below the other.

    Pillow computes in integers, since swscale's rounding differs between processors.
    """
    rows, side = frame.height, SIDE // 2
    luma, chroma = np.split(frame.to_ndarray(format="yuv420p"), [rows])
    planes = [luma, *chroma.reshape(2, rows // 2, -1)]
    sides = [SIDE, side, side]
    small = [
        np.asarray(Image.fromarray(plane).resize((length, length), Image.Resampling.BOX))
        for plane, length in zip(planes, sides, strict=True)
    ]
    return np.concatenate([plane.reshape(-1, SIDE) for plane in small])


def retimed(source: Path, out: Path) -> None:
    """Write at most `FRAMES` frames of a video, evenly spread, with motion vectors."""
    with av.open(str(source)) as container:
        frames = [*container.decode(video=0)]
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=16, options=ENCODING)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in chosen:
            frame = av.VideoFrame.from_ndarray(resized(frames[index]), format="yuv420p")
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
    divisions = [(column, fold) for column in ("fold", "again") for fold in videos[column].unique()]
    for column, fold in divisions:
        table = folder / f"fold-{fold}.csv"
        split = np.where(videos[column] == fold, "test", "train")
        listed.assign(split=split).to_csv(table, index=False)
        out = Path(data, f"hands-{fold}")
        command = ["mgm", "prepare", "folder", "--source", str(table), "--out", str(out)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
