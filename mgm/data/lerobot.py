"""Datasets in the layout of LeRobot v3: Parquet tables, and MP4 files of many episodes each.

An episode is a part of a file, and AV1, LeRobot's default, has no motion vectors. So each episode
becomes an H.264 file of its own in OUT/episodes/CAMERA, encoded as by `--transcode`. Its class is
its task. OUT/episodes.csv lists them for `mgm.data.folder`.

    meta/info.json               version, frame rate, and cameras
    meta/episodes/*/*.parquet    per episode: tasks, length, and where each camera's video begins
    videos/CAMERA/*/*.mp4        the videos
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from mgm.console import show, track
from mgm.data.folder import index_folder
from mgm.data.index import Index, content_hash
from mgm.data.opening import cores, in_processes
from mgm.data.transcode import SHORT_SIDES, transcode_one
from mgm.errors import valid
from mgm.reading import read_json
from mgm.results import atomic


class _Feature(BaseModel):
    dtype: str


class _Info(BaseModel):
    """The fields of meta/info.json that are read."""

    codebase_version: str = Field(pattern=r"^v3\.")
    fps: float = Field(gt=0)
    video_path: Literal["videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"]
    # A camera's name is that of a folder.
    features: dict[Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")], _Feature]
    splits: dict[str, str] = {}
    # Not in the file: the camera that is asked for. Empty: the first.
    camera: str = ""

    @model_validator(mode="after")
    def _has_the_camera(self):
        cameras = [name for name, feature in self.features.items() if feature.dtype == "video"]
        if (self.camera and self.camera not in cameras) or not cameras:
            raise ValueError(f"no camera {self.camera!r}; the cameras are {', '.join(cameras)}")
        self.camera = self.camera or cameras[0]
        return self


class _Episode(BaseModel):
    """A row of meta/episodes. The last three fields are those of one camera."""

    episode_index: int = Field(ge=0)
    tasks: list[str] = Field(min_length=1)
    length: int = Field(ge=1)
    chunk_index: int = Field(ge=0)
    file_index: int = Field(ge=0)
    from_timestamp: float = Field(ge=0)


def index_lerobot(source: Path, out: Path, seed: int = 0, camera: str = "") -> Index:
    """Cut the episodes of a dataset into files, and index them. Finished files are kept.

    Args:
        source: the dataset's folder, which holds `meta` and `videos`.
        out: folder for `episodes`, `episodes.csv` and the index.
        seed: of the split, if the dataset has no episodes to test on.
        camera: the key of a camera. Empty: the first.

    Raises:
        UserError: the folder has another layout, an episode cannot be read, or the disk is full.
    """
    place = source / "meta" / "info.json"
    with valid(f"{place}: "):
        info = _Info.model_validate(read_json(place) | {"camera": camera})
    camera = info.camera
    split_of = _splits(info)
    with_split = set(split_of.values()) == {"train", "test"}
    tasks, row_of, content_of = [], dict[str, list[str]](), dict[str, str]()
    for episode in _episodes(source, camera):
        number = episode.episode_index
        video = info.video_path.format(
            video_key=camera, chunk_index=episode.chunk_index, file_index=episode.file_index
        )
        path = str(source / video)
        if path not in content_of:
            content_of[path] = content_hash(path)
        first = round(episode.from_timestamp * info.fps)
        part = range(first, first + episode.length)
        # Another video or other frames get another name.
        digest = hashlib.sha256(f"{content_of[path]} {part}".encode()).hexdigest()[:8]
        name = f"episodes/{camera}/{number:06d}-{digest}.mp4"
        tasks.append((path, episode.length, out / name, SHORT_SIDES[0], part))
        split = [split_of.get(number, "train")] if with_split else []
        row_of[name] = [name, episode.tasks[0], *split]
    tasks = [task for task in tasks if not task[2].exists()]
    done = track(in_processes(transcode_one, tasks, cores()), f"episodes of {camera}", len(tasks))
    if failed := [f"{path}: {reason}" for path, reason in done if reason]:
        show(f"{len(failed)} episodes are left out; the first: {failed[0]}")
    listed = out / "episodes.csv"
    with (
        atomic.atomic_write(listed) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        rows = atomic.table_writer(file)
        rows.writerow(["path", "label", *["split"] * with_split])
        rows.writerows(row for name, row in row_of.items() if (out / name).exists())
    return index_folder(listed, out, seed)


def _splits(info: _Info) -> dict[int, str]:
    """Return the split of each episode, from ranges such as "0:80"."""
    split_of = dict[int, str]()
    for name, text in info.splits.items():
        begin, _, end = text.partition(":")
        if begin.isdecimal() and end.isdecimal():
            split = "train" if name == "train" else "test"
            split_of |= dict.fromkeys(range(int(begin), int(end)), split)
    return split_of


def _episodes(source: Path, camera: str) -> list[_Episode]:
    # An optional package.
    from pyarrow import parquet

    episodes = list[_Episode]()
    for path in sorted((source / "meta" / "episodes").glob("*/*.parquet")):
        for number, row in enumerate(parquet.read_table(path).to_pylist()):
            own = {name.removeprefix(f"videos/{camera}/"): value for name, value in row.items()}
            with valid(f"{path}: row {number}: "):
                episodes.append(_Episode.model_validate(own))
    return episodes
