"""An MLflow server on loopback, which can be stopped and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path


class Server:
    """`mlflow server` at `uri`, with its data in `database`."""

    def __init__(self, folder: Path, database: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.database, self.uri = folder, database, f"http://127.0.0.1:{self.port}"
        folder.mkdir()
        self.start()

    def start(self) -> None:
        words = f"server --host 127.0.0.1 --port {self.port} --workers 1 --backend-store-uri"
        command = [sys.executable, "-m", "mlflow", *words.split(), self.database]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "log").open("ab") as log:
            where = {"cwd": self.folder, "stdout": log, "stderr": log, "start_new_session": True}
            # As in the Makefile: the programs of jobs, which mgm does not use, take seconds each.
            environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(command, env=environment, **where)
        end = time.monotonic() + 300
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(
                    f"no MLflow server at {self.uri}: {(self.folder / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.2)

    def signal(self, number: int) -> None:
        """Send a signal to the server and its workers. They have a session of their own."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
