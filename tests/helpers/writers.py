"""Another process that writes to a folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import os, sys, time
from pathlib import Path
from mgm.results.lock import folder_lock
with folder_lock(Path(sys.argv[1])):
    os.write(1, b"1\\n")
    time.sleep(60)
"""


@contextmanager
def other_writer(folder: Path) -> Iterator[subprocess.Popen]:
    """Yield a process that holds the lock of `folder`, and kill it at the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"1\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
