"""What the benches share: rows as they come, and a bench that goes on where it was interrupted."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import common

    return common


def test_an_interrupted_bench_goes_on_and_a_finished_one_starts_anew(common, tmp_path, capsys):
    file, done = tmp_path / "out" / "rows.json", []

    def work(name: str, fails: bool = False):
        done.append(name)
        if fails:
            raise KeyboardInterrupt
        return [common.Row(name, 1.0, 2.0, 2.0, 1.5, "s")]

    tasks = {name: lambda name=name: work(name) for name in "abc"}
    with pytest.raises(KeyboardInterrupt):
        common.measured("bench", "a second", tasks | {"b": lambda: work("b", fails=True)}, file)
    assert [
        json.loads(line)[0]
        for line in (tmp_path / "out" / "rows.json.part").read_text().splitlines()
    ] == ["a"]
    rows = common.measured("bench", "a second", tasks, file)
    assert done == ["a", "b", "b", "c"]
    common.finish(rows, file)
    assert json.loads(file.read_text()) == [asdict(row) for row in rows]
    assert [path.name for path in file.parent.iterdir()] == ["rows.json"]
    said = capsys.readouterr().err
    assert "a second" in said
    assert "2 of 3: b" in said
    common.measured("bench", "a second", tasks, file)
    assert done[4:] == ["a", "b", "c"]


def test_peers_take_turns_with_us(common):
    order = []

    def taking(name: str, seconds: float):
        return lambda: (order.append(name), seconds)[1]

    found = common.compared(taking("ours", 2.0), [taking("p", 3.0), taking("q", 1.0)], repeats=3)
    assert found == [(2.0, 3.0, 1.5), (2.0, 1.0, 0.5)]
    assert [order[at : at + 3] for at in range(0, 12, 3)] == [
        ["q", "p", "ours"],
        ["ours", "p", "q"],
    ] * 2
