"""`snakemake` in a terminal, stopped in every way: what is done stays done, the same command continues, and nothing ends without a word."""

import json
import os
import pty
import signal
import threading
import time
from pathlib import Path

import pytest

from mgm.runs.lock import folder_lock
from tests.helpers.own_videos import own_videos, small_scale
from tests.helpers.programs import ENVIRONMENT, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("interrupted")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("my videos")  # a place with a space
    return own_videos(folder / "videos", folder / "drawn", train=6, test=1)


class Terminal:
    """`snakemake --quiet all --until pretrain` with a terminal of its own: six runs, three a job, one job at a time."""

    def __init__(self, here: Path, videos: Path):
        if not (here / "scale.yaml").exists():
            small_scale(here, factor=40, specs_per_job=4)
        command = snakemake(here, "--quiet", "all", "--until", "pretrain", cores=1)
        command += ["--config", "scale=scale.yaml", "name=mine", f"videos={videos}", "--", "table4e"]
        self.results, self.said, self.status = here / "results" / "mine", b"", None
        self.pid, self.keys = pty.fork()
        if self.pid == 0:
            os.chdir(here)
            os.execve(command[0], command, ENVIRONMENT)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            while said := os.read(self.keys, 4096):
                self.said += said
        except OSError:  # the terminal's other end is closed
            pass

    def wait_for(self, count: int) -> dict[Path, int]:
        """The results, with their times, once there are so many and another run is training."""
        for _ in range(3000):  # on a busy machine starting takes a minute
            done = {path: path.stat().st_mtime_ns for path in self.results.glob("pretrain-*/result.json")}
            if len(done) >= count and any(not (log.parent / "result.json").exists() for log in self.results.glob("*/log.jsonl")):
                return done
            time.sleep(0.1)
        raise AssertionError(self.said.decode())

    def end(self) -> tuple[int, str]:
        """Exit status and all that was said."""
        _, status = os.waitpid(self.pid, 0)
        self.reader.join(20)
        return os.waitstatus_to_exitcode(status), self.said.decode()


def jobs_of(results: Path) -> list[int]:
    """Processes that work on these specs."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"pretrain" in words[1:] and words[1].endswith(b"/mgm") and Path(os.readlink(place / "cwd")) == results.parents[1]:
                found.append(int(place.name))
        except OSError:  # it has ended
            pass
    return found


def continues(here: Path, videos: Path, done: dict[Path, int]) -> None:
    """The same command, called again, does the rest and leaves what was done alone."""
    again = Terminal(here, videos)
    assert again.end()[0] == 0, again.said.decode()
    results = list(again.results.glob("pretrain-*/result.json"))
    assert len(results) == 6
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGKILL"])
def test_the_same_command_continues(how, tmp_path, videos):
    first = Terminal(tmp_path, videos)
    done = first.wait_for(2)
    if how.startswith("Ctrl-C"):
        os.write(first.keys, b"\x03")
        if how.endswith("twice"):
            time.sleep(0.5)
            os.write(first.keys, b"\x03")
    else:
        os.kill(first.pid, getattr(signal, how))
    status, said = first.end()
    assert status != 0
    if how in ("Ctrl-C", "SIGTERM"):  # twice, Snakemake itself ends with a traceback
        assert "Traceback" not in said
        assert "The same command continues." in said
    continues(tmp_path, videos, done)
    assert not jobs_of(first.results)


def test_a_second_caller_is_told_of_the_first(tmp_path, videos):
    first = Terminal(tmp_path, videos)
    first.wait_for(1)
    status, said = Terminal(tmp_path, videos).end()
    assert status != 0
    [line] = [line for line in said.splitlines() if line.startswith("mgm: ")]
    assert f"process {first.pid} on" in line
    assert first.end()[0] == 0, first.said.decode()


def test_a_killed_job_loses_no_finished_run(tmp_path, videos):
    """As the out-of-memory killer does."""
    first = Terminal(tmp_path, videos)
    done = first.wait_for(2)
    [job] = jobs_of(first.results)
    os.kill(job, signal.SIGKILL)
    status, said = first.end()
    assert status != 0
    assert "logs/mine/pretrain-" in said  # where it says why
    continues(tmp_path, videos, done)


def test_bad_input_to_one_run_loses_no_other(tmp_path, videos):
    first = Terminal(tmp_path, videos)
    done = first.wait_for(1)
    specs = [path.stem for path in (first.results / "specs").glob("pretrain-*.json")]
    idle = next(run_id for run_id in specs if not (first.results / run_id).exists())
    (first.results / idle).mkdir()
    with folder_lock(first.results / idle):
        status, said = first.end()
    assert status != 0
    assert said.count(f"process {os.getpid()} on") == 1  # by the job alone: neither Snakemake nor its end repeat it
    assert "CalledProcessError" not in said
    done |= {path: path.stat().st_mtime_ns for path in first.results.glob("pretrain-*/result.json")}
    continues(tmp_path, videos, done)
    assert json.loads((first.results / idle / "result.json").read_text())["verb"] == "pretrain"
