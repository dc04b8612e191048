"""Another process that writes to a folder or a file."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import os, sys, time
from pathlib import Path
from mgm.results.lock import file_lock, folder_lock
place = Path(sys.argv[1])
with (folder_lock if place.is_dir() else file_lock)(place):
    os.write(1, b"1\\n")
    time.sleep(60)
"""


@contextmanager
def other_writer(place: Path) -> Iterator[subprocess.Popen]:
    """Yield a process that holds the lock of a folder or a file, and kill it at the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"1\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
