"""`snakemake` in a terminal, stopped in three ways.

Finished runs stay, and the same command continues.
"""

import os
import pty
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.own_videos import own_study
from tests.helpers.programs import ENVIRONMENT, snakemake

# Snakemake starts five times.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


class Terminal:
    """`snakemake --quiet all --until pretrain` with a terminal of its own.

    It makes twelve runs, three per job, one job at a time.
    """

    def __init__(self, here: Path):
        if not (here / "mine.yaml").exists():
            own_study(here, factor=12, specs_per_job=3, seeds="0-3")
        command = snakemake(here, "--quiet", "all", "--until", "pretrain", cores=1)
        command += ["--config", "study=mine.yaml"]
        self.results, self.said, self.started = here / "results" / "mine", b"", time.time()
        self.pid, self.keys = pty.fork()
        if self.pid == 0:
            # These tests may be a background job, and those ignore SIGINT.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
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

    def wait(self, count: int = 0) -> None:
        """Wait until `count` runs are done and another one is in training."""
        for _ in range(12_000):  # on a busy machine starting takes a minute
            logs = [
                log
                for log in self.results.glob("pretrain-*/log.jsonl")
                if log.stat().st_mtime > self.started
            ]
            if len(done(self.results)) >= count and any(
                not (log.parent / "result.json").exists() for log in logs
            ):
                return
            time.sleep(0.05)
        raise AssertionError(self.said.decode())

    def end(self) -> tuple[int, str]:
        """Wait for the end. Return the exit status and all output."""
        _, status = os.waitpid(self.pid, 0)
        self.reader.join(20)
        return os.waitstatus_to_exitcode(status), self.said.decode()


def done(results: Path) -> dict[Path, int]:
    """Return the finished results and their modification times."""
    return {path: path.stat().st_mtime_ns for path in results.glob("pretrain-*/result.json")}


def jobs_of(results: Path) -> list[int]:
    """Return the ids of this folder's pretraining processes."""
    processes = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if (
                b"pretrain" in words[1:]
                and words[1].endswith(b"/mgm")
                and Path(os.readlink(place / "cwd")) == results.parents[1]
            ):
                processes.append(int(place.name))
        except OSError:  # it has ended
            pass
    return processes


def interrupt(terminal: Terminal, how: str) -> None:
    if how == "SIGKILL of a job":  # as the out-of-memory killer does
        [job] = jobs_of(terminal.results)
        os.kill(job, signal.SIGKILL)
    elif how == "Ctrl-C":
        os.write(terminal.keys, b"\x03")
    else:
        os.kill(terminal.pid, getattr(signal, how))


def test_however_it_stops_what_is_done_stays_and_the_same_command_continues(tmp_path):
    """Stop one DAG in each way in turn.

    Meanwhile a second call is refused.
    """
    kept: dict[Path, int] = {}
    for how in ("Ctrl-C", "SIGKILL of a job", "SIGTERM"):
        first = Terminal(tmp_path)
        first.wait(count=how == "SIGKILL of a job")
        if how == "Ctrl-C":
            [job] = jobs_of(first.results)
            # Pause the job, so that it is still running at the second call.
            os.kill(job, signal.SIGSTOP)
            status, said = Terminal(tmp_path).end()
            os.kill(job, signal.SIGCONT)
            assert status != 0
            [line] = [line for line in said.splitlines() if line.startswith("mgm: ")]
            assert f"process {first.pid} on" in line
        kept |= done(first.results)
        interrupt(first, how)
        status, said = first.end()
        assert status != 0, how
        if how in ("Ctrl-C", "SIGTERM"):
            assert "Traceback" not in said
            assert "The same command continues." in said
        # The message names the job's log.
        assert how != "SIGKILL of a job" or "logs/mine/pretrain-" in said
        assert kept.items() <= done(first.results).items(), how

    last = Terminal(tmp_path)
    assert last.end()[0] == 0, last.said.decode()
    assert len(done(last.results)) == 12
    assert kept.items() <= done(last.results).items()
    assert not jobs_of(last.results)
