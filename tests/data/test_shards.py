"""`mgm prepare --shards` writes the same files if it is resumed or run in parts.

Damaged files are named, and jobs run from shards alone.
"""

import errno
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mgm.data import shard_writer, shards
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.data.shard_writer import seal
from mgm.data.shards import Settings, verify_shards, write_shards
from mgm.data.unchanged import check_files
from mgm.errors import UserError
from mgm.video import read_clip
from mgm.video.shard_reader import HEADER, ROW
from tests.helpers.videos import moving_square, write_video
from tests.helpers.writers import other_writer

SETTINGS = Settings(short_side=64)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for label in "ab":
        (folder / label).mkdir()
        for seed in range(6):
            frames = moving_square(16, 72, 88, (5, 3), seed=ord(label) + seed)
            write_video(folder / label / f"{seed}.mp4", frames, gop=8, b_frames=2)
    return folder


@pytest.fixture
def prepared(videos, tmp_path, monkeypatch) -> Path:
    """Return a folder with the videos in at least three shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 1.2e5)
    shutil.copytree(videos, tmp_path / "videos")
    write_shards(
        index_folder(tmp_path / "videos", tmp_path / "out" / "source"), tmp_path / "out", SETTINGS
    )
    assert len(list((tmp_path / "out" / "shards").glob("*.tar"))) >= 3
    return tmp_path


def again(folder: Path):
    return write_shards(
        index_folder(folder / "videos", folder / "out" / "source"), folder / "out", SETTINGS
    )


def stamps(folder: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_mtime_ns for path in (folder / "out" / "shards").glob("*.tar")
    }


def test_another_call_writes_only_what_is_missing_or_changed(prepared):
    digest, before = read_index(prepared / "out").digest, stamps(prepared)
    assert again(prepared).digest == digest
    assert stamps(prepared) == before
    (prepared / "out" / "shards" / "00001.tar").unlink()
    assert again(prepared).digest == digest
    assert {name for name, stamp in stamps(prepared).items() if stamp != before[name]} == {
        "00001.tar"
    }
    before = stamps(prepared)
    shutil.copyfile(prepared / "videos" / "b" / "0.mp4", prepared / "videos" / "a" / "0.mp4")
    assert again(prepared).digest != digest
    assert sum(stamp != before[name] for name, stamp in stamps(prepared).items()) == 1


def test_parts_by_several_processes_leave_what_one_call_leaves(prepared, tmp_path):
    out = tmp_path / "parts"
    source = index_folder(prepared / "videos", out / "source")
    parts = [write_shards(source, out, SETTINGS, 2, part=(number, 2)) for number in (1, 2)]
    assert sum(part.videos for part in parts) == 12
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert write_shards(source, out, SETTINGS).digest == read_index(prepared / "out").digest
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == before


def test_other_tools_read_the_tar(prepared):
    index = read_index(prepared / "out")
    found = 0
    for path in sorted((prepared / "out" / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getnames()
            for about in [name for name in members if name.endswith(".json")]:
                key, facts = about.partition(".")[0], json.load(tar.extractfile(about))
                label = int(tar.extractfile(f"{key}.cls").read())
                assert index.classes[label] == facts["source"].partition("/")[0]
                assert (
                    sum(name.startswith(f"{key}.") and name.endswith(".jpg") for name in members)
                    == 16
                )
                found += 1
    assert found == len(index.videos) == 12


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_is_found_wherever_it_lies(prepared):
    index = read_index(prepared / "out")
    assert list(verify_shards(index, prepared / "out")) == []
    video = index.videos[0]
    path, _, rest = video.path.partition("#")
    whole = Path(path).read_bytes()
    table = int(rest.partition("/")[0])
    for at, message in (
        (table + 70, f"table at {table:,}"),
        (table - 600, r"vectors at \d"),
        (table + 3, f"byte {table:,}"),
    ):
        damage(Path(path), at)
        with pytest.raises(UserError, match=f"{video.path}: .*{message}"):
            read_clip(video.path, np.arange(16))
        assert [name for name, _ in verify_shards(index, prepared / "out")] == [video.path]
        Path(path).write_bytes(whole)
    row = np.frombuffer(whole, ROW, 1, table + HEADER.size)[0]
    damage(Path(path), int(row["offset"]) + 40)
    with pytest.raises(UserError, match=f"{video.path}: "):
        read_clip(video.path, [0])


def swap_offsets(sidecar: Path) -> list[str]:
    """Swap the offsets of two videos in a shard's .json, seal it again and return their names."""
    about = json.loads(sidecar.read_text())
    one, other = about["videos"][:2]
    one[1], other[1] = other[1], one[1]
    sidecar.write_text(json.dumps(about | {"seal": seal(about)}))
    return [one[0], other[0]]


def test_a_video_that_another_stands_for_is_named_when_it_is_read(prepared):
    """Reading finds swapped offsets even if they reached the index of the next call."""
    sidecars = sorted((prepared / "out" / "shards").glob("0*.json"))
    two = next(path for path in sidecars if len(json.loads(path.read_text())["videos"]) > 1)
    names = swap_offsets(two)
    again(prepared)
    index = read_index(prepared / "out")
    wrong = [video for video in index.videos if video.path.endswith(tuple(names))]
    assert len(wrong) == 2
    for video, other in zip(wrong, sorted(names, reverse=True)):
        with pytest.raises(UserError, match=f"{video.path}: .* is {other}, not "):
            read_clip(video.path, np.arange(16))
    assert {name for name, _ in verify_shards(index, prepared / "out")} == {
        video.path for video in wrong
    }


def test_swapped_offsets_of_the_index_are_refused(prepared):
    path = prepared / "out" / "index.csv"
    rows = path.read_text().splitlines()
    first, second = (row.split(",") for row in rows[1:3])
    first[0], second[0] = (
        f"{other[0].partition('#')[0]}#{other[0].partition('#')[2].partition('/')[0]}/"
        + own[0].partition("#")[2].partition("/")[2]
        for own, other in ((first, second), (second, first))
    )
    path.write_text("\n".join([rows[0], ",".join(first), ",".join(second), *rows[3:]]) + "\n")
    with pytest.raises(UserError, match=r"index\.csv"):
        read_index(prepared / "out")


def test_missing_cut_and_old_shards_are_named_before_a_run(prepared):
    index, path = read_index(prepared / "out"), prepared / "out" / "shards" / "00001.tar"
    check_files(index)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(UserError, match=f"{path}: .*{len(whole) - 1000:,} bytes.* {len(whole):,}"):
        check_files(index)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: .*1 of 5 shards"):
        check_files(index)
    about = prepared / "out" / "shards" / "shards.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"version": 0}))
    for call in (lambda: check_files(index), lambda: again(prepared)):
        with pytest.raises(UserError, match="shards.json: version: "):
            call()


def test_a_changed_source_is_named(prepared):
    source, index = read_index(prepared / "out" / "source"), read_index(prepared / "out")
    changed = prepared / "videos" / "a" / "3.mp4"
    damage(changed, 300)
    assert [name for name, _ in verify_shards(index, prepared / "out")] == [str(changed)]
    shutil.rmtree(prepared / "out" / "shards")
    assert ("a/3.mp4" in dict(write_shards(source, prepared / "out", SETTINGS).excluded)) == bool(
        source.videos[0].content
    )


def test_a_full_disk_leaves_no_half_of_a_shard(prepared, monkeypatch):
    out = prepared / "other"
    source = read_index(prepared / "out" / "source")
    usage = shutil.disk_usage(prepared)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
        with pytest.raises(UserError, match=f"{out / 'shards'}: 12 videos, 192 frames .* 0.0 GB"):
            write_shards(source, out, SETTINGS)
    add, count = shard_writer._add, iter(range(10**6))

    def failing(file, name, data):
        if next(count) > 420:  # after the sample
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(file, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "_add", failing)
        with pytest.raises(UserError, match=r"shards: .* 00004\.tar"):
            write_shards(source, out, SETTINGS)
    assert {path.suffix for path in (out / "shards").iterdir()} <= {".tar", ".json"}
    assert not (out / "index.json").exists()
    assert write_shards(source, out, SETTINGS).digest == read_index(prepared / "out").digest


def test_another_writer_and_other_settings_are_refused(prepared):
    with (
        other_writer(prepared / "out" / "shards") as holder,
        pytest.raises(UserError, match=f"shards: process {holder.pid} on "),
    ):
        again(prepared)
    with pytest.raises(UserError, match="quality 90.* 80"):
        write_shards(
            read_index(prepared / "out" / "source"), prepared / "out", Settings(64, quality=80)
        )


def test_a_video_that_breaks_off_is_left_out_with_its_reason(prepared):
    broken = prepared / "videos" / "a" / "2.mp4"
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    index = again(prepared)
    assert "a/2.mp4" in dict(index.excluded)
    assert list(verify_shards(index, prepared / "out")) == []
