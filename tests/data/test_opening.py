import os
import shutil

import pytest

from mgm.data import opening
from mgm.data.opening import open_all


@pytest.fixture
def videos(generated, tmp_path):
    """Return a folder with three copies of a video, and their names."""
    names = ["a.mp4", "b é#.mp4", "c.mp4"]
    (tmp_path / "videos").mkdir()
    for name in names:
        shutil.copy(generated[1].videos[0].path, tmp_path / "videos" / name)
    return tmp_path / "videos", names


def asked(monkeypatch) -> list[str]:
    """Return a list that gets the names of all files that are opened."""
    found: list[str] = []
    real = opening._open_some
    monkeypatch.setattr(
        opening, "_open_some", lambda root, names: found.extend(names) or real(root, names)
    )
    return found


def test_a_second_call_opens_only_what_changed_or_could_not_be_read(videos, tmp_path, monkeypatch):
    root, names = videos
    checked = tmp_path / "out" / "checked.jsonl"
    broken = root / "c.mp4"
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    infos, ((name, _),) = open_all(root, names, checked)
    assert (list(infos), name) == (names[:2], "c.mp4")
    broken.write_bytes(whole)
    opened = asked(monkeypatch)
    again, unreadable = open_all(root, names, checked)
    assert (list(again), unreadable, opened) == (names, [], ["c.mp4"])
    assert {name: again[name] for name in infos} == infos
    stat = os.stat(root / names[0])
    os.utime(root / names[1])
    (root / names[0]).write_bytes(bytes(stat.st_size))
    assert [name for name, _ in open_all(root, names, checked)[1]] == [names[0]]
    assert opened == ["c.mp4", names[0], names[1]]


def test_many_files_are_opened_in_processes_and_a_killed_call_continues(
    videos, tmp_path, monkeypatch, capsys
):
    root, names = videos
    for number in range(130):
        os.link(root / names[0], root / f"{number}.mp4")
    many, checked = [f"{number}.mp4" for number in range(130)], tmp_path / "checked.jsonl"
    (root / "7.mp4").unlink()
    monkeypatch.setattr(opening, "cores", lambda: 2)
    monkeypatch.setattr(opening, "CHUNK", 33)
    infos, ((missing, _),) = open_all(root, many, checked)
    assert "opening videos: 130 of 130 in " in capsys.readouterr().err
    assert (missing, list(infos)) == ("7.mp4", [name for name in many if name != "7.mp4"])
    lines = checked.read_text()
    checked.write_text(lines[: len(lines) // 2])  # cut in the middle of a line
    monkeypatch.setattr(opening, "cores", lambda: 1)
    opened = asked(monkeypatch)
    assert open_all(root, many, checked)[0] == infos
    assert 33 <= len(opened) < 129


def test_odd_lines_are_opened_again(videos, tmp_path):
    root, names = videos
    checked = tmp_path / "checked.jsonl"
    checked.write_text(
        "\n".join(["[" * 2000, "null", "[1, 2]", "[1e999, [], {}, 4, 5]", "9" * 5000])
    )
    assert list(open_all(root, names, checked)[0]) == names


def test_the_quota_of_a_container_bounds_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "CPU_MAX", tmp_path / "cpu.max")
    without = opening.cores()
    for text, cores in (("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", without)):
        (tmp_path / "cpu.max").write_text(text)
        assert opening.cores() == cores
