"""The command line: fast help, and one line for bad input."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from mgm.__main__ import main
from mgm.cli import app
from mgm.cli.base import GROUPS, places
from mgm.cli.plan import STAGES
from mgm.cli.train import complete
from mgm.errors import UserError


@pytest.fixture
def mgm(monkeypatch, capsys):
    """Return a function that calls the program in this process: (exit status, stdout, stderr)."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mgm", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


# Shells start jobs in the background with the signal ignored.
FOREGROUND = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
HELP = "from mgm.cli import app; app(['--help'], standalone_mode=False)"


@pytest.mark.parametrize(
    ("run", "heavy"),
    [
        (HELP, "torch av cv2 numpy mlflow matplotlib pandas sklearn"),
        ("import mgm.api", "torch"),
        ("import mgm.dag.workflow", "torch av cv2 mlflow"),
        ("import mgm.data.prepare", "torch"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(run, heavy):
    code = f"{run}; import sys; print({{*'{heavy}'.split()}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_ctrl_c_during_the_imports_ends_without_a_traceback():
    """Python itself prints one before `main` begins, so nothing slow is imported until then."""
    code = "import sys; old = {*sys.modules}; import mgm.__main__; print(*{*sys.modules} - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    early = {"mgm", "mgm.version", "mgm.__main__", "_signal", "atexit", "gc"}
    assert {*done.stdout.split()} <= early
    words = [sys.executable, "-X", "importtime", "-m", "mgm", "show", "no.mp4"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **FOREGROUND) as process:
        assert any("pydantic" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT


def test_a_second_ctrl_c_ends_at_once():
    """Also where a library goes on after the first one."""
    code = """
import time, mgm.cli
def app():
    for number in range(2):
        try:
            print(number, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
mgm.cli.app = app
from mgm.__main__ import main
main()
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **FOREGROUND) as process:
        for _ in process.stdout:
            process.send_signal(signal.SIGINT)
    assert process.returncode == -signal.SIGINT


def test_a_home_folder_is_expanded_where_shells_do_not(mgm, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["show", "~/no.mp4"], ["prepare", "folder", "--source=~/no.mp4", "--out", "x"]):
        assert f"{tmp_path}/no.mp4: " in mgm(*words)[2]


def test_stdout_is_named_if_its_disk_is_full():
    words = [sys.executable, "-m", "mgm", "--version"]
    # Without a buffer, nothing would be left to write when Python ends.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert (done.returncode, done.stderr) == (2, "mgm: stdout: No space left on device\n")


def test_help_lists_every_command(mgm):
    status, text, _ = mgm("--help")
    listed = [name for names in GROUPS.values() for name in names]
    assert status == 0
    assert sorted(get_command(app).commands) == sorted(listed)
    assert all(f"  {name} " in text for name in listed)
    assert {mgm(name, "--help")[0] for name in listed} == {0}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report", "nowhere"], "nowhere: no such study"),
        (["report", "../x"], "../x: is no name"),
        (["pack", "ratio/"], "ratio/: is no name"),
        (["sync", "/dev/null"], "/dev/null: is no name"),
        (["run", "nowhere.json"], "nowhere.json: No such file"),
        (["plan", "--study", "smoky"], "did you mean smoke?"),
        (["prepare", "ucf11", "--out", "x"], "did you mean ucf101?"),
        (["prepare", "folder", "--out", "x", "--split", "2"], "folder: takes no --split"),
        (["prepare", "drawn", "--out", "x", "--source", "y"], "drawn: takes no --source"),
        (["prepare", "k400", "--out", "x", "--target", "y"], "k400: takes no --target"),
        (["show", "nowhere.mp4"], "nowhere.mp4"),
        # Options that would do nothing.
        (["prepare", "shared", "--out", "x", "--quality", "9"], "shared: takes no --quality"),
        (["prepare", "drawn", "--out", "x", "--short-side", "99"], "takes no --short-side"),
        (["show", ".", "--out", "x.gif"], "--out x.gif: is the picture of a video"),
        (["motion", ".", "--force"], "--force: replaces a file"),
        (["controls", ".", "--force"], "--force: replaces a file"),
        (["run", "spec.json", "--fields", "probe"], "--fields probe: runs nothing"),
        (["run", "spec.json", "--data", "b=."], "--data b: no spec is of this dataset"),
        (["run", "spec.json", "--data", "a=.", "--recompute"], "--recompute: no spec trains"),
    ],
)
def test_bad_input_is_one_line_and_status_2(mgm, words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spec.json").write_text('{"stage": "probe", "data": {"dataset": "a"}}')
    status, _, error = mgm(*words)
    assert status == 2
    [line] = error.splitlines()
    assert line.startswith("mgm: ")
    assert says in line


def test_a_missing_extra_names_what_to_install(mgm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    for name in [name for name in sys.modules if name.startswith(("mgm.study", "mgm.dag"))]:
        monkeypatch.delitem(sys.modules, name)
    [line] = mgm("plan")[2].splitlines()
    assert "pip install '.[report]'" in line


@pytest.mark.parametrize(
    ("closed", "status"), [("<&-", 2), (">&-", 0), ("2>&-", 2), ("<&- >&- 2>&-", 0)]
)
def test_closed_streams_change_no_status(closed, status):
    words = "run nowhere.json" if status else "--help"
    command = f"exec {sys.executable} -m mgm {words} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_folders_are_told_by_dataset_and_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    """Shells expand none after =, and nothing expands one in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places(["a=~/x", "b=y", "a=z"]) == {"a": [tmp_path / "x", Path("z")], "b": [Path("y")]}
    with pytest.raises(UserError, match="NAME=FOLDER"):
        places(["a"])
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"damaged")
    for init, fault in (("~/w.safetensors", f"{weights}: is damaged"), (5, "init is 5, not")):
        with pytest.raises(UserError, match=fault):
            complete({"stage": "probe", "init": init}, "x.json", tmp_path)


def test_plan_says_hours_of_gpus(mgm):
    status, text, _ = mgm("plan", "--gpus", "8")
    assert status == 0
    assert "8 h100, at 25 %" in text
    total, wall = (float(word.replace(",", "")) for word in text.splitlines()[-1].split()[-3:-1])
    assert wall == pytest.approx(total / 8, rel=0.01)
    [line] = [line for line in text.splitlines() if line.startswith("Cores per GPU")]
    cores = [float(line.split(f"{stage} ")[1].split(",")[0].split(".")[0]) for stage in STAGES[:2]]
    # 1,400 clips of ViT-B at 90 % per second, and two clips per video in fine-tuning.
    assert 5 < cores[0] < 40
    assert 1 < cores[1] < 10
    half = mgm("plan", "--mfu", "0.5")[1]
    assert float(half.split()[-3].replace(",", "")) == pytest.approx(total / 2, rel=0.01)


def test_plan_needs_no_videos_of_a_set_that_is_made_of_two(mgm):
    status, text, _ = mgm("plan", "--study", "confirmation")
    assert status == 0
    assert any(line.split()[:2] == ["adaptation", "144"] for line in text.splitlines())
