"""Loading: clips per second of CPU time with motion vectors, against other readers without.

CPU time, of all threads, is what a core gives: a reader that decodes in threads of its own gains nothing by them, and a busy machine
disturbs it less than the clock.

A clip is 16 frames at stride 4 from a random start, cut by MultiScaleCrop and resized to 224; all open the file anew for each, and take
the same frames, crop and resize. Ours reads the vectors as well and makes the magnitude of each slot. Two rows have no reader as a peer:
"FFmpeg alone" only decodes the pictures that ours decodes and converts none, so its ratio is the share of our time that decoding takes;
"exporting vectors" is FFmpeg alone with and without the flag that exports them, so its ratio is what no reader of vectors can avoid.

torchcodec is at its best: one thread, tables of frames made beforehand, and the faster of its own crop and resize and ours. It is lent
PyAV's FFmpeg. mvextractor (the package motion-vector-extractor) is no dependency: a line says so where it is left out. A peer that is a
dependency and cannot read ends the bench with an error.

"Copies" are `mgm prepare --transcode` of the same videos and "shards" `mgm prepare --shards`; they give the same frames, crop and resize.
"JPEG alone" decodes the frames of shards. How long it takes is said first, and rows are written as they come.

Without --videos: the clips in ../shared/data if they are there, and always two generated videos like K400's (340 x 256, 300 frames).
"""

import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import av
import common
import decord
import numpy as np
import torch
from common import Row, paired

from mgm.datasets.files import video_of
from mgm.datasets.index import Index
from mgm.datasets.shards import Settings, shard_index
from mgm.datasets.synthetic.encode import encode
from mgm.errors import UserError
from mgm.spec import Clips, Guidance
from mgm.video import Clip, open_video, probe_video, slot_magnitude
from mgm.video.cut import Cut, read_cuts
from mgm.video.sample import training_indices
from mgm.video.shards import ShardReading
from mgm.video.transform import Box, cut_frames, training_box

Reader: TypeAlias = Callable[[str, np.ndarray, int], object]  # (path, frames, seed of the crop)
CLIPS, TUBELET = Clips(), 2
KINDS = ("sources", "copies", "shards")
GENERATED = "generated, h264"
REAL = common.ROOT.parent / "shared" / "data" / "clips"


@dataclass(frozen=True)
class Take:
    """How a clip of a video is read: by whom, from which file, which frames."""

    read: Reader
    path_of: Callable[[str], str] = str
    clips: Clips = CLIPS


@dataclass(frozen=True)
class File:
    """A video as the loader knows it."""

    path: str
    frames: int = 0
    label: int = 0


def cut(path: str, index_T: np.ndarray, seed: int, motion: Guidance | None) -> Clip:
    def place(height: int, width: int) -> tuple[Box, bool]:
        return training_box(CLIPS, height, width, np.random.default_rng(seed)), False

    return read_cuts(File(path), [Cut(index_T, place)], CLIPS.size, motion)[0]


def ours(path: str, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    clip = cut(path, index_T, seed, "vectors")
    return clip.frames_THWC, slot_magnitude(clip.motion_THW2, clip.distance_THW, clip.has_motion_T, TUBELET)


def without_vectors(path: str, index_T: np.ndarray, seed: int) -> np.ndarray:
    return cut(path, index_T, seed, None).frames_THWC


def resized(frames_THWC: np.ndarray, seed: int) -> np.ndarray:
    box = training_box(CLIPS, *frames_THWC.shape[1:3], np.random.default_rng(seed))
    return cut_frames(frames_THWC, box, CLIPS.size, False)


def with_decord(path: str, index_T: np.ndarray, seed: int) -> np.ndarray:
    reader = decord.VideoReader(path, num_threads=1)
    return resized(reader.get_batch(index_T.clip(max=len(reader) - 1)).asnumpy(), seed)


@cache
def mappings(path: str) -> tuple[str, tuple[int, int]]:
    """The table of frames that torchcodec takes in place of scanning the file, and height and width."""
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        size = container.streams.video[0].height, container.streams.video[0].width
    if any(packet.pts is None for packet in packets):
        return "", size
    frames = [{"pts": packet.pts, "duration": packet.duration or 0, "key_frame": int(packet.is_keyframe)} for packet in packets]
    return json.dumps({"frames": sorted(frames, key=lambda frame: frame["pts"])}), size


def with_torchcodec(path: str, index_T: np.ndarray, seed: int, own_resize: bool = False) -> np.ndarray:
    """Its own crop is of the same size elsewhere, so the work is the same."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import RandomCrop, Resize

    table, size = mappings(path)
    box = training_box(CLIPS, *size, np.random.default_rng(seed))
    transforms = [RandomCrop((int(box.height), int(box.width))), Resize((CLIPS.size, CLIPS.size))] if own_resize else None
    decoder = VideoDecoder(
        path, num_ffmpeg_threads=1, dimension_order="NHWC", transforms=transforms,
        **({"custom_frame_mappings": table} if table else {"seek_mode": "approximate"}),
    )  # fmt: skip
    frames_THWC = decoder.get_frames_at(index_T.clip(max=len(decoder) - 1).tolist()).data.numpy()
    return frames_THWC if own_resize else resized(frames_THWC, seed)


def with_mvextractor(path: str, index_T: np.ndarray, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """It reads from the first frame on, all of them, as BGR with their vectors."""
    from mvextractor.videocap import VideoCap

    capture, wanted, frames, vectors = VideoCap(), set(index_T.tolist()), [], []
    capture.open(path)
    for index in range(int(index_T[-1]) + 1):
        there, frame_HWC, vectors_N, _ = capture.read()
        if there and index in wanted:
            frames.append(frame_HWC)
            vectors.append(vectors_N)
    capture.release()
    return resized(np.stack(frames)[..., ::-1], seed), vectors


def ffmpeg_alone(path: str, index_T: np.ndarray, seed: int, motion: bool = False) -> None:
    with open_video(path) as video:
        last = index_T[-1]
        for picture in video.pictures(int(index_T[0]), motion, frozenset(index_T.tolist())):
            if picture.index >= last and (picture.is_reference or not motion):
                break


def other_readers(path: str) -> dict[str, Reader]:
    """Those that can read a video here."""
    readers: dict[str, Reader] = {
        "decord": with_decord,
        "torchcodec": with_torchcodec,
        "torchcodec's resize": partial(with_torchcodec, own_resize=True),
        "mvextractor": with_mvextractor,
    }
    for name, read in list(readers.items()):
        try:
            read(path, np.arange(2), 0)
        except (ImportError, OSError, RuntimeError) as error:
            if name != "mvextractor":
                raise SystemExit(f"{name} cannot read {path}: {error}") from None
            print(f"{name} is left out: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            del readers[name]
    return readers


def generate(folder: Path, frames: int) -> list[str]:
    """Videos of a textured scene that pans, a square that crosses it and some noise, as x264 writes them by default: long groups of
    pictures, three B-frames between the others."""
    paths = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        scene = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        paths.append(str(folder / f"{seed}.mp4"))
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for t in range(frames):
                shown = scene[t : t + 256, t : t + 340] // 2 + rng.integers(0, 24, (256, 340, 1), np.uint8)
                shown[100:160, (5 * t) % 280 : (5 * t) % 280 + 60] = 230
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode())
    return paths


def by_codec(given: Iterable[Path]) -> dict[str, list[str]]:
    """The videos among files and folders that have vectors."""
    groups = defaultdict(list)
    for path in given:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            try:
                if (info := probe_video(file)).has_vectors:
                    groups[info.codec].append(str(file))
            except UserError:  # not a video
                pass
    return groups


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(name: str, *, paths: Iterable[str], mine: Take, theirs: Take, repeats: int, goal: float) -> Row:
    """One clip of each video is a turn; the next turn's clips start elsewhere."""
    frames = {path: probe_video(path).frames for path in paths}

    def turn_of(take: Take):
        turn = iter(range(repeats + 1))

        def read_all():
            rng = np.random.default_rng(next(turn))
            for path, count in frames.items():
                take.read(take.path_of(path), training_indices(take.clips, count, rng), int(rng.integers(1000)))

        return lambda: cpu_seconds(read_all)

    my_s, their_s, ratio = paired(turn_of(mine), turn_of(theirs), repeats)
    return Row(name, len(frames) / my_s, len(frames) / their_s, ratio, goal, unit="clips/CPU s")


def in_shards(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """{path of a video: the same in a shard}."""
    folder.mkdir(parents=True)
    names = {path: f"{number:04}{Path(path).suffix}" for number, path in enumerate(paths)}
    videos = []
    for path, name, split in [*((path, name, "train") for path, name in names.items()), (min(names), "test", "test")]:
        (folder / name).symlink_to(Path(path).resolve())
        videos.append(video_of(folder, name, 0, split, name, probe_video(path)))
    index = shard_index(Index(folder, ("all",), tuple(videos), (), "", ""), folder / "out", Settings())
    made = {index.name(video).partition("/")[2]: video.path for video in index.videos}
    return {path: made[name] for path, name in names.items()}


def jpeg_alone(path: str, index_T: np.ndarray, seed: int) -> None:
    for _ in ShardReading(path, index_T, False):
        pass


def copies(paths: Iterable[str], folder: Path, short_side: int = 256) -> dict[str, str]:
    """{path of a video: its copy, as `mgm prepare --transcode` makes it}."""
    folder.mkdir(parents=True)
    made = {path: str(folder / f"{number}.mp4") for number, path in enumerate(paths)}
    for path, copy in made.items():
        with open(copy, "wb") as file:
            encode(path, file, short_side)
    return made


def measure(kind: str, name: str, files: dict[str, str], readers: dict[str, Reader], repeats: int) -> Iterator[Row]:
    """Rows of one kind of file ("sources", "copies", "shards"), `files` by the path of their source. The others read the sources."""
    peer = "sources" if kind != "sources" else ""
    torchcodec = 6 if kind == "shards" and name == GENERATED else 1.2 if kind == "sources" and name.endswith("h264") else 1
    goals = {"decord": 8 if kind == "shards" and name == GENERATED else 1.3, "torchcodec": torchcodec, "torchcodec's resize": torchcodec}
    mine, row = Take(ours, files.__getitem__), partial(compare, paths=files, repeats=repeats)
    title = f"{kind} of {name} ({len(files)} videos), "
    for other, read in readers.items():
        yield row(f"{title}against {other}{peer and f' on the {peer}'}", mine=mine, theirs=Take(read), goal=goals.get(other, 1))
    if kind != "sources":
        yield row(f"{title}against mgm on the sources", mine=mine, theirs=Take(ours), goal=1)
    yield row(f"{title}without vectors", mine=mine, theirs=Take(without_vectors, files.__getitem__), goal=0.97)
    if kind == "shards":
        yield row(f"{title}JPEG alone", mine=mine, theirs=Take(jpeg_alone, files.__getitem__), goal=0.5)
        return
    alone = Take(ffmpeg_alone, files.__getitem__)
    exporting = Take(partial(ffmpeg_alone, motion=True), files.__getitem__)
    yield row(f"{title}exporting vectors", mine=exporting, theirs=alone, goal=1 / 1.08)
    yield row(f"{title}FFmpeg alone", mine=mine, theirs=alone, goal=0.5)


def minutes(groups: dict[str, list[str]], kinds: list[str], readers: dict[str, Reader], repeats: int) -> float:
    """How long it takes, from one clip of each video; without writing copies and shards."""
    started = time.process_time()
    for path in itertools.chain(*groups.values()):
        with_decord(path, training_indices(CLIPS, probe_video(path).frames, np.random.default_rng(0)), 0)
    return (time.process_time() - started) * 1.5 * (len(readers) + 3) * len(kinds) * (repeats + 1) / 60


def measure_made(kind: str, name: str, paths: list[str], readers: dict[str, Reader], folder: Path, repeats: int) -> list[Row]:
    make = {"sources": lambda paths, _: {path: path for path in paths}, "copies": copies, "shards": in_shards}
    return list(measure(kind, name, make[kind](paths, folder / f"{kind} of {name}"), readers, repeats))


def main() -> None:
    parser = common.arguments(__doc__, repeats=7)
    parser.add_argument("--videos", type=Path, nargs="+", metavar="DIR|FILE", help="videos to read")
    parser.add_argument("--most", type=int, default=8, help="videos of a codec, evenly picked (8)")
    parser.add_argument("--frames", type=int, default=300, help="of a generated video (300)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="of files to read (all three)")
    args = parser.parse_args()
    common.lend_pyavs_ffmpeg()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        groups = {} if args.videos else {GENERATED: generate(Path(folder), args.frames)}
        groups |= by_codec(args.videos or ([REAL] if REAL.exists() else []))
        readers = other_readers(next(iter(groups.values()))[0])
        some = {name: paths[:: -(-len(paths) // args.most)] for name, paths in groups.items()}
        tasks = {
            f"{kind} of {name}": partial(measure_made, kind, name, paths, readers, Path(folder), args.repeats)
            for name, paths in some.items()
            for kind in args.kinds
        }
        takes = f"about {minutes(some, args.kinds, readers, args.repeats):.0f} minutes"
        common.finish(common.measured("loader", takes, tasks, args.json), args.json)


if __name__ == "__main__":
    main()
