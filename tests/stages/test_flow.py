"""`mgm flow`: its output, interruptions and refusals, and runs that are guided by flow."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.index import read_index, write_index
from mgm.errors import UserError
from mgm.spec import Mask
from mgm.stages import flow as job
from mgm.stages.flow import flow, require_flow
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all
from mgm.video.optical_flow import NoFlow, estimator, motions, sidecar
from tests.helpers.errors import refused

COUNT = 36  # 3 classes of 8 training and 4 test videos


@pytest.fixture
def folder(videos, tmp_path):
    """Return a copy of the generated set, because flow is written into it."""
    return shutil.copytree(videos, tmp_path / "ssv2")


@pytest.mark.parametrize("text", ["[]", "null", '{"weights": 5}'])
def test_an_odd_marker_is_one_line(folder, text):
    (folder / "flow-dis.json").write_text(text)
    with refused("flow-dis.json: "):
        flow(folder, "dis")


def sidecars(folder):
    # a cache may have left its store of crops beside the set
    return sorted(folder.rglob("*.*.npy"))


def test_every_video_gets_its_flow_and_the_marker_says_so(folder, capsys):
    marker = flow(folder, "dis")
    index = read_index(folder)
    assert (
        json.loads((folder / "flow-dis.json").read_text())
        == marker
        == require_flow(folder, index.videos, "dis")
    )
    wanted = {
        "method": "dis",
        "weights": None,
        "digest": index.digest,
        "videos": COUNT,
        "computed": COUNT,
        "processes": 1,
    }
    assert marker == marker | wanted
    assert marker["seconds"] > 0
    assert {"mgm", "opencv-python-headless"} <= marker["versions"].keys()
    assert len(index.train) == 24
    assert sidecars(folder) == sorted(sidecar(video.path, "dis") for video in index.videos)
    for video in index.videos[::10]:
        whole = np.load(sidecar(video.path, "dis"))
        assert whole.shape == (12, 4, 4, 2)
        for t, motion_HW2 in motions(video.path, estimator("dis")):
            np.testing.assert_array_equal(whole[t], motion_HW2.astype(np.float16))
    assert f"flow dis: {COUNT} of {COUNT}" in capsys.readouterr().err


def test_several_processes_write_the_same_files(folder, videos, tmp_path):
    other = shutil.copytree(videos, tmp_path / "other")
    flow(folder, "dis")
    flow(other, "dis", processes=2)
    for one, two in zip(sidecars(folder), sidecars(other), strict=True):
        assert one.relative_to(folder) == two.relative_to(other)
        assert one.read_bytes() == two.read_bytes()


def test_an_interrupted_call_leaves_no_marker_and_the_next_one_does_the_rest(folder, monkeypatch):
    real, written = job.write_flow, []

    def stopping(path, *args):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        return real(path, *args)

    monkeypatch.setattr(job, "write_flow", stopping)
    with pytest.raises(KeyboardInterrupt):
        flow(folder, "dis")
    monkeypatch.setattr(job, "write_flow", real)
    assert len(sidecars(folder)) == 5
    assert not (folder / "flow-dis.json").exists()
    with pytest.raises(NoFlow, match=r"flow-dis\.json: "):
        require_flow(
            folder, [video for video in read_index(folder).videos if video.path in written], "dis"
        )

    sidecars(folder)[0].write_bytes(b"half of one")
    np.save(sidecars(folder)[1], np.zeros((11, 4, 4, 2), np.float16))
    times = {path: path.stat().st_mtime_ns for path in sidecars(folder)}
    assert flow(folder, "dis")["computed"] == COUNT - 3
    assert [path for path, time in times.items() if path.stat().st_mtime_ns == time] == list(times)[
        2:
    ]
    for again in range(
        2
    ):  # if all is done, nothing is touched, and only a missing marker is written
        times = {
            path: path.stat().st_mtime_ns for path in [*sidecars(folder), folder / "flow-dis.json"]
        }
        assert flow(folder, "dis")["computed"] == (0 if again else COUNT - 3)
        assert {path: path.stat().st_mtime_ns for path in times} == times
        (folder / "flow-dis.json").unlink()
        assert flow(folder, "dis")["computed"] == 0


def test_videos_that_cannot_be_read_are_named_once_the_others_are_done(folder):
    index = read_index(folder)
    for video in index.videos[3:5]:
        with open(video.path, "wb") as file:
            file.write(b"no video")
    with pytest.raises(UserError, match=rf"{re.escape(index.videos[3].path)}: .*2 of {COUNT}"):
        flow(folder, "dis")
    assert len(sidecars(folder)) == COUNT - 2
    assert not (folder / "flow-dis.json").exists()


@pytest.fixture
def weights(tmp_path):
    """Return the paths of two different sets of RAFT-small weights."""
    from torchvision.models.optical_flow import raft_small

    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        torch.save(raft_small(weights=None).state_dict(), path)
    return paths


def test_flow_of_other_weights_is_never_mixed(folder, weights, monkeypatch):
    monkeypatch.setattr(
        job,
        "write_flow",
        lambda path, method, estimate, shape: np.save(
            sidecar(path, method), np.zeros((*shape, 2), np.float16)
        ),
    )
    flow(folder, "raft-small", weights[0])
    assert re.fullmatch(
        "[0-9a-f]{64}", json.loads((folder / "flow-raft-small.json").read_text())["weights"]
    )
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    words = r"flow-raft-small\.weights\.json: .*weights \w{12}, .*\w{12}; .*flow-raft-small\*.json"
    with pytest.raises(UserError, match=words) as error:
        flow(folder, "raft-small", weights[1])
    assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    (folder / "flow-raft-small.json").unlink()  # as Snakemake does, or an interrupted call
    with pytest.raises(UserError, match=words):
        flow(folder, "raft-small", weights[1])
    assert flow(folder, "raft-small", weights[0])["computed"] == 0


def test_the_command(folder):
    def mgm(*words):
        return CliRunner().invoke(app, ["flow", *map(str, words)])

    assert (
        mgm(folder, "--method", "dis").output.splitlines()[-1]
        == f"flow of {COUNT} videos by dis: {folder}/flow-dis.json"
    )
    assert str(mgm(folder, "--method", "raft-small", "--weights", "none.pth").exception).startswith(
        "none.pth: "
    )


def test_a_mask_guided_by_flow_trains_on_videos_without_vectors(
    folder, execution, pretraining, result_of
):
    spec = pretraining.model_copy(update={"mask": Mask(name="mgm", guidance="dis")})
    execution.data["ssv2"] = folder
    index = read_index(folder)
    assert sum(video.has_vectors for video in index.videos) == COUNT
    videos = tuple(replace(video, has_vectors=False) for video in index.videos)
    write_index(replace(index, videos=videos), folder)
    with pytest.raises(UserError, match=r"100000\.mp4: .*24 of 24 .*mask mgm"):
        run_all([pretraining], pretrain, execution)
    first = sidecar(read_index(folder).train[0].path, "dis")
    words = f"{first}: .*24 of 24 .*mgm flow {folder} --method dis"
    with pytest.raises(UserError, match=words) as error:
        run_all([spec], pretrain, execution)
    assert "\n" not in str(error.value)
    flow(folder, "dis")
    run_all([spec], pretrain, execution)
    assert result_of(spec)["failed_videos"] == []
    lines = [
        json.loads(line)
        for line in (execution.results / spec.run_id / "log.jsonl").read_text().splitlines()
    ]
    assert all(0 < line["coverage"] <= 1 for line in lines)
