"""Compare the store and its reader with decord, torchcodec, and another checkout of mgm, in turns.

    python bench/peers.py VIDEOS [--base CHECKOUT] [--turns 3]

A clip is 16 frames at stride 4 from a random start, cut by MultiScaleCrop and scaled to 224. Every
reader opens the file again for each clip. Ours reads the store that it writes from VIDEOS first;
peers read VIDEOS and the store's mp4. Times are of the CPU, all threads, in milliseconds per clip.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from mgm.masking import Grid, mask_clips
from mgm.spec import Clips, Mask
from mgm.video.crop import cut
from mgm.video.planes import no_planes
from mgm.video.store import read_clips, read_planes, write_video
from mgm.video.track import Track
from mgm.video.transform import random_crop, training_indices

CLIPS, GRID, MGM = Clips(), Grid(8, 14, 14), Mask(name="mgm")
PLANES, PIXELS = no_planes(CLIPS, 256), np.empty((1, 16, 224, 224, 3), np.uint8)
Read = Callable[[str, int], object]  # of a video and a clip's seed

# What a checkout with H.264 copies (f5da4759) does. It prints the time of a turn per line of input.
BASE = """
import sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from mgm.data.transcode import encode
from mgm.masking import Grid, make_mask
from mgm.spec import Clips, Mask
from mgm.stages.guidance import slot_motion
from mgm.video.decode import probe_video
from mgm.video.planes import no_planes
from mgm.video.read import open_track, read_pixels, read_planes
from mgm.video.transform import random_crop, training_indices
clips, mgm, out, copies = Clips(), Mask(name="mgm"), Path(sys.argv[1]), []
for path in sys.argv[2:]:
    video, stem = probe_video(path), out / Path(path).stem
    with open(f"{stem}.codec.track", "wb") as track:
        encode(video, stem.with_suffix(".mp4"), 256, track)
    copy = replace(probe_video(stem.with_suffix(".mp4")), width=video.width, height=video.height)
    copies.append(replace(copy, track=str(stem)))
planes, pixels = no_planes(clips), np.empty((1, 16, 224, 224, 3), np.uint8)
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    for number, copy in enumerate(copies):
        seed, track = 1000 * int(line[1:]) + number, open_track(copy, "codec")
        index_T = training_indices(clips, copy.frames, np.random.default_rng(seed))
        crop = random_crop(clips, copy.height, copy.width, seed)
        motion = track[index_T].cut(crop, 224, (copy.height, copy.width))
        magnitude, shift = slot_motion(mgm, 2, 4, [motion])
        make_mask(mgm, Grid(8, 14, 14), magnitude, np.array([seed]), shift)
        if line[0] == "P":
            read_planes(copy, track, [index_T], [crop], 224, planes)
        else:
            read_pixels(copy, track, [index_T], [crop], 224, pixels)
    print((time.process_time() - start) / len(copies), flush=True)
"""


def lend_ffmpeg() -> None:
    """Start this program again with PyAV's FFmpeg under its common names, for torchcodec.

    torchcodec brings no FFmpeg, and the dynamic linker reads its path only at the start.
    """
    folder = Path(tempfile.gettempdir()) / f"mgm-ffmpeg-{os.getuid()}-{av.__version__}"
    search = os.environ.get("LD_LIBRARY_PATH", "")
    if str(folder) in search:
        return
    folder.mkdir(exist_ok=True)
    for path in (Path(av.__file__).parents[1] / "av.libs").glob("*.so.*"):
        if name := re.fullmatch(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+)\..*", path.name):
            link = folder / f"{name[1]}.so.{name[2]}"
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    os.environ["LD_LIBRARY_PATH"] = f"{folder}:{search}"
    os.execv(sys.executable, sys.orig_argv)


def ours(planes: bool, path: str, seed: int) -> None:
    """Read a clip and its mask from the store."""
    track = Track(f"{path[:-4]}.npz")
    facts, rng = track.facts, np.random.default_rng(seed)
    index_T = training_indices(CLIPS, facts.frames, rng)
    crop = random_crop(CLIPS, facts.height, facts.width, seed)
    motion = track.motion(index_T, crop, 224, (facts.height, facts.width))
    mask_clips(MGM, GRID, [motion], np.array([seed]), 2, 4)
    if planes:
        read_planes(path, track, [index_T], [crop], PLANES)
    else:
        read_clips(path, track, [index_T], [crop], 224, PIXELS)


def peer(library: str, path: str, seed: int) -> None:
    """Read a clip with another library."""
    if library == "decord":
        import decord

        video = decord.VideoReader(path, num_threads=1)
        index_T = training_indices(CLIPS, len(video), np.random.default_rng(seed))
        frames_THWC = video.get_batch(index_T).asnumpy()
    else:
        from torchcodec.decoders import VideoDecoder

        video = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC")
        index_T = training_indices(CLIPS, len(video), np.random.default_rng(seed))
        frames_THWC = video.get_frames_at(index_T.tolist()).data.numpy()
    crop = random_crop(CLIPS, *frames_THWC.shape[1:3], seed)
    for frame_HWC, out_HWC in zip(frames_THWC, PIXELS[0]):
        out_HWC[:] = cut(frame_HWC, crop, 224)


def timed(read: Read, paths: list[str], turn: int) -> float:
    """Return the seconds of CPU per clip of a turn: one clip of each video."""
    start = time.process_time()
    for number, path in enumerate(paths):
        read(path, 1000 * turn + number)
    return (time.process_time() - start) / len(paths)


def of_base(process: Any, kind: str, turn: int) -> float:
    process.stdin.write(f"{kind}{turn}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, help="a video, or a folder of them")
    parser.add_argument("--base", type=Path, help="a checkout of mgm with H.264 copies (f5da4759)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--most", type=int, default=40, help="videos")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted(path for path in args.videos.rglob("*") if path.suffix in (".mp4", ".avi"))
    with tempfile.TemporaryDirectory() as name:
        out, sources, stored, seconds = Path(name), list[str](), list[str](), 0.0
        start = time.process_time()
        for number, path in enumerate(islice(files or [args.videos], args.most)):
            mp4, link = out / f"{number}.mp4", out / f"source-{number}{path.suffix}"
            facts = write_video(path, mp4, mp4.with_suffix(".npz"))
            seconds += facts.frames / facts.fps
            # The base's copies have the sources' names, which may be equal.
            link.symlink_to(path.resolve())
            sources.append(str(link)), stored.append(str(mp4))
        spent = time.process_time() - start
        sizes = [sum(os.path.getsize(path) for path in paths) for paths in (sources, stored)]
        print(f"{len(stored)} videos; the store has {sizes[1] / sizes[0]:.1f} times their bytes")
        print(f"written at {seconds / spent:.0f} times real time on one core\n")
        timers: dict[str, Callable[[int], float]] = {
            "store and mask, planes": partial(timed, partial(ours, True), stored),
            "store and mask, RGB": partial(timed, partial(ours, False), stored),
        }
        for library in ("decord", "torchcodec"):
            for title, paths in {"the sources": sources, "the store": stored}.items():
                timers[f"{library} on {title}"] = partial(timed, partial(peer, library), paths)
        if args.base:
            (out / "base").mkdir()
            words = [sys.executable, "-c", BASE, str(out / "base"), *sources]
            pipe = subprocess.PIPE
            base = subprocess.Popen(words, cwd=args.base, text=True, stdin=pipe, stdout=pipe)
            assert base.stdout
            base.stdout.readline()
            timers |= {
                f"base, {kind}": partial(of_base, base, kind[0]) for kind in ("planes", "RGB")
            }
        turns = [
            {title: timer(turn) for title, timer in timers.items()}
            for turn in range(args.turns + 1)
        ]
        print("| | ms per clip | to planes | to RGB |\n|---|---|---|---|")
        for title in timers:
            # The first turn warms up.
            took = [turn[title] for turn in turns[1:]]
            ratios = [
                statistics.median(turn[title] / turn[mine] for turn in turns[1:])
                for mine in list(timers)[:2]
            ]
            numbers = f"{1e3 * statistics.median(took):.1f} | {ratios[0]:.2f} | {ratios[1]:.2f}"
            print(f"| {title} | {numbers} |")


if __name__ == "__main__":
    lend_ffmpeg()
    main()
