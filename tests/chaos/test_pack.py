"""Packs, kills and edits in any order lose no archived run."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mgm.results.archive import ENDING, SUMS, archive_of, files_in, pack, unpack

NAMES = ("a", "b")


def finish(results: Path, run: str, text: str) -> None:
    folder = results / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.csv").write_text(f"path,label,prediction\nv.mp4,{text},x\n")
    (folder / "result.json").write_text(text)


def forked(work: Callable[[], object]) -> int:
    """Call `work` in a process of its own. Return its id."""
    if child := os.fork():
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def packed(results: Path) -> dict[str, bytes]:
    """Return the result of each archived run."""
    archive = archive_of(results)
    if not archive.is_file():
        return {}
    files = files_in(archive.read_bytes(), results.name, str(archive))
    return {name.split("/")[0]: data for name, data in files.items() if "result.json" in name}


@pytest.mark.parametrize("rounds", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_packs_kills_and_edits_lose_no_run(tmp_path, rounds):
    chance, kept = random.Random(rounds), {name: dict[str, bytes]() for name in NAMES}
    for round_ in range(rounds):
        name = chance.choice(NAMES)
        results = tmp_path / name
        here = [path.parent.name for path in results.glob("*/result.json")]
        deed = chance.randrange(6)
        if deed == 0:
            shutil.rmtree(results, ignore_errors=True)
        elif deed == 1 and here:
            shutil.rmtree(results / chance.choice(here))
        elif deed == 2 and here:
            finish(results, chance.choice(here), f"edited {round_}")
        elif deed == 3:
            unpack(results)
        else:
            finish(results, f"run{round_}", str(round_))
        # An edited study has some of the runs alone.
        here = [path.parent.name for path in results.glob("*/result.json")]
        runs = set(chance.sample(here, chance.randint(0, len(here))))
        packs = [forked(partial(pack, results, runs)) for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.5:
            time.sleep(chance.random() * 0.02)
            for child in packs:
                os.kill(child, signal.SIGKILL)
        for child in packs:
            os.waitpid(child, 0)
        now = packed(results)
        assert kept[name].items() <= now.items()
        kept[name] = now
    for name in NAMES:
        finish(tmp_path / name, "last", "last")
        pack(tmp_path / name, {"last"})
        unpack(tmp_path / name)
    names = {name for name in NAMES for name in (name, f"{name}{ENDING}")} | {SUMS}
    assert {path.name for path in tmp_path.iterdir()} == names
    lines = (tmp_path / SUMS).read_text().splitlines()
    assert [line.partition("  ")[2] for line in lines] == [f"{name}{ENDING}" for name in NAMES]
