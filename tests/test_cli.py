"""Tests of the command line.

Help is fast. Bad input is one line with the next step, never a traceback.
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from mgm.cli import main
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import Data, Pretrain

MGM = str(Path(sys.executable).parent / "mgm")


def mgm(*words, cwd=None):
    return subprocess.run(
        [MGM, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    return generate(Synthetic(classes=2, train_per_class=2, test_per_class=1, size=64), out)


STEP = """import torch
from mgm.training.optim import AdamW
one = torch.ones(3, requires_grad=True)
one.grad = torch.ones(3)
AdamW([one], lr=0.1, fused=True).step()
torch.nn.utils.clip_grad_norm_([one], 1.0)"""


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import mgm.cli", "torch av mlflow matplotlib pandas"),
        ("import mgm.video", "torch"),
        (
            "import mgm.data.published, mgm.data.synthetic.params, mgm.data.index",
            "torch av numpy pandas",
        ),
        (STEP, "torch._dynamo"),  # its import takes 3 seconds, and nothing is compiled
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code, heavy):
    code += f"\nimport sys; print({{*'{heavy}'.split()}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def spec_file(folder: Path, **changes) -> Path:
    fields = json.loads(Pretrain(data=Data(dataset="ssv2")).model_dump_json()) | changes
    path = folder / f"spec{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(fields))
    return path


def test_bad_specs_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.json").write_text("{")
    for verb, file, data, message in [
        ("pretrain", "none.json", "x=y", "none.json: no such spec"),
        ("pretrain", tmp_path / "text.json", "x=y", "not JSON"),
        (
            "pretrain",
            spec_file(tmp_path, epochs=3),
            "x=y",
            "epochs is not a field; remove it or correct its name",
        ),
        ("finetune", spec_file(tmp_path), "x=y", "is a pretrain spec; run it with `mgm pretrain`"),
        (
            "pretrain",
            spec_file(tmp_path),
            "x=y",
            "no folder is given for dataset ssv2; pass --data ssv2=FOLDER",
        ),
        ("pretrain", spec_file(tmp_path), "x", "--data x: write it as NAME=FOLDER"),
    ]:
        monkeypatch.setattr(
            "sys.argv", ["mgm", verb, str(file), "--out", str(tmp_path), "--data", data]
        )
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err
        assert end.value.code == 2
        assert told.splitlines()[-1].startswith("mgm: ")
        assert message in told
        assert "Traceback" not in told


def test_inspect_and_show(videos, tmp_path):
    done = mgm("inspect", videos.videos[0].path)
    assert "h264, 64 x 64, 24 frames" in done.stdout
    done = mgm("show", videos.videos[0].path, "--out", tmp_path / "shown.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown.png").read_bytes().startswith(b"\x89PNG")
    options = ("--masks", "mgm,tube", "--start", 4, "--seed", 3)
    done = mgm("show", videos.videos[0].path, "--out", tmp_path / "two.png", *options)
    assert done.returncode == 0, done.stderr
    heights = [plt.imread(tmp_path / name).shape[0] for name in ("two.png", "shown.png")]
    assert heights[0] < heights[1]
    done = mgm("show", videos.videos[0].path, "--out", tmp_path / "moving.gif")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "moving.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--masks", "mgn"), "no such mask; did you mean mgm"),
        (("--start", 9), "start at 8 or before"),
    ],
)
def test_a_mask_or_a_start_that_is_not_there_is_one_line(videos, tmp_path, options, message):
    done = mgm("show", videos.videos[0].path, "--out", tmp_path / "shown.png", *options)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("verb", ["inspect", "show"])
def test_a_file_that_is_no_video_is_one_line(tmp_path, verb):
    (tmp_path / "notes.mp4").write_text("not a video")
    options = ["--out", tmp_path / "x.png"] if verb == "show" else []
    for name in ("notes.mp4", "none.mp4"):
        done = mgm(verb, tmp_path / name, *options)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert name in done.stderr


def test_report_of_nothing_names_the_next_step(tmp_path):
    done = mgm("report", "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "scale.json" in done.stderr
