"""The start of `mgm`, in environments that daemons, containers and schedulers give it."""

import os
import signal
import subprocess
import sys

START = "import os; os.close({}); os.execv({!r}, [{!r}, '-m', 'mgm', '--version'])"
CHILD = """
import os, subprocess, sys, time
child = "from mgm.processes import end_with; import time; end_with({}, 15); print(flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child.format(os.getpid())])
time.sleep(60)
"""


def test_a_closed_output_is_no_error():
    for number in (0, 1, 2):
        start = START.format(number, sys.executable, sys.executable)
        subprocess.run([sys.executable, "-c", start], check=True)


def test_a_job_ends_when_its_parent_is_killed():
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"\n"
    process.kill()
    process.wait()
    # The pipe ends when no process can write to it any more.
    assert process.stdout.read() == b""
    process.stdout.close()


def test_a_job_whose_parent_has_ended_ends():
    code = "from mgm.processes import end_with; end_with(1 << 22, 15)"
    assert os.getppid() != 1 << 22
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM


def test_a_file_whose_name_begins_with_a_dash_is_no_option(tmp_path):
    (tmp_path / "-x.npz").write_bytes(b"")
    command = [sys.executable, "-m", "mgm", "inspect", "-x.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("mgm: -x.npz: ")
