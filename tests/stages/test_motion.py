"""`mgm motion` against a slow loop over the vectors that PyAV exports."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mgm
from mgm.cli import app
from mgm.stages.motion import MOVES
from tests.helpers.videos import CARRIED, moving_square, write_video


def slow(path) -> dict[str, float]:
    """Return the row of a video, frame by frame and cell by cell."""
    clip, known = mgm.read(path), mgm.track(path)
    speeds, pans = [], []
    for t in np.flatnonzero(clip.has_motion_T):
        cells_N2 = (clip.motion_THW2[t] / clip.distance_THW[t][..., None]).reshape(-1, 2)
        speeds += [(dx**2 + dy**2) ** 0.5 for dx, dy in cells_N2.tolist()]
        pans.append(np.median(cells_N2, 0))
    kinds = known.kind_T.tolist()
    return {
        "mean_speed": np.mean(speeds),
        "moving": np.mean([speed >= MOVES for speed in speeds]),
        "pan_x": np.mean(pans, 0)[0],
        "pan_y": np.mean(pans, 0)[1],
        "i_frames": kinds.count("I") / len(kinds),
        "seconds": known.time_T.max() - known.time_T.min() + 1 / known.fps,
    }


def rows_of(text: str) -> dict[str, dict[str, str]]:
    return {row.pop("video"): row for row in csv.DictReader(text.splitlines())}


def test_the_table_is_that_of_a_slow_loop_from_videos_and_from_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr("mgm.stages.motion.cores", lambda: 1)
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in CARRIED:
        shutil.copy(path, folder)
    write_video(folder / "vp9.webm", moving_square(8), codec="libvpx-vp9")
    (folder / "broken.mp4").write_bytes(b"noise")
    out = tmp_path / "table.csv"
    done = CliRunner().invoke(app, ["motion", str(folder), "--csv", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{len(CARRIED)} videos; 2 without motion are left out" in done.stdout
    for name in ("vp9.webm", "broken.mp4"):
        assert f"mgm: {folder / name}: " in done.stderr
    found = rows_of(out.read_text())
    assert found.keys() == {path.name for path in CARRIED}
    for path in CARRIED:
        for column, value in slow(path).items():
            assert float(found[path.name][column]) == pytest.approx(value, rel=1e-5), column
        assert 0 < float(found[path.name]["residual"]) < 1
    (folder / "broken.mp4").unlink()
    words = ["prepare", "folder", "--source", str(folder), "--out", str(tmp_path / "data")]
    words += ["--processes", "1"]
    assert CliRunner().invoke(app, [*words, "--short-side", "64"]).exit_code == 0
    shutil.rmtree(folder)
    prepared = rows_of(CliRunner().invoke(app, ["motion", str(tmp_path / "data")]).stdout)
    assert {Path(name).stem for name in prepared} == {path.stem for path in CARRIED} | {"vp9"}
    for name, row in prepared.items():
        if Path(name).stem != "vp9":
            own = next(r for n, r in found.items() if Path(n).stem == Path(name).stem)
            assert row == own | {"residual": "nan"}


def test_a_name_that_is_not_utf8_is_written_and_no_file_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("mgm.stages.motion.cores", lambda: 1)
    video = tmp_path / os.fsdecode(b"\xff.mp4")
    shutil.copy(CARRIED[0], video)
    words = ["motion", str(video), "--csv", str(tmp_path / "table.csv")]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert rows_of((tmp_path / "table.csv").read_text()).keys() == {r"\udcff.mp4"}
    before = video.read_bytes()
    done = CliRunner().invoke(app, [*words[:-1], str(video)])
    assert "exists" in str(done.exception)
    assert video.read_bytes() == before
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0


def test_a_folder_without_motion_is_one_line(tmp_path):
    write_video(tmp_path / "v.webm", moving_square(8), codec="libvpx-vp9")
    done = CliRunner().invoke(app, ["motion", str(tmp_path)])
    assert str(done.exception).endswith("none of 1 files has motion vectors")
    (tmp_path / "v.webm").unlink()
    done = CliRunner().invoke(app, ["motion", str(tmp_path)])
    assert "has no videos" in str(done.exception)
