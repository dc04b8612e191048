"""A temporary PostgreSQL, and an MLflow server on loopback.

Both can be stopped and started again.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2

from tests.helpers.services import postgres_bin

# Safe, since the only socket is in a folder of our own.
PASSWORDLESS = "--auth=trust"


class Postgres:
    """A PostgreSQL cluster that listens only on a Unix socket in its folder.

    PostgreSQL refuses to run as root, so root starts it as user postgres. The folder is not one of
    pytest's, since each start of pytest closes those to other users.
    """

    def __init__(self):
        self.bin = postgres_bin()
        self.temporary = TemporaryDirectory(prefix="mgm-postgres-")
        self.folder = folder = Path(self.temporary.name)
        self.user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            if os.geteuid() == 0
            else []
        )
        if self.user:
            shutil.chown(folder, "postgres", "postgres")
        self._run(
            "initdb",
            "-D",
            folder / "data",
            "-U",
            "mgm",
            PASSWORDLESS,
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )
        self.start()
        self.execute("CREATE DATABASE mlflow", "postgres")
        self.uri = f"postgresql://mgm@/mlflow?host={folder}"

    def _run(self, program: str, *arguments) -> None:
        subprocess.run(
            [*self.user, self.bin / program, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run(
            "pg_ctl",
            "-D",
            self.folder / "data",
            "-l",
            self.folder / "log",
            "-o",
            options,
            "-w",
            "start",
        )

    def stop(self) -> None:
        """Stop at once, like a crash."""
        if (self.folder / "data/postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def execute(self, command: str, database: str = "mlflow") -> None:
        with closing(
            psycopg2.connect(host=str(self.folder), user="mgm", dbname=database)
        ) as connection:
            connection.autocommit = True
            connection.cursor().execute(command)

    def rows(self, question: str) -> list[tuple]:
        with (
            closing(
                psycopg2.connect(host=str(self.folder), user="mgm", dbname="mlflow")
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(question)
            return cursor.fetchall()


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
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += [
            "--backend-store-uri",
            self.database,
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
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
