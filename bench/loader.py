"""Loading: clips per second of CPU time with motion vectors, against other readers without.

CPU time, of all threads, is what a core gives: a reader that decodes in threads of its own gains
nothing by them, and a busy machine disturbs it less than the clock.

A clip is 16 frames at stride 4 from a random start, cut by MultiScaleCrop and resized to 224; all
open the file anew for each, and take the same frames, crop and resize. Ours reads the vectors as
well and makes the magnitude of each slot. "FFmpeg alone" only decodes the pictures that ours
decodes and converts none, so its ratio is the share of our time that decoding takes; the same "with
vectors" exports them. "JPEG alone" decodes the frames of shards.

torchcodec is at its best: one thread, tables of frames made beforehand, and the faster of its own
crop and resize and ours. It is lent PyAV's FFmpeg. A reader that gives other frames than those it
is asked for is left out, and a line says so; one that cannot read ends the bench with an error.

"Copies" are `mgm prepare --transcode` of the same videos and "shards" `mgm prepare --shards`; the
others read the sources for them too.

Without --videos: the clips in ../shared/data if they are there, and always two generated videos
like K400's (340 x 256, 300 frames).
"""

import itertools
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import av
import common
import decord
import numpy as np
import torch
from common import Row, compared, cpu_seconds

from mgm.data.encode import encode
from mgm.data.files import open_all
from mgm.data.index import Index
from mgm.data.shards import Settings, write_shards
from mgm.errors import UserError
from mgm.spec import Clips, Guidance
from mgm.video import Clip, open_video, probe_video, slot_magnitude
from mgm.video.cut import Cut, read_cuts
from mgm.video.sample import training_indices
from mgm.video.shard_reader import ShardReading
from mgm.video.transform import Box, cut_frames, training_box

Reader: TypeAlias = Callable[[str, np.ndarray, int], object]  # (path, frames, seed of the crop)
CLIPS, TUBELET = Clips(), 2
# mean difference of pixels, of 255, between readers of the same frames: they convert colours each
# in their own way
SAME = 3
KINDS = ("sources", "copies", "shards")
GENERATED = "generated, h264"
REAL = common.ROOT.parent / "shared" / "data" / "clips"


@dataclass(frozen=True)
class Take:
    """How a clip of a video is read: by whom, from which file."""

    read: Reader
    path_of: Callable[[str], str] = str


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
    return clip.frames_THWC, slot_magnitude(
        clip.motion_THW2, clip.distance_THW, clip.has_motion_T, TUBELET
    )


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
    """The table of frames that torchcodec takes in place of scanning the file, and height and
    width.
    """
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        size = container.streams.video[0].height, container.streams.video[0].width
    if any(packet.pts is None for packet in packets):
        return "", size
    frames = [
        {"pts": packet.pts, "duration": packet.duration or 0, "key_frame": int(packet.is_keyframe)}
        for packet in packets
    ]
    return json.dumps({"frames": sorted(frames, key=lambda frame: frame["pts"])}), size


def with_torchcodec(
    path: str, index_T: np.ndarray, seed: int, own_resize: bool = False
) -> np.ndarray:
    """Its own crop is of the same size elsewhere, so the work is the same."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import RandomCrop, Resize

    table, size = mappings(path)
    box = training_box(CLIPS, *size, np.random.default_rng(seed))
    transforms = (
        [RandomCrop((int(box.height), int(box.width))), Resize((CLIPS.size, CLIPS.size))]
        if own_resize
        else None
    )
    decoder = VideoDecoder(
        path,
        num_ffmpeg_threads=1,
        dimension_order="NHWC",
        transforms=transforms,
        **({"custom_frame_mappings": table} if table else {"seek_mode": "approximate"}),
    )
    frames_THWC = decoder.get_frames_at(index_T.clip(max=len(decoder) - 1).tolist()).data.numpy()
    return frames_THWC if own_resize else resized(frames_THWC, seed)


def ffmpeg_alone(path: str, index_T: np.ndarray, seed: int, motion: bool = False) -> None:
    with open_video(path) as video:
        last = index_T[-1]
        for picture in video.pictures(int(index_T[0]), motion, frozenset(index_T.tolist())):
            if picture.index >= last and (picture.is_reference or not motion):
                break


OTHERS: dict[str, Reader] = {
    "decord": with_decord,
    "torchcodec": with_torchcodec,
    "torchcodec's resize": partial(with_torchcodec, own_resize=True),
}


@cache
def reads(name: str, path: str) -> bool:
    """Whether another reader gives the frames that it is asked for;

    a line says so where it does not.
    """
    index_T = training_indices(CLIPS, probe_video(path).frames, np.random.default_rng(0))
    try:
        OTHERS[name](path, index_T, 0)
        found = (with_decord if name == "decord" else with_torchcodec)(
            path, index_T, 0
        )  # its own crop lies elsewhere
    except (ImportError, OSError, RuntimeError) as error:
        raise SystemExit(f"{name} cannot read {path}: {error}") from None
    if np.abs(found.astype(int) - without_vectors(path, index_T, 0)).mean() < SAME:
        return True
    print(
        f"{name} is left out: of {path} it gives other frames than those it is asked for",
        file=sys.stderr,
    )
    return False


def generate(folder: Path, frames: int) -> list[str]:
    """Videos of a textured scene that pans, a square that crosses it and some noise, as x264 writes
    them by default: long groups of pictures, three B-frames between the others."""
    paths = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        scene = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        paths.append(str(folder / f"{seed}.mp4"))
        with av.open(paths[-1], "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for t in range(frames):
                shown = scene[t : t + 256, t : t + 340] // 2 + rng.integers(
                    0, 24, (256, 340, 1), np.uint8
                )
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


def compare(
    title: str, paths: Iterable[str], mine: Take, peers: dict[str, tuple[Take, float]], repeats: int
) -> list[Row]:
    """A row for each peer, which has a goal.

    One clip of each video is a turn; the next turn's clips start elsewhere.
    """
    frames = {path: probe_video(path).frames for path in paths}

    def turn_of(take: Take) -> Callable[[], float]:
        turn = iter(range(repeats + 1))

        def read_all() -> None:
            rng = np.random.default_rng(next(turn))
            for path, count in frames.items():
                take.read(
                    take.path_of(path), training_indices(CLIPS, count, rng), int(rng.integers(1000))
                )

        return lambda: cpu_seconds(read_all)

    times = compared(turn_of(mine), [turn_of(take) for take, _ in peers.values()], repeats)
    return [
        Row(f"{title}{name}", len(frames) / my_s, len(frames) / their_s, ratio, goal, "clips/CPU s")
        for (name, (_, goal)), (my_s, their_s, ratio) in zip(peers.items(), times)
    ]


def in_shards(paths: Iterable[str], folder: Path) -> dict[str, str]:
    """{path of a video: the same in a shard}."""
    folder.mkdir(parents=True)
    names = {path: f"{number:04}{Path(path).suffix}" for number, path in enumerate(paths)}
    split_of = dict.fromkeys(names.values(), "train") | {"test": "test"}
    for path, name in [*names.items(), (min(names), "test")]:
        (folder / name).symlink_to(Path(path).resolve())
    found, _ = open_all(folder, list(split_of))
    videos = tuple(
        replace(video, split=split_of[name], group=name) for name, video in found.items()
    )
    index = write_shards(Index(folder, ("all",), videos, (), "", ""), folder / "out", Settings())
    assert isinstance(index, Index)
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


def measure(kind: str, name: str, paths: list[str], folder: Path, repeats: int) -> list[Row]:
    """Rows of one kind of file ("sources", "copies", "shards") made of the videos `paths`."""
    files = (
        {path: path for path in paths}
        if kind == "sources"
        else {"copies": copies, "shards": in_shards}[kind](paths, folder)
    )
    generated_shards, on = (
        kind == "shards" and name == GENERATED,
        "" if kind == "sources" else " on the sources",
    )
    goals = dict.fromkeys(
        OTHERS, 6 if generated_shards else 1.2 if kind == "sources" and "h264" in name else 1
    )
    goals["decord"] = 8 if generated_shards else 1.3

    def own(read: Reader) -> Take:
        return Take(read, files.__getitem__)

    right = [other for other in OTHERS if all(reads(other, path) for path in paths)]
    peers = {f"against {other}{on}": (Take(OTHERS[other]), goals[other]) for other in right}
    if on:
        peers["against mgm on the sources"] = Take(ours), 1
    peers["without vectors"] = own(without_vectors), 0.97
    if kind == "shards":
        peers["JPEG alone"] = own(jpeg_alone), 0.5
    else:
        peers |= {
            "FFmpeg alone": (own(ffmpeg_alone), 0.5),
            "FFmpeg alone, with vectors": (own(partial(ffmpeg_alone, motion=True)), 0.5),
        }
    return compare(f"{kind} of {name} ({len(files)} videos), ", paths, own(ours), peers, repeats)


def minutes(groups: dict[str, list[str]], kinds: list[str], repeats: int) -> float:
    """How long it takes, from one clip of each video; without writing copies and shards."""
    paths = [*itertools.chain(*groups.values())]
    took = cpu_seconds(
        lambda: [
            with_decord(path, training_indices(CLIPS, 61, np.random.default_rng(0)), 0)
            for path in paths
        ]
    )
    return took * (len(OTHERS) + 4) * len(kinds) * (repeats + 1) / 60


def main() -> None:
    parser = common.arguments(__doc__, repeats=7)
    parser.add_argument("--videos", type=Path, nargs="+", metavar="DIR|FILE", help="videos to read")
    parser.add_argument("--most", type=int, default=8, help="videos of a codec, evenly picked (8)")
    parser.add_argument("--frames", type=int, default=300, help="of a generated video (300)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=list(KINDS),
        choices=KINDS,
        help="of files to read (all three)",
    )
    args = parser.parse_args()
    common.lend_pyavs_ffmpeg()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        groups = {} if args.videos else {GENERATED: generate(Path(folder), args.frames)}
        groups |= by_codec(args.videos or ([REAL] if REAL.exists() else []))
        some = {name: paths[:: -(-len(paths) // args.most)] for name, paths in groups.items()}
        tasks = {
            f"{kind} of {name}": partial(
                measure, kind, name, paths, Path(folder) / f"{kind} of {name}", args.repeats
            )
            for name, paths in some.items()
            for kind in args.kinds
        }
        takes = f"about {minutes(some, args.kinds, args.repeats):.0f} minutes"
        common.finish(common.measured("loader", takes, tasks, args.json), args.json)


if __name__ == "__main__":
    main()
