"""Tests of the command line.

Help is fast. Bad input is one line with the next step, never a traceback.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from mgm.__main__ import main
from mgm.cli import app
from mgm.cli.base import GROUPS
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.spec import Data, Pretrain


@pytest.fixture
def mgm(monkeypatch, capsys):
    """Return a function that calls the program in this process: (exit status, stdout, stderr)."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mgm", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    return generate(Synthetic(classes=2, train_per_class=2, test_per_class=1, size=64), out)


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import mgm.cli", "torch av mlflow matplotlib pandas"),
        ("import mgm.video", "torch"),
        (
            "import mgm.data.published, mgm.data.synthetic.params, mgm.data.index",
            "torch av numpy pandas",
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code, heavy):
    code += f"\nimport sys; print({{*'{heavy}'.split()}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_command_is_in_one_group_of_the_help(mgm):
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(get_command(app).commands)
    _, told, _ = mgm("--help")
    for title in GROUPS:
        assert f"\n{title}:\n" in told


def spec_file(folder: Path, **changes) -> Path:
    fields = json.loads(Pretrain(data=Data(dataset="ssv2")).model_dump_json()) | changes
    path = folder / f"spec{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(fields))
    return path


def test_bad_specs_are_one_line(tmp_path, mgm):
    (tmp_path / "text.json").write_text("{")
    for verb, file, data, named in [
        ("pretrain", "none.json", "x=y", "none.json"),
        ("pretrain", tmp_path / "text.json", "x=y", "text.json"),
        ("pretrain", spec_file(tmp_path, epochs=3), "x=y", "epochs"),
        ("finetune", spec_file(tmp_path), "x=y", "mgm pretrain"),
        ("pretrain", spec_file(tmp_path), "x=y", "--data ssv2=FOLDER"),
        ("pretrain", spec_file(tmp_path), "x", "--data x"),
    ]:
        status, _, told = mgm(verb, file, "--out", tmp_path, "--data", data)
        assert status == 2
        assert told.splitlines()[-1].startswith("mgm: ")
        assert named in told
        assert "Traceback" not in told


def test_the_program_is_installed(videos):
    done = subprocess.run(
        [Path(sys.executable).parent / "mgm", "inspect", videos.videos[0].path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "h264, 64 x 64, 24 frames" in done.stdout


@pytest.mark.parametrize("verb", ["inspect", "show"])
def test_a_file_that_is_no_video_is_one_line(tmp_path, mgm, verb):
    (tmp_path / "notes.mp4").write_text("not a video")
    options = ["--out", tmp_path / "x.png"] if verb == "show" else []
    for name in ("notes.mp4", "none.mp4"):
        status, _, told = mgm(verb, tmp_path / name, *options)
        assert status == 2
        (line,) = told.strip().splitlines()
        assert name in line


def test_report_of_nothing_names_the_next_step(tmp_path, monkeypatch, mgm):
    monkeypatch.chdir(tmp_path)
    status, _, told = mgm("report", "nothing")
    assert status == 2
    assert "no such folder of results" in told


def test_a_name_that_the_terminal_cannot_show_is_no_traceback():
    command = [sys.executable, "-m", "mgm", "report", "na\u00efve"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "results/na?ve" in done.stderr
