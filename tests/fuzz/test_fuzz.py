"""Fuzz every kind of user input.

Each input has the right result, or an error of one line: no traceback, no hang, no second line.
Hypothesis changes valid specs, scales, CSVs, results, archives, weights, video files and
their names, with more than 1,000 inputs per run. The examples are the same in each run, so failures
can be reproduced.
"""

import hashlib
import io
import json
import lzma
import re
import shutil
import struct
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mgm.dag.messages import overview
from mgm.dag.workflow import Workflow
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.errors import as_user_error
from mgm.models import build_classifier, save_weights
from mgm.models.weights_file import read_tensors
from mgm.reading import read_json, read_table, read_text, read_yaml
from mgm.results.archive import unpack
from mgm.results.result import examine
from mgm.spec import (
    Clips,
    Data,
    Finetune,
    Model,
    PredictOptions,
    Pretrain,
    read_spec,
)
from mgm.stages.apply import predict
from mgm.study.cost import costs
from mgm.study.videos import size_of
from mgm.video import read_clip
from mgm.video.vectors import inspect_video
from tests.helpers.fake_results import finish, suite
from tests.helpers.videos import moving_square, write_video

pytestmark = pytest.mark.slow
SCALES = Path(__file__).parents[2] / "workflow" / "config"
STATES = {"finished", "running", "failed", "altered", "not run"}


def inputs(count: int):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        # Failing examples are not shrunk, because that takes minutes.
        phases=[Phase.explicit, Phase.generate],
    )


def one_line_or(result):
    """Return `result()`, or None if the program would end with one line."""
    try:
        return result()
    except Exception as error:
        if not (known := as_user_error(error)):
            raise
        message = str(known)
        assert message.strip(), "an empty error"
        assert "\n" not in message, f"two lines: {message!r}"
        assert len(message) < 2000, f"{len(message)} characters: {message[:200]}"
        return None


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            "a" * 300,
            "../../x",
            "$(touch x)",
            "\x00",
            "\ud800",
            "1e999",
            "mgm",
            "vit-b",
            "0",
            80000,
            2**63,
            -1,
            0.5,
            [],
            {},
        ]
    ),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def places(value, at=()):
    """Yield the path to every place in nested dictionaries and lists."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def changed(fields, draw):
    """Return a copy of `fields` with one to three places replaced, removed or added."""
    fields = json.loads(json.dumps(fields))
    for _ in range(draw(st.integers(1, 3))):
        if not (found := list(places(fields))):
            break
        *at, last = draw(st.sampled_from(found))
        inner = fields
        for key in at:
            inner = inner[key]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if what == "replace":
            inner[last] = draw(junk)
        elif what == "remove":
            del inner[last]
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=8))] = draw(junk)
    return fields


def mangled(data: bytes, draw) -> bytes:
    """Return `data` cut short, emptied, or with bytes changed or inserted."""
    what = draw(st.sampled_from(["cut", "flip", "insert", "empty"]))
    if what == "empty" or not data:
        return b""
    at = draw(st.integers(0, len(data) - 1))
    if what == "cut":
        return data[:at]
    if what == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=12)) + data[at:]
    flipped = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        flipped[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(flipped)


def write_json(path: Path, fields) -> None:
    path.write_bytes(json.dumps(fields).encode(errors="surrogatepass"))


VALID_SPECS = [json.loads(spec.model_dump_json()) for spec in suite(seeds=(0,)).specs.values()]
VALID_SPECS = list({spec["verb"]: spec for spec in VALID_SPECS}.values())


@inputs(400)
@given(st.data())
def test_specs(tmp_path, data):
    path = tmp_path / "spec.json"
    fields = changed(data.draw(st.sampled_from(VALID_SPECS)), data.draw)
    write_json(path, fields)
    if data.draw(st.integers(0, 4)) == 0:
        path.write_bytes(mangled(path.read_bytes(), data.draw))
    spec = one_line_or(lambda: read_spec(path))
    # An accepted spec can be hashed, written and read again.
    if spec is not None:
        path.write_text(spec.model_dump_json())
        assert read_spec(path).run_id == spec.run_id
        assert "/" not in spec.run_id


@inputs(100)
@given(st.data())
def test_scales(tmp_path, data):
    path, name = tmp_path / "scale.yaml", data.draw(st.sampled_from(["smoke", "paper", "mini"]))
    fields = changed(yaml.safe_load((SCALES / f"{name}.yaml").read_text()), data.draw)
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    if data.draw(st.integers(0, 3)) == 0:
        path.write_bytes(mangled(path.read_bytes(), data.draw))
    paper = one_line_or(lambda: Workflow({"scale": str(path)}))
    if paper is not None:
        assert all(run_id == spec.run_id for run_id, spec in paper.plan.specs.items())
        assert paper.name not in ("", ".", "..")
        assert not set(paper.name) & set("/ $;`'\"\\\n")
        assert overview(paper, paper.jobs)
        if name == "paper":
            one_line_or(
                lambda: costs(
                    paper.plan, lambda data: size_of(paper.datasets, paper.key_of(data)), 1e14
                )
            )


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Folder with two videos of each of two classes, and two files that are not videos."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a0", "a1", "b0", "b1"):
        write_video(
            folder / f"{name}.mp4",
            moving_square(frames=4, height=32, width=32, side=12, seed=ord(name[0])),
        )
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    return folder


@inputs(150)
@given(st.data())
def test_csvs(videos, tmp_path, data):
    names = st.sampled_from(
        [
            "a0.mp4",
            "a1.mp4",
            "b0.mp4",
            "b1.mp4",
            "empty.mp4",
            "text.mp4",
            "missing.mp4",
            "../x.mp4",
            "",
        ]
    )
    labels = st.sampled_from(["a", "b", "1", "01", "2", "", " ", "ä", '"', "a,b", "\ud800"])
    header = data.draw(
        st.sampled_from(
            [
                "path,label",
                "label,path",
                "path,label,split",
                "path,label,group",
                "path,label,split,group",
                "path",
            ]
        )
    )
    columns = {
        "path": names,
        "label": labels,
        "split": st.sampled_from(["train", "test", "", "val"]),
        "group": st.sampled_from(["g", "h"]),
    }
    rows = data.draw(
        st.lists(st.tuples(*(columns[column] for column in header.split(","))), max_size=8)
    )
    text = "\n".join([header, *(",".join(row) for row in rows)]).encode(errors="surrogatepass")
    if data.draw(st.integers(0, 4)) == 0:
        text = mangled(text, data.draw)
    source = videos / "list.csv"
    source.write_bytes(text)
    shutil.rmtree(tmp_path / "index", ignore_errors=True)
    index = one_line_or(lambda: index_folder(source, tmp_path / "index"))
    if index is not None:
        assert len(index.classes) >= 2
        assert {video.split for video in index.videos} == {"train", "test"}
        shutil.rmtree(tmp_path / "index")
        assert index_folder(source, tmp_path / "index").digest == index.digest


@inputs(200)
@given(st.data())
def test_results(tmp_path, data):
    """Reading results never raises: each run has a state."""
    known = suite(seeds=(0,))
    spec = next(
        spec
        for spec in known.specs.values()
        if isinstance(spec, data.draw(st.sampled_from([Pretrain, Finetune])))
    )
    # The last example may have left this folder.
    shutil.rmtree(tmp_path / spec.run_id, ignore_errors=True)
    folder = finish(tmp_path, spec)
    path = folder / data.draw(
        st.sampled_from(["result.json", "result.json", "result.json", "spec.json", "log.jsonl"])
    )
    match data.draw(st.sampled_from(["fields", "fields", "bytes", "gone", "folder"])):
        case "fields" if path.suffix == ".json":
            write_json(path, changed(json.loads(path.read_text()), data.draw))
        case "gone":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case _:
            path.write_bytes(mangled(path.read_bytes(), data.draw))
    found = examine(folder, spec)
    assert found.state in STATES
    assert "\n" not in found.why
    assert (found.result is not None) == (found.state == "finished")


names = st.sampled_from(
    [
        *("trial/a/result.json", "trial/b/result.json", "trial/b/spec.json", "trial/a", "trial"),
        *("trial/../x", "../x", "/tmp/x", "other/a", "", ".", "trial/a/b/c", "trial/" + "n" * 300),
    ]
)
kinds = st.sampled_from(
    [tarfile.REGTYPE] * 6
    + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)


@inputs(100)
@given(st.data())
def test_archives(tmp_path, data):
    """Unpacking an archive with a right digest writes only below its folder, and no links."""
    place = tmp_path / "in" / "results"
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    place.mkdir(parents=True)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, kind in data.draw(st.lists(st.tuples(names, kinds), min_size=1, max_size=5)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "../../../x", 2
            tar.addfile(member, io.BytesIO(b"{}"))
    content = bytearray(tarred.getvalue())
    if data.draw(st.booleans()):
        # Change the first header, and correct its checksum.
        at = data.draw(st.integers(0, 511))
        some = data.draw(st.binary(min_size=1, max_size=12))[: 512 - at]
        content[at : at + len(some)] = some
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
    packed = lzma.compress(content, preset=0)
    if data.draw(st.integers(0, 3)) == 0:
        packed = mangled(packed, data.draw)
    (place / "trial.tar.xz").write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    (place / "SHA256SUMS").write_text(f"{digest}  trial.tar.xz\n")
    one_line_or(lambda: unpack(place / "trial"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in place.parent.iterdir()] == ["results"]
    assert {path.name for path in place.iterdir()} <= {"trial", "trial.tar.xz", "SHA256SUMS"}
    assert all(path.is_dir() or path.is_file() for path in place.rglob("*"))
    assert not any(path.is_symlink() for path in place.rglob("*"))


@inputs(25)
@example([".a", "._b", "c", "d", "e"])
@given(st.lists(st.text(min_size=1, max_size=12), min_size=4, max_size=6, unique=True))
def test_file_names(videos, tmp_path, stems):
    """Each file is in the index once, by its own name, or is listed with a reason.

    Hidden files are no videos: a Mac writes one beside each video that it copies.
    """
    shutil.rmtree(tmp_path, ignore_errors=True)
    written = set()
    for number, stem in enumerate(stems):
        path = tmp_path / "videos" / "ab"[number % 2] / f"{stem}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file system refuses some names.
        with suppress(OSError, ValueError):
            shutil.copy(videos / "a0.mp4", path)
            written.add(str(path))
    index = one_line_or(lambda: index_folder(tmp_path / "videos", tmp_path / "index"))
    if index is not None:
        found = {video.path for video in index.videos}
        seen = {name for name in written if Path(name).is_file() and Path(name).name[0] != "."}
        assert found == seen - {str(tmp_path / "videos" / name) for name, _ in index.excluded}
        assert read_index(tmp_path / "index") == index


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("weights")
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(3)}
    save_file(tensors, folder / "w.safetensors")
    torch.save({"model": tensors}, folder / "w.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@inputs(150)
@given(st.data())
def test_weights(weights, tmp_path, data):
    content = data.draw(st.sampled_from(weights))
    # Change fields of a safetensors header, or bytes of the file.
    if content[8:9] == b"{" and data.draw(st.booleans()):
        size = struct.unpack("<Q", content[:8])[0]
        header = json.dumps(changed(json.loads(content[8 : 8 + size]), data.draw)).encode(
            errors="surrogatepass"
        )
        content = struct.pack("<Q", len(header)) + header + content[8 + size :]
    else:
        content = mangled(content, data.draw)
    path = tmp_path / ("weights.safetensors" if content[8:9] == b"{" else "weights.pth")
    path.write_bytes(content)
    found = one_line_or(lambda: read_tensors(path))
    assert found is None or all(isinstance(value, torch.Tensor) for value in found.values())


CODECS = {
    "h264.mp4": {"codec": "libx264", "b_frames": 2, "gop": 12},
    "h264.mkv": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264"},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 1},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "variable.mp4": {"codec": "libx264", "times": [0, 10, 200, 210, 220, 900, 905, 910]},
    "odd.mp4": {"codec": "libx264", "pix_fmt": "yuv444p"},
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("zoo")
    found = {}
    for name, options in CODECS.items():
        side = 33 if name.startswith("odd") else 32
        write_video(
            folder / name, moving_square(frames=8, height=side, width=side, side=12), **options
        )
        found[name] = (folder / name).read_bytes()
    return found


@inputs(150)
@given(st.data())
def test_broken_videos(zoo, tmp_path, data):
    name = data.draw(st.sampled_from(sorted(zoo)))
    path = tmp_path / name
    path.write_bytes(mangled(zoo[name], data.draw))
    clip = one_line_or(lambda: read_clip(path, range(0, 8, 2)))
    assert clip is None or len(clip.frames_THWC) == 4
    one_line_or(lambda: inspect_video(path).describe())


# Options for bare weights, and text files in any encoding.

SPEC = Finetune(
    data=Data(dataset="folder"),
    clips=Clips(frames=4, size=24, stride=2),
    model=Model(width=16, depth=2, heads=2, patch=8),
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("bare") / "w.safetensors"
    save_weights(build_classifier(SPEC, 2), path)
    return path


@inputs(8)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=6))
def test_bits(bare, tmp_path, bits):
    """Weights with flipped bits have finite predictions, or are refused."""
    content = bytearray(bare.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for place, bit in bits:
        content[start + int(place * (len(content) - start))] ^= 1 << bit
    (tmp_path / "w.safetensors").write_bytes(content)
    if not (tmp_path / "videos").exists():
        (tmp_path / "videos").mkdir()
        write_video(tmp_path / "videos" / "a.mp4", moving_square(frames=8, height=32, width=32))
    how = PredictOptions(frames=4, size=24, stride=2, temporal=1, spatial=1, force=True)
    weights, out = tmp_path / "w.safetensors", tmp_path / "out.csv"
    if one_line_or(lambda: predict(tmp_path / "videos", weights, out, None, how)):
        assert not {"nan", "inf"} & set(re.split(r"\W+", out.read_text()))


@inputs(200)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.tuples(
            st.text(max_size=30), st.sampled_from(["latin-1", "utf-16", "utf-32", "utf-8"])
        ).map(lambda pair: pair[0].encode(pair[1], errors="replace")),
    )
)
def test_encodings(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    for read in (read_text, read_json, read_yaml, lambda path: list(read_table(path))):
        one_line_or(lambda read=read: read(tmp_path / "x"))
