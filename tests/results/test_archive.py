"""Tests of archives: equal bytes from equal files, a digest check, and no run lost."""

import hashlib
import io
import lzma
import subprocess
import tarfile
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.results import archive as archives
from mgm.results.archive import archived_runs, unpack
from tests.helpers.writers import other_writer


@pytest.fixture
def results(tmp_path) -> Path:
    """Folder with two finished runs and one that is not finished."""
    folder = tmp_path / "results" / "trial"
    for run in ("a", "b"):
        _finish(folder / run)
        (folder / run / "weights.safetensors").write_text("large")
    (folder / "c").mkdir()
    (folder / "c" / "spec.json").write_text("{}")
    (folder / "plan").mkdir()
    (folder / "plan" / "cells.csv").write_text("{}")
    return folder


def _finish(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "result.json").write_text(f"{run.name}\n")
    (run / "spec.json").write_text("{}")
    (run / "predictions.csv").write_text("path,label,prediction\na.mp4,sit,stand\n")
    (run / "log.jsonl").write_text('{"step": 1, "loss": 0.333333}\n{"step": 2, "lo')


def pack(results: Path, without: tuple[str, ...] = ()) -> Path:
    """Pack every finished run of the folder."""
    return archives.pack(
        results, {path.parent.name for path in results.glob("*/result.json")}, without
    )


def _forget(folder: Path) -> None:
    subprocess.run(["rm", "-r", str(folder)], check=True)


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "archive.sha256"
    }


def test_a_fresh_clone_gets_the_finished_runs_without_weights(results, capsys):
    before = _files(results)
    archive = pack(results)
    _forget(results)
    unpack(results)
    kept = {name for name in before if "weights" not in name and not name.startswith("c/")}
    assert _files(results) == {name: before[name] for name in kept}
    assert f"unpacked 9 files from {archive}" in capsys.readouterr().err
    unpack(results)
    assert not capsys.readouterr().err
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=results.parent, check=True, capture_output=True)


def test_equal_files_give_equal_bytes(results):
    first = pack(results).read_bytes()
    (results / "a" / "result.json").touch()
    assert pack(results).read_bytes() == first


def test_an_archived_run_stays_as_it_was_unless_it_is_named(results):
    """Also if its folder is gone, or holds other files."""
    pack(results)
    subprocess.run(["rm", "-r", str(results / "b")], check=True)
    (results / "a" / "result.json").write_text("another\n")
    pack(results)
    _forget(results)
    unpack(results)
    assert [(results / run / "result.json").read_text() for run in "ab"] == ["a\n", "b\n"]
    pack(results, without=("a",))
    assert archived_runs(results) == {"b"}


@pytest.mark.parametrize("write", range(3))
def test_a_killed_pack_loses_nothing(results, write, monkeypatch):
    """It is killed before each of its files is renamed into place."""
    pack(results)
    _finish(results / "d")
    real, count = Path.replace, iter(range(9))

    def killed(path, target):
        if next(count) == write:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        pack(results)
    monkeypatch.undo()
    # Of a process killed by SIGKILL.
    (results.parent / ".12.trial.tar.xz").touch()
    (results.parent / ".12.trial" / "trial").mkdir(parents=True)
    _forget(results)
    unpack(results)
    assert {"a", "b"} <= archived_runs(results)
    assert {path.name for path in results.parent.iterdir()} == {
        "SHA256SUMS",
        "trial",
        "trial.tar.xz",
    }
    _finish(results / "e")
    pack(results)
    assert {"a", "b", "e"} <= archived_runs(results)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=results.parent, check=True, capture_output=True)


def test_a_newer_archive_adds_its_runs_and_brings_its_scale(results):
    old = pack(results).read_bytes()
    sums = (results.parent / "SHA256SUMS").read_text()
    _finish(results / "d")
    (results / "plan" / "cells.csv").write_text('{"newer": 1}')
    new = pack(results)
    newer, newer_sums = new.read_bytes(), (results.parent / "SHA256SUMS").read_text()
    _forget(results)
    new.write_bytes(old)
    (results.parent / "SHA256SUMS").write_text(sums)
    unpack(results)
    _finish(results / "mine")
    new.write_bytes(newer)
    (results.parent / "SHA256SUMS").write_text(newer_sums)
    unpack(results)
    assert {path.parent.name for path in results.glob("*/result.json")} == {"a", "b", "d", "mine"}
    assert (results / "plan" / "cells.csv").read_text() == '{"newer": 1}'


def test_runs_that_are_here_stay(results):
    pack(results)
    _forget(results)
    (results / "a").mkdir(parents=True)
    (results / "a" / "result.json").write_text("mine\n")
    (results / "b").mkdir()
    (results / "b" / "weights.safetensors").write_text("kept")
    unpack(results)
    assert (results / "a" / "result.json").read_text() == "mine\n"
    assert not (results / "a" / "spec.json").exists()
    assert {"result.json", "spec.json", "weights.safetensors"} < {
        path.name for path in (results / "b").iterdir()
    }


def test_a_plan_that_is_here_stays_and_is_packed_without_other_files(results):
    pack(results)
    _forget(results)
    (results / "plan").mkdir(parents=True)
    (results / "plan" / "cells.csv").write_text("mine")
    (results / "plan" / "notes.txt").write_text("mine")
    (results / "plan" / "study.yaml").symlink_to("/etc/hostname")
    unpack(results)
    assert (results / "plan" / "cells.csv").read_text() == "mine"
    pack(results)
    _forget(results)
    unpack(results)
    assert [path.name for path in (results / "plan").iterdir()] == ["cells.csv"]


def test_a_run_with_a_writer_or_a_checkpoint_stays_as_it_is(results):
    """Its result from the archive would make it a finished run, which is not trained on."""
    pack(results)
    _forget(results)
    for name in ("a", "b"):
        (results / name).mkdir(parents=True)
        (results / name / "spec.json").write_text("mine")
    (results / "a" / "checkpoint.pt").write_text("mine")
    with other_writer(results / "b"):
        unpack(results)
        kept = {"a/checkpoint.pt", "a/spec.json", "b/spec.json", "b/writer.lock", "plan/cells.csv"}
        assert _files(results).keys() == kept
    assert {(results / name / "spec.json").read_text() for name in ("a", "b")} == {"mine"}


def test_an_archive_of_another_name_is_one_line(results):
    archive = pack(results)
    _forget(results)
    archive.rename(archive.with_name("other.tar.xz"))
    sums = results.parent / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("trial", "other"))
    with pytest.raises(UserError, match=r"other\.tar\.xz: "):
        unpack(results.parent / "other")
    assert not (results.parent / "other").exists()


def test_a_member_of_negative_size_is_one_line(results):
    archive = pack(results)
    _forget(results)
    with tarfile.open(archive) as tar:
        member = tar.getmember("trial/a/result.json")
    data = bytearray(lzma.decompress(archive.read_bytes()))
    at = member.offset
    data[at + 124 : at + 136] = (2**96 - 512).to_bytes(12, "big")
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    archive.write_bytes(lzma.compress(data))
    subprocess.run(
        f"sha256sum {archive.name} > SHA256SUMS", shell=True, cwd=results.parent, check=True
    )
    with pytest.raises(UserError, match="trial.tar.xz: "):
        unpack(results)


@pytest.mark.parametrize("fault", ["damaged", "unknown", "no archive", "empty"])
def test_a_faulty_archive_is_one_line_and_writes_nothing(results, fault):
    archive = pack(results)
    _forget(results)
    if fault == "damaged":
        archive.write_bytes(archive.read_bytes()[:-9])
    elif fault == "unknown":
        (results.parent / "SHA256SUMS").unlink()
    else:
        archive.write_bytes(b"not xz" if fault == "no archive" else b"")
        subprocess.run(
            f"sha256sum {archive.name} > SHA256SUMS", shell=True, cwd=results.parent, check=True
        )
    with pytest.raises(UserError, match="trial.tar.xz: ") as error:
        unpack(results)
    assert "\n" not in str(error.value)
    assert {path.name for path in results.parent.iterdir()} <= {"trial.tar.xz", "SHA256SUMS"}


def test_nothing_to_pack_is_one_line(tmp_path):
    with pytest.raises(UserError, match="results/none: "):
        pack(tmp_path / "results" / "none")


def test_a_member_outside_the_folder_is_refused(tmp_path):
    """It is refused even if SHA256SUMS lists the archive's digest."""
    place = tmp_path / "results"
    place.mkdir()
    with tarfile.open(place / "evil.tar.xz", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo("../escaped.txt"))
    digest = hashlib.sha256((place / "evil.tar.xz").read_bytes()).hexdigest()
    (place / "SHA256SUMS").write_text(f"{digest}  evil.tar.xz\n")
    with pytest.raises(UserError, match=r"escaped\.txt"):
        unpack(place / "evil")
    assert not (tmp_path / "escaped.txt").exists()


def test_a_link_is_refused_and_only_what_a_run_writes_is_archived(results):
    (results / "a" / "notes.txt").write_text("mine")
    secret = results.parent / "secret"
    secret.write_text("key")
    with tarfile.open(pack(results)) as tar:
        assert not any("notes" in name for name in tar.getnames())
    _finish(results / "d")
    (results / "d" / "log.jsonl").unlink()
    (results / "d" / "log.jsonl").symlink_to(secret)
    with pytest.raises(UserError, match=r"d/log.jsonl: is a link"):
        pack(results)


def test_a_name_too_long_for_an_archive_is_one_line(results):
    _finish(results / ("x" * 240))
    with pytest.raises(UserError, match="an archive cannot hold it"):
        pack(results)


def test_a_small_archive_of_more_bytes_than_results_have_is_refused(monkeypatch):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        member = tarfile.TarInfo("trial/run/result.json")
        member.size = 2000
        tar.addfile(member, io.BytesIO(bytes(2000)))
    data = lzma.compress(plain.getvalue())
    assert archives.files_in(data, "trial", "trial.tar.xz")["run/result.json"] == bytes(2000)
    monkeypatch.setattr(archives, "MOST", 1999)
    with pytest.raises(UserError, match="trial.tar.xz: holds more"):
        archives.files_in(data, "trial", "trial.tar.xz")
