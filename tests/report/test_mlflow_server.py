"""A real MLflow server on a real PostgreSQL: killed, hanging, or refusing to write.

Nothing is lost: the next sync writes what is missing.
"""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.report.mlflow.sync import follow, sync
from tests.helpers.fake_results import finish, registry
from tests.helpers.mirrored import content
from tests.helpers.services import require
from tests.helpers.tracking import Postgres, Server

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.mlflow, pytest.mark.postgres, pytest.mark.slow]
KNOWN = registry(seeds=(0,))
RUNS = list(KNOWN.specs.values())[:3]
POINTS = "SELECT count(*) FROM metrics JOIN runs USING (run_uuid) WHERE lifecycle_stage = 'active'"


@pytest.fixture(scope="module")
def postgres():
    require("postgres")
    cluster = Postgres()
    yield cluster
    cluster.stop()
    cluster.temporary.cleanup()


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server") / "mlflow", postgres.uri)
    yield running
    running.kill()


@pytest.fixture
def place(tmp_path, request, monkeypatch):
    """Results folder with the test's name, so each test has its own experiment."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "results" / request.node.name
    folder.mkdir(parents=True)
    for run in RUNS:
        finish(folder, run, steps=20)
    return folder


def is_level(place, server, known=KNOWN):
    """Return whether another sync changes nothing, and MLflow has what an empty one would get."""
    summary = sync(known, place, server.uri)
    fresh = f"sqlite:///{place.parent}/fresh.db"
    sync(known, place, fresh)
    unchanged = (summary.created, summary.updated) == (0, 0)
    return unchanged and content(place, server.uri) == content(place, fresh)


def slow_down(postgres, body):
    """Make the database run `body` for each new metric, until `speed_up`."""
    postgres.execute(
        f"CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$"
    )
    postgres.execute(
        "CREATE TRIGGER act BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION act()"
    )


def speed_up(postgres):
    postgres.execute("DROP FUNCTION IF EXISTS act CASCADE")


def in_the_middle(place, server, postgres, act) -> None:
    """Call `act` once a sync in another process has written a part of the metrics.

    Check that the sync fails, with its message on stderr unless it was killed.
    """
    code = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from tests.helpers.fake_results import registry; "
    code += "from mgm.report.mlflow.sync import sync; sync(registry(seeds=(0,)), Path(sys.argv[2]), sys.argv[3])"
    before = postgres.rows(POINTS)[0][0]
    # Each run takes five seconds, so `act` comes before the end.
    slow_down(postgres, "PERFORM pg_sleep(0.04)")
    command = [sys.executable, "-c", code, str(ROOT), str(place), server.uri]
    syncing = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while (points := postgres.rows(POINTS)[0][0] - before) == 0:
        assert syncing.poll() is None, syncing.communicate()
    assert points < 20 * 6 * len(RUNS)
    act(syncing)
    said = syncing.communicate(timeout=100)[1]
    assert syncing.returncode != 0
    assert act == subprocess.Popen.kill or "UserError: tracker http://127.0.0.1" in said
    assert act == subprocess.Popen.kill or "nothing is lost" in said


@pytest.mark.parametrize("what", ["sync", "database"])
def test_whoever_is_killed_in_the_middle(place, server, postgres, what):
    in_the_middle(
        place,
        server,
        postgres,
        subprocess.Popen.kill if what == "sync" else lambda _: postgres.stop(),
    )
    if what == "database":
        postgres.start()
    speed_up(postgres)
    sync(KNOWN, place, server.uri)
    assert is_level(place, server)


def test_a_server_that_is_killed_and_one_that_follows_it(place, server, postgres, capfd):
    """`follow` tries again until the server is back."""
    in_the_middle(place, server, postgres, lambda _: server.kill())
    speed_up(postgres)
    known = registry(seeds=(0,))
    known.specs, known.tables, known.figures = {run.run_id: run for run in RUNS}, {}, {}
    following = threading.Thread(
        target=follow, args=(known, place, server.uri), kwargs={"every": 0.2}, daemon=True
    )
    following.start()
    said = ""
    while "nothing is lost" not in said:
        time.sleep(0.2)
        said += capfd.readouterr().err
    server.start()
    following.join(timeout=120)
    assert not following.is_alive()
    assert is_level(place, server, known)


def test_a_server_that_hangs_is_waited_for_but_not_for_ever(place, server, monkeypatch):
    sync(KNOWN, place, server.uri)
    finish(place, RUNS[1], top1=70, steps=20)
    server.signal(signal.SIGSTOP)
    try:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        started = time.monotonic()
        with pytest.raises(UserError, match=f"tracker {server.uri}: "):
            sync(KNOWN, place, server.uri)
        assert time.monotonic() - started < 60
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        threading.Timer(3, server.signal, [signal.SIGCONT]).start()
        assert sync(KNOWN, place, server.uri).updated == 1
    finally:
        server.signal(signal.SIGCONT)
    assert is_level(place, server)


def test_a_database_that_refuses(place, server, postgres):
    slow_down(postgres, "IF NEW.step = 20 THEN RAISE EXCEPTION 'the disk is full'; END IF")
    with pytest.raises(UserError, match=f"tracker {server.uri}: "):
        sync(KNOWN, place, server.uri)
    speed_up(postgres)
    sync(KNOWN, place, server.uri)
    assert is_level(place, server)
