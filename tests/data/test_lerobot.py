"""`mgm prepare lerobot` on a dataset in LeRobot's layout, v3: several episodes per AV1 file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index
from mgm.video import probe_video, read_clip
from tests.helpers.videos import moving_square, write_video

CAMERA, FPS = "observation.images.top", 10
LENGTHS = [9, 12, 7, 10, 11, 8, 9, 12, 10, 9]


def drawn(episode: int) -> np.ndarray:
    """Return frames whose brightness tells the episode."""
    frames = moving_square(LENGTHS[episode], 64, 96, (2, 1), side=24, seed=episode)
    return (frames // 4 + 18 * episode).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "robot"
    rows = []
    for number, episodes in enumerate([range(6), range(6, 10)]):
        folder = root / "videos" / CAMERA / "chunk-000"
        folder.mkdir(parents=True, exist_ok=True)
        frames = np.concatenate([drawn(episode) for episode in episodes])
        write_video(folder / f"file-{number:03d}.mp4", frames, "libsvtav1", rate=FPS, crf=20)
        begins = np.cumsum([0, *(LENGTHS[episode] for episode in episodes)])
        for episode, begin in zip(episodes, begins):
            own = {"chunk_index": 0, "file_index": number, "from_timestamp": begin / FPS}
            rows.append(
                {"episode_index": episode, "length": LENGTHS[episode]}
                | {"tasks": ["push" if episode % 2 else "pull"]}
                | {f"videos/{CAMERA}/{name}": value for name, value in own.items()}
            )
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {"action": {"dtype": "float32"}, CAMERA: {"dtype": "video"}},
        "splits": {"train": "0:10"},
    }
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return root


def number(video) -> int:
    return int(Path(video.path).stem[:6])


def prepare(dataset, out, *words):
    command = ["prepare", "lerobot", "--source", str(dataset), "--out", str(out), *words]
    return CliRunner().invoke(app, command)


def test_each_episode_becomes_a_file_with_vectors(dataset, tmp_path):
    assert probe_video(dataset / "videos" / CAMERA / "chunk-000" / "file-000.mp4").codec == "av1"
    done = prepare(dataset, tmp_path / "out")
    assert done.exit_code == 0, (done.output, done.exception)
    index = read_index(tmp_path / "out")
    assert index.classes == ("pull", "push")
    assert {video.split for video in index.videos} == {"train", "test"}
    for video in index.videos:
        episode = number(video)
        assert (video.frames, video.codec) == (LENGTHS[episode], "h264")
        assert video.label == episode % 2
        clip = read_clip(video.path, range(video.frames))
        # AV1 and H.264 both lose some steps of 256; episodes differ by 18.
        means_T = clip.frames_THWC.mean((1, 2, 3)) - drawn(episode).mean((1, 2, 3))
        assert np.abs(means_T).max() < 6
    first = index.videos[0].path
    before = Path(first).stat().st_mtime_ns
    assert prepare(dataset, tmp_path / "out").exit_code == 0
    assert Path(first).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ({"codebase_version": "v2.1"}, (), "codebase_version"),
        ({"fps": 0}, (), "fps"),
        ({}, ("--camera", "wrist"), "wrist"),
        ({"video_path": "../{video_key}/file-9.mp4"}, (), "video_path"),
        ({"features": {"../robot": {"dtype": "video"}}}, (), "features"),
    ],
)
def test_another_layout_is_one_line(dataset, tmp_path, change, words, says):
    path = dataset / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = prepare(dataset, tmp_path / "out", *words)
    assert says in str(done.exception)
    assert not (tmp_path / "out" / "index.json").exists()


def test_the_datasets_split_is_kept_and_an_episode_cut_short_is_left_out(dataset, tmp_path, capfd):
    path = dataset / "meta" / "info.json"
    info = json.loads(path.read_text()) | {"splits": {"train": "0:7", "val": "7:10"}}
    path.write_text(json.dumps(info))
    path = dataset / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    table = pd.read_parquet(path)
    table.loc[9, "length"] = 99
    table.to_parquet(path)
    done = prepare(dataset, tmp_path / "out")
    assert done.exit_code == 0, done.exception
    assert "9 of its 99 frames" in done.output + capfd.readouterr().err
    videos = read_index(tmp_path / "out").videos
    assert len(videos) == 9
    for video in videos:
        assert (video.split == "test") == (number(video) >= 7)
