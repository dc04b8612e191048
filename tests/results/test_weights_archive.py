"""Tests of archives of weights: each file is what its result says, wherever it comes from."""

import hashlib
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.results.weights_archive import pack_weights, put_weights

NAME = "weights.safetensors"


@pytest.fixture
def results(tmp_path) -> Path:
    """Folder with two finished runs with weights, one without any, and one in training."""
    folder = tmp_path / "results" / "trial"
    for run, text in {
        "a": "weights of a",
        "b": "weights of b",
        "probe": "",
        "training": "",
    }.items():
        (folder / run).mkdir(parents=True)
        if text:
            (folder / run / NAME).write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest() if text else None
        if run != "training":
            (folder / run / "result.json").write_text(json.dumps({"weights_sha256": digest}))
    (folder / "training" / NAME).write_text("not done")
    return folder


def _lose_weights(results: Path) -> None:
    for run in ("a", "b"):
        (results / run / NAME).unlink()


def _weights(results: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in results.glob(f"*/{NAME}")}


def _archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, BytesIO(text.encode()))
    return path


def test_weights_come_back_from_a_file_and_from_an_address(results):
    before = _weights(results)
    archive, count = pack_weights(results)
    assert count == 2
    _lose_weights(results)
    assert put_weights(results, str(archive)) == (2, 0)
    assert _weights(results) == before
    assert put_weights(results, str(archive)) == (0, 0)

    _lose_weights(results)
    handler = partial(SimpleHTTPRequestHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert put_weights(results, f"{address}/{archive.name}") == (2, 0)
        assert _weights(results) == before
        with pytest.raises(UserError, match="nothing.tar"):
            put_weights(results, f"{address}/nothing.tar")
        server.shutdown()


def test_equal_weights_make_an_equal_archive_which_keeps_what_a_folder_has_lost(results):
    archive, _ = pack_weights(results)
    first = archive.read_bytes()
    (results / "a" / NAME).unlink()
    assert pack_weights(results)[1] == 2
    assert archive.read_bytes() == first


def test_other_weights_are_refused_and_nothing_of_them_stays(results, tmp_path):
    _lose_weights(results)
    archive = _archive(tmp_path / "other.tar", {f"trial/a/{NAME}": "other weights"})
    with pytest.raises(UserError, match=f"a/{NAME}"):
        put_weights(results, str(archive))
    assert {path.name for path in (results / "a").iterdir()} == {"result.json"}
    (results / "b" / NAME).write_text("changed")
    with pytest.raises(UserError, match=f"b/{NAME}"):
        pack_weights(results)
    assert not results.with_name("trial.weights.tar").exists()


def test_an_archive_writes_only_weights_that_a_run_lacks(results, tmp_path):
    _lose_weights(results)
    names = ["trial/a/result.json", f"trial/new/{NAME}", f"../{NAME}", f"trial/../{NAME}", NAME]
    names += [f"trial/probe/{NAME}", f"trial/training/{NAME}", f"/trial/a/{NAME}"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    archive = _archive(tmp_path / "strange.tar", dict.fromkeys(names, "x"))
    assert put_weights(results, str(archive)) == (0, 2)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before | {archive: archive.read_bytes()}


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 300])
def test_a_file_that_is_no_archive_is_named(results, tmp_path, content):
    path = tmp_path / "broken.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken.tar"):
        put_weights(results, str(path))


def test_a_cut_archive_places_what_is_whole(results):
    archive, _ = pack_weights(results)
    whole = archive.read_bytes()
    _lose_weights(results)
    archive.write_bytes(whole[:520])  # in the weights of the first run
    with pytest.raises(UserError, match="trial.weights.tar"):
        put_weights(results, str(archive))
    assert _weights(results) == {"training": "not done"}
    archive.write_bytes(whole[:1024])  # after them
    assert put_weights(results, str(archive)) == (1, 1)
    assert _weights(results)["a"] == "weights of a"
