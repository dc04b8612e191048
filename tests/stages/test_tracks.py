"""`mgm track`: its output, interruptions and refusals, and runs that are guided by tracks."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data import tracks
from mgm.data.copies import check_files
from mgm.data.index import read_index, write_index
from mgm.data.tracks import write_tracks
from mgm.errors import NoMotion, UserError
from mgm.spec import Mask
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from mgm.video.optical_flow import estimator, motions
from mgm.video.track import Track, track_path
from tests.helpers.videos import moving_square, write_video

COUNT = 36  # 3 classes of 8 training and 4 test videos


@pytest.fixture
def folder(videos, tmp_path):
    """Return a copy of the generated set, because tracks are written into it."""
    return shutil.copytree(videos, tmp_path / "ssv2")


def files(folder, method="dis"):
    return sorted(folder.rglob(f"*.{method}.track"))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.is_file()}


def test_every_video_gets_its_flow_and_the_marker_says_so(folder, capsys):
    marker, index = write_tracks(folder, "dis"), read_index(folder)
    assert json.loads((folder / "tracks-dis.json").read_text()) == marker
    wanted = {"method": "dis", "weights": "", "digest": index.digest, "videos": COUNT}
    assert marker == marker | wanted
    assert files(folder) == sorted(Path(track_path(v.track, "dis")) for v in index.videos)
    for video in index.videos[::10]:
        track = Track(track_path(video.track, "dis"))
        assert (len(track), track.size) == (12, (32, 32))
        for t, motion_HW2, _ in motions(video.path, estimator("dis")):
            stored_HW2 = track[[t]].vectors_THW2[0]
            np.testing.assert_array_equal(stored_HW2, motion_HW2.astype(np.float16))
    assert f"writing dis tracks: {COUNT} of {COUNT}" in capsys.readouterr().err


def test_several_processes_write_the_same_files(folder, videos, tmp_path):
    other = shutil.copytree(videos, tmp_path / "other")
    write_tracks(folder, "dis")
    write_tracks(other, "dis", processes=2)
    for one, two in zip(files(folder), files(other), strict=True):
        assert one.relative_to(folder) == two.relative_to(other)
        assert one.read_bytes() == two.read_bytes()


def test_an_interrupted_call_leaves_no_marker_and_the_next_one_does_the_rest(folder, monkeypatch):
    real, written = tracks.write_track, []

    def stopping(video, *args):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(video)
        return real(video, *args)

    monkeypatch.setattr(tracks, "write_track", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_tracks(folder, "dis")
    monkeypatch.setattr(tracks, "write_track", real)
    assert len(files(folder)) == 5
    assert not (folder / "tracks-dis.json").exists()
    one, other, *_ = files(folder)
    one.write_bytes(b"half of one")
    shutil.copy(files(folder)[2], other)  # of another video, unless both have as many bytes
    (one.parent / ".123.of a kill.track").touch()
    before = times(folder)
    write_tracks(folder, "dis")
    after = times(folder)
    assert not (one.parent / ".123.of a kill.track").exists()
    assert [path for path in files(folder)[2:5] if after[path] != before[path]] == []
    assert after[one] != before[one]
    # Only the marker is written again.
    write_tracks(folder, "dis")
    assert {path for path, time in times(folder).items() if time != after[path]} <= {
        folder / "tracks-dis.json"
    }


def test_a_track_is_made_again_when_its_video_is_another_of_equal_size(folder):
    index = read_index(folder)
    first, second = (Path(track_path(video.track, "codec")) for video in index.train[:2])
    before = times(folder)
    later = before[first] + 10**12
    for video, change in zip(index.train, (1, 0)):
        data = bytearray(Path(video.path).read_bytes())
        # The last byte is of a text that names the encoder.
        data[-1] ^= change
        Path(video.path).write_bytes(data)
        os.utime(video.path, ns=(later, later))
    with pytest.raises(NoMotion, match=r"as it is now \(1 of 24 .*mgm track"):
        check_files(folder, index, "codec")
    write_tracks(folder)
    check_files(folder, index, "codec")
    assert times(folder)[first] != before[first]
    # Its video has a later time and the same content.
    assert times(folder)[second] == later
    Path(index.train[0].path).unlink()
    with pytest.raises(UserError, match="1 are missing"):
        check_files(folder, index, "codec")


def test_videos_that_cannot_be_read_are_named_once_the_others_are_done(folder):
    index = read_index(folder)
    for video in index.videos[3:5]:
        Path(video.path).write_bytes(b"no video")
    with pytest.raises(UserError, match=rf"{re.escape(index.videos[3].path)}: .*2 of {COUNT}"):
        write_tracks(folder, "dis")
    assert len(files(folder)) == COUNT - 2
    assert not (folder / "tracks-dis.json").exists()


@pytest.fixture
def weights(tmp_path):
    """Return the paths of two different sets of RAFT-small weights."""
    from torchvision.models.optical_flow import raft_small

    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        torch.save(raft_small(weights=None).state_dict(), path)
    return paths


def test_flow_of_other_weights_is_never_mixed(folder, weights, monkeypatch):
    still = np.zeros((4, 4, 2), np.float32)
    monkeypatch.setattr(
        "mgm.video.optical_flow.motions",
        lambda path, estimate: ((t, still, (32, 32)) for t in range(12)),
    )
    marker = write_tracks(folder, "raft-small", weights[0])
    assert re.fullmatch("[0-9a-f]{64}", marker["weights"])
    before = times(folder)
    with pytest.raises(UserError, match=r"\.raft-small\.track: .*weights \w{12}, .*\w{12};"):
        write_tracks(folder, "raft-small", weights[1])
    assert times(folder) == before


def test_the_command(folder):
    def mgm(*words):
        return CliRunner().invoke(app, ["track", *map(str, words)])

    last = mgm(folder, "--method", "dis").output.splitlines()[-1]
    assert last == f"tracks of {COUNT} videos by dis: {folder}/tracks-dis.json"
    wrong = mgm(folder, "--method", "raft-small", "--weights", "none.pth")
    assert str(wrong.exception).startswith("none.pth: ")


def test_a_video_that_loses_frames_is_left_out_with_its_reason(tmp_path):
    """The size of its pictures changes, which opening it does not show."""
    for label in ("a", "b"):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for number in range(6):
            path = tmp_path / "videos" / label / f"{number}.mpg"
            write_video(path, moving_square(6, seed=number), codec="mpeg1video")
    other = write_video(tmp_path / "large.mpg", moving_square(6, 96, 96), codec="mpeg1video")
    odd = tmp_path / "videos" / "a" / "0.mpg"
    odd.write_bytes(odd.read_bytes() + Path(other).read_bytes())
    words = ["prepare", "folder", "--source", str(tmp_path / "videos"), "--motion", "dis"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    index = read_index(tmp_path / "out")
    assert len(index.videos) == 11
    assert dict(index.excluded)["a/0.mpg"].startswith("frame 5 has 96 x 96 pixels")
    for method in ("codec", "dis"):
        assert all(Path(track_path(video.track, method)).is_file() for video in index.videos)


def test_a_mask_guided_by_flow_trains_on_videos_without_vectors(
    folder, execution, pretraining, result_of
):
    spec = pretraining.model_copy(update={"mask": Mask(name="mgm", guidance="dis")})
    execution.data["ssv2"] = folder
    index = read_index(folder)
    videos = tuple(replace(video, has_vectors=False) for video in index.videos)
    write_index(replace(index, videos=videos), folder)
    with pytest.raises(UserError, match=r"100000\.mp4: .*24 of 24 .*mask mgm"):
        run_all([pretraining], pretrain, execution)
    first = track_path(read_index(folder).train[0].track, "dis")
    words = f"{first}: .*24 of 24 .*mgm track {folder} --method dis"
    with pytest.raises(NoMotion, match=words) as error:
        run_all([spec], pretrain, execution)
    assert "\n" not in str(error.value)
    write_tracks(folder, "dis")
    run_all([spec], pretrain, execution)
    assert result_of(spec)["failed_videos"] == []
    log = execution.results / spec.run_id / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(0 < line["coverage"] <= 1 for line in lines)


@pytest.mark.parametrize("guidance", ["vectors", "shuffled"])
def test_a_track_that_broke_stops_a_run_in_one_line(folder, execution, pretraining, guidance):
    execution.data["ssv2"] = folder
    mask = Mask(name="mgm", guidance=guidance)
    spec = pretraining.model_copy(update={"mask": mask})
    path = Path(track_path(read_index(folder).train[5].track, "codec"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(NoMotion, match=f"{path}: is not a whole track") as error:
        run_all([spec], pretrain, execution)
    assert "\n" not in str(error.value)
