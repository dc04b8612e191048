"""`mgm embed`, `mgm predict` and `mgm export --to onnx`, as docs/use-a-model.md describes them."""

import csv
import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from mgm.cli import app
from mgm.data.folder import index_folder
from mgm.data.index import read_index
from mgm.data.shards import Settings, write_shards
from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.models import (
    build_classifier,
    build_frozen_encoder,
    build_mae,
    model_of,
    read_weights,
    save_weights,
)
from mgm.spec import ApplyOptions, Clips, Data, Decoder, Finetune, Model, Pretrain, Probe, Views
from mgm.stages import apply as applied
from mgm.stages import windows as windowed
from mgm.stages.embed import embed
from mgm.stages.finetune import class_weights
from mgm.stages.job import with_channels
from mgm.stages.predict import predict
from mgm.video import probe_video, read_clip
from mgm.video import test_loader as views_loader
from mgm.video.clip import cut_frames
from mgm.video.transform import test_box as crop
from tests.helpers.errors import refused
from tests.helpers.videos import moving_square, write_video
from tests.helpers.writers import other_writer

SMALL = {
    "data": Data(dataset="folder"),
    "clips": Clips(frames=4, size=24, stride=2),
    "model": Model(width=16, depth=2, heads=2, patch=8),
}
FINETUNE, PRETRAIN = (
    Finetune(**SMALL),
    Pretrain(**SMALL, decoder=Decoder(width=8, depth=1, heads=2)),
)
PAGE = (Path(__file__).parents[2] / "docs" / "use-a-model.md").read_text()
COMMANDS = re.findall(r"^mgm [^#\n]*", PAGE, re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch, videos) -> Path:
    """Return a folder with a fine-tuned run, a pretrained run and generated clips.

    Four clips are in `videos`, next to a broken file; one is `film.mp4`.
    """
    for name, spec, model in (
        ("run", FINETUNE, build_classifier(FINETUNE, 3)),
        ("pretrained", PRETRAIN, build_mae(PRETRAIN)),
    ):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text(spec.model_dump_json())
        save_weights(model, tmp_path / name / "weights.safetensors")
    for path in sorted(videos.rglob("*.mp4"))[:4]:
        (tmp_path / "videos" / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "videos" / "deep" / path.name)
    shutil.copy(path, tmp_path / "film.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "classes.txt").write_text("up\ndown\naside\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def features_of(spec, weights, names, views):
    model = build_frozen_encoder(Probe(data=spec.data, clips=spec.clips, model=spec.model), weights)
    found, *_ = applied.find_videos(Path("videos"))
    batches = views_loader(list(found.values()), spec.clips, spec.model.tubelet, views, batch=1)
    with torch.inference_mode():
        return np.stack([model(batch.frames_BTHWC).numpy() for batch in batches])


def test_the_pages_commands_do_what_it_says(place):
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output, done.exception)
    table = pd.read_parquet("features.parquet")
    assert table.path.tolist() == sorted(
        f"deep/{path.name}" for path in Path("videos/deep").iterdir()
    )
    expected_NVD = features_of(
        FINETUNE, Path("run/weights.safetensors"), table.path, Views(temporal=1, spatial=1)
    )
    np.testing.assert_array_equal(np.stack(table.feature), expected_NVD[:, 0])
    ((name, reason),) = pd.read_csv("features.failed.csv").itertuples(index=False)
    assert name == "broken.mp4"
    assert reason

    clips_MD, rows = np.load("clips.npy"), pd.read_csv("clips.csv")
    assert clips_MD.shape == (16, 16)
    assert rows.view.tolist() == [0, 1, 2, 3] * 4
    assert not list(place.glob("*.parts"))

    best, scores = (
        pd.read_csv("predicted/predictions.csv"),
        pd.read_parquet("predicted/scores.parquet"),
    )
    assert set(best.class_1) <= {"up", "down", "aside"}
    np.testing.assert_allclose(scores[["up", "down", "aside"]].sum(axis=1), 1, atol=1e-5)
    assert [row[row["class_1"]] for row in scores.merge(best).to_dict("records")] == pytest.approx(
        best.score_1.tolist(), abs=1e-4
    )
    assert list(pd.read_parquet("film.parquet")) == ["path", "start", "end", "feature"]
    assert Path("film/windows.csv").is_file()
    page = Path("predicted/index.html").read_text()
    assert page.count("data:image/jpeg;base64,/9j/") == 4
    assert all(name in page for name in ("aside", table.path[0]))

    frames_BTHWC = np.random.default_rng(3).integers(0, 256, (3, 4, 24, 24, 3), dtype=np.uint8)
    for name in ("encoder", "classifier"):
        session = onnxruntime.InferenceSession(f"onnx/{name}.onnx")
        (found,) = session.run(None, {"frames": frames_BTHWC})
        assert found.shape == (3, 16 if name == "encoder" else 3)
        about = session.get_modelmeta().custom_metadata_map
        assert (about["frames"], about["size"]) == ("4", "24")
        assert ("classes" in about) == (name == "classifier")


def test_a_stopped_command_continues_and_gives_the_same(place, monkeypatch):
    monkeypatch.setattr(applied, "PART", 2)
    embed(Path("videos"), Path("run"), Path("whole.npy"), HOW)
    seen = []

    def stops(videos, *rest):
        for batch in original(videos, *rest):
            seen.append(len(videos))
            if len(seen) == 3:
                raise KeyboardInterrupt
            yield batch

    original = applied.view_batches
    monkeypatch.setattr(applied, "view_batches", stops)
    with pytest.raises(KeyboardInterrupt):
        embed(Path("videos"), Path("run"), Path("again.npy"), HOW)
    with pytest.raises(UserError, match=r"again\.npy\.parts: .*weights"):
        embed(Path("videos"), Path("pretrained"), Path("again.npy"), HOW)
    with monkeypatch.context() as patch:
        patch.setattr(applied, "best_device", lambda: torch.device("cuda"))
        with pytest.raises(UserError, match=r"again\.npy\.parts: "):
            embed(Path("videos"), Path("run"), Path("again.npy"), HOW)
    embed(Path("videos"), Path("run"), Path("again.npy"), HOW)
    assert seen[3:] == [2, 2]  # the first two are not read again
    np.testing.assert_array_equal(np.load("again.npy"), np.load("whole.npy"))


HOW = ApplyOptions(temporal=2)


def test_clips_of_several_videos_computed_at_once_have_the_same_features(place, monkeypatch):
    """As on a GPU. The third of four videos is damaged after it was found."""
    damaged, found = sorted(Path("videos/deep").iterdir())[2], applied.find_videos(Path("videos"))
    damaged.write_bytes(b"no video")
    monkeypatch.setattr("mgm.stages.embed.find_videos", lambda source: found)
    embed(Path("videos"), Path("run"), Path("alone.npy"), HOW)
    monkeypatch.setattr(applied, "best_device", lambda: torch.device("cuda"))
    embed(Path("videos"), Path("run"), Path("together.npy"), HOW)
    # The sums of products may have another order.
    np.testing.assert_allclose(np.load("together.npy"), np.load("alone.npy"), rtol=1e-4, atol=1e-6)
    assert Path("together.csv").read_text() == Path("alone.csv").read_text()
    assert f"deep/{damaged.name}" in Path("together.failed.csv").read_text()
    assert len(np.load("alone.npy")) == 3


def stopped(monkeypatch, after: int, out: str) -> None:
    """Call `embed` and interrupt it after `after` batches."""
    original = applied.view_batches

    def stops(videos, *rest):
        for number, batch in enumerate(original(videos, *rest)):
            if number == after:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(applied, "view_batches", stops)
        with pytest.raises(KeyboardInterrupt):
            embed(Path("videos"), Path("run"), Path(out), HOW)


def test_a_video_that_was_replaced_or_vanished_is_not_what_the_parts_say(place, monkeypatch):
    monkeypatch.setattr(applied, "PART", 2)
    stopped(monkeypatch, 3, "again.npy")
    first, second, third, last = sorted(Path("videos/deep").iterdir())
    shutil.copyfile(last, first)
    second.unlink()
    embed(Path("videos"), Path("run"), Path("again.npy"), HOW)
    assert pd.read_csv("again.csv").path.tolist() == [
        f"deep/{path.name}" for path in (first, third, last)
    ]
    found = np.load("again.npy")
    np.testing.assert_array_equal(found[0], found[2])
    embed(Path("videos"), Path("run"), Path("whole.npy"), HOW)
    np.testing.assert_array_equal(found, np.load("whole.npy"))


def test_a_damaged_part_is_computed_again(place, monkeypatch):
    monkeypatch.setattr(applied, "PART", 2)
    embed(Path("videos"), Path("run"), Path("whole.npy"), HOW)
    stopped(monkeypatch, 3, "again.npy")
    (part,) = Path("again.npy.parts").glob("*.npz")
    part.write_bytes(part.read_bytes()[:-40])
    embed(Path("videos"), Path("run"), Path("again.npy"), HOW)
    np.testing.assert_array_equal(np.load("again.npy"), np.load("whole.npy"))


def test_a_folder_that_is_not_ours_is_neither_used_nor_deleted(place, monkeypatch):
    foreign = Path("f.npy.parts")
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"f\.npy\.parts: "):
        embed(Path("videos"), Path("run"), Path("f.npy"), HOW)
    assert (foreign / "thesis.tex").read_text() == "years of work"
    (foreign / "thesis.tex").unlink()
    foreign.rmdir()
    stopped(monkeypatch, 3, "f.npy")
    (foreign / "notes.txt").write_text("of a user, in our folder")
    embed(Path("videos"), Path("run"), Path("f.npy"), HOW)
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]


def test_a_second_call_on_one_output_is_refused(place, monkeypatch):
    """Otherwise each call would delete the other's parts."""
    outputs = {
        "f.npy": lambda: embed(Path("videos"), Path("run"), Path("f.npy"), HOW),
        "p": lambda: predict(Path("videos"), Path("run"), Path("p"), None, HOW),
    }
    locked = set[str]()
    original = applied.view_batches

    def watched(videos, *rest):
        for batch in original(videos, *rest):
            locked.update(lock.stem for lock in Path().glob("*.lock"))
            yield batch

    monkeypatch.setattr(applied, "view_batches", watched)
    for name, call in outputs.items():
        with other_writer(Path(name)) as other, refused(f"{name}: process {other.pid} on "):
            call()
        assert not Path(name).exists()
        call()
    assert locked == {"f.npy", "p"}
    assert np.load("f.npy").shape == (4, 16)
    assert len(pd.read_csv("p/predictions.csv")) == 4
    assert not [*Path().rglob("*.lock"), *Path().rglob("*.parts")]


def test_a_class_named_path_keeps_its_scores(place):
    Path("classes.txt").write_text("up\npath\naside\n")
    predict(Path("videos"), Path("run"), Path("p"), Path("classes.txt"), HOW)
    scores = pd.read_parquet("p/scores.parquet")
    assert list(scores.columns) == ["up", "path", "aside", "path_"]
    np.testing.assert_allclose(scores[["up", "path", "aside"]].sum(axis=1), 1, atol=1e-5)


def test_weights_alone_say_their_model_and_bad_input_is_one_line(place):
    weights = Path("pretrained/weights.safetensors")
    assert model_of(read_weights(weights), weights) == SMALL["model"].model_copy(
        update={"heads": 1}
    )
    how = ApplyOptions(frames=4, size=24, stride=2)
    assert "4 features of width 16" in embed(Path("videos"), weights, Path("f.npy"), how)
    for call, line in (
        (lambda: embed(Path("videos"), weights, Path("f.txt"), how), "f.txt: "),
        (
            lambda: embed(Path("nowhere"), weights, Path("f.npy"), how),
            "nowhere: ",
        ),
        (
            lambda: embed(Path("videos/broken.mp4"), weights, Path("f.npy"), how),
            "; broken.mp4: ",
        ),
        (
            lambda: predict(Path("videos"), weights, Path("p"), None, how),
            "weights.safetensors: has no head.bias",
        ),
        (
            lambda: predict(Path("videos"), Path("run"), Path("p"), Path("videos/broken.mp4"), how),
            "broken.mp4",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(line)) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_class_weights_count_classes_alike_and_videos_one_on_average():
    labels = [0] * 8 + [1] * 2 + [3] * 5  # class 2 has no video
    weight_C = class_weights(FINETUNE.model_copy(update={"class_weights": "inverse"}), labels, 4)
    np.testing.assert_allclose(weight_C, [15 / 24, 15 / 6, 0, 15 / 15])
    assert weight_C[torch.tensor(labels)].mean() == 1
    assert class_weights(FINETUNE, labels, 4).tolist() == [1] * 4
    assert FINETUNE.model_copy(update={"class_weights": "inverse"}).run_id != FINETUNE.run_id


def test_grey_frames_are_the_luma_of_video():
    rgb = torch.tensor(
        [[[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]]]], dtype=torch.uint8
    )
    assert with_channels(rgb, 1).flatten().tolist() == [76, 150, 29, 255]
    assert with_channels(rgb, 3) is rgb
    with pytest.raises(UserError, match=r"model\.channels is 5"):
        with_channels(rgb, 5)


def test_features_of_an_index_name_class_and_split(place):
    index = generate(
        Synthetic(classes=2, train_per_class=1, test_per_class=1, size=32, frames=16), place / "set"
    )
    embed(Path("set"), Path("run"), Path("of_index.parquet"), ApplyOptions())
    table = pd.read_parquet("of_index.parquet")
    assert sorted(table.split) == ["test", "test", "train", "train"]
    assert [index.classes[label] for label in table.label] == table["class"].tolist()


def test_windows_are_clips_along_a_video_and_survive_a_stop(place, monkeypatch):
    """A window's feature depends only on its frames, and a stopped command continues."""
    video = min((place / "videos" / "deep").iterdir())
    info = probe_video(video)
    monkeypatch.setattr(windowed, "PART", 1)
    out, every = place / "long.npy", 2 / info.fps
    how = ApplyOptions(frames=4, size=24, stride=2, every=every)
    given = [video, place / "pretrained", out, how, "clip"]
    compute, calls = windowed._values, []

    def stopping(*args):
        calls.append(args[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(windowed, "_values", stopping)
    with pytest.raises(KeyboardInterrupt):
        embed(*given)
    monkeypatch.setattr(windowed, "_values", lambda *a: calls.append(a[-1]) or compute(*a))
    embed(*given)
    assert not applied.folder_of_parts(out).exists()
    assert [one.tolist() for one in calls[1:3]] == [calls[1].tolist()] * 2  # the first part is kept
    table, x_ND = pd.read_csv(out.with_suffix(".csv")), np.load(out)
    starts_N = np.arange(0, info.frames - 6, 2)
    assert len(table) == len(x_ND) == len(starts_N)
    np.testing.assert_allclose(table.start, starts_N / info.fps, atol=1e-3)
    np.testing.assert_allclose(table.end - table.start, 7 / info.fps, atol=2e-3)
    model = build_frozen_encoder(Probe(**SMALL), place / "pretrained" / "weights.safetensors")
    for row, start in ((0, 0), (-1, starts_N[-1])):
        clip = read_clip(video, start + 2 * np.arange(4), motion=False)
        box = crop(*clip.frames_THWC.shape[1:3], 0, 1, 24)
        frames = torch.from_numpy(cut_frames(clip.frames_THWC, box, 24))[None]
        np.testing.assert_allclose(x_ND[row], model(frames)[0], atol=1e-5)


def test_windows_of_a_variable_frame_rate_have_the_times_of_their_frames(place):
    """Frames are shown 20 ms apart for 20 frames, then 200 ms apart."""
    times = [*range(0, 400, 20), *range(400, 4400, 200)]
    frames_THWC = moving_square(len(times), 48, 48)
    write_video(place / "vfr.mkv", frames_THWC, times=times)
    how = ApplyOptions(frames=4, size=24, stride=1, every=1.0)
    embed(place / "vfr.mkv", place / "pretrained", place / "vfr.npy", how, "clip")
    table = pd.read_csv(place / "vfr.csv")
    assert table.start.tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=0.011)
    # Seven frames: of 20 ms, then of 200 ms.
    assert (table.end - table.start)[:3].tolist() == pytest.approx([0.14, 1.4, 1.4], abs=0.011)


def test_tokens_of_windows_have_the_features_as_their_mean(place):
    common = ["--weights", str(place / "pretrained"), "--every", "0.2"]
    source = str(place / "videos")
    for name, words in (("x.npy", []), ("t.npy", ["--tokens"])):
        said = CliRunner().invoke(
            app, ["embed", source, *common, "--out", str(place / name), *words]
        )
        assert said.exit_code == 0, said.output
    x_ND, t_NLD = np.load(place / "x.npy"), np.load(place / "t.npy")
    assert t_NLD.dtype == np.float16
    assert t_NLD.shape == (len(x_ND), 2 * 3 * 3, 16)
    np.testing.assert_allclose(t_NLD.astype(np.float32).mean(1), x_ND, atol=5e-3)


def test_predictions_of_windows_have_a_time_line(place):
    out = place / "told"
    words = ["--weights", str(place / "run"), "--every", "0.2", "--out", str(out)]
    said = CliRunner().invoke(app, ["predict", str(place / "videos"), *words])
    assert said.exit_code == 0, said.output
    table = pd.read_csv(out / "windows.csv")
    assert list(table) == ["path", "start", "end", "class", "score"]
    assert len(table) == len(pd.read_parquet(out / "scores.parquet"))
    page = (out / "index.html").read_text()
    for _, line in re.findall(r'(class="line").*?>(.*?)</div>', page):
        widths = [float(x) for x in re.findall(r"width: ([\d.]+)%", line)]
        assert sum(widths) == pytest.approx(100, abs=0.1)
    seconds = re.findall(r"<span>0 s</span><span>([\d.]+) s</span>", page)
    assert sorted(map(float, seconds)) == sorted(table.groupby("path").end.max().round(1))
    assert set(table["class"]) == set(re.findall(r'class="key"[^>]*>([^<]+)', page))


@pytest.mark.parametrize(
    ("duration", "fps", "said"), [(13 * 3600, 25.0, "13.0 hours"), (9, 0.0, "no frame rate")]
)
def test_a_video_that_is_no_video_is_one_line(place, monkeypatch, duration, fps, said):
    real = windowed.probe_video
    monkeypatch.setattr(
        windowed,
        "probe_video",
        lambda path: dataclasses.replace(real(path), duration_s=duration, fps=fps),
    )
    words = ["--weights", str(place / "pretrained"), "--every", "1", "--out", str(place / "x.npy")]
    found = CliRunner().invoke(app, ["embed", str(place / "videos"), *words])
    assert found.exit_code == 2 or isinstance(found.exception, UserError)
    assert said in str(found.exception) + found.output


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("out/clips.csv", "embed film.mp4 --weights run --out out/clips.npy --temporal 1"),
        ("out/predictions.csv", "predict film.mp4 --weights run --out out --temporal 1"),
        ("out/README.md", "export run --to hf --out out"),
        ("out/config.json", "export run --to hf --out out"),
        ("out/index.csv", "prepare folder --source out/index.csv --out out"),
    ],
)
def test_only_force_replaces_a_file_that_the_command_did_not_write(place, name, command):
    """The command replaces its own files, but not an edited one."""
    Path("out").mkdir()
    videos = sorted(Path("videos/deep").iterdir())
    splits = ("train", "train", "test", "test")
    rows = [f"../{video},{n % 2},{split}" for n, (video, split) in enumerate(zip(videos, splits))]
    Path(name).write_text(mine := "\n".join(["path,label,split", *rows, ""]))

    def call(*more):
        return CliRunner().invoke(app, [*shlex.split(command), *more])

    assert name in str(call().exception)
    assert Path(name).read_text() == mine
    assert {path.name for path in Path("out").iterdir()} == {Path(name).name}
    assert call("--force").exit_code == 0
    # The index has replaced its list.
    if name == "out/index.csv":
        return
    assert call().exit_code == 0
    Path(name).write_text(mine)
    assert name in str(call().exception)
    assert Path(name).read_text() == mine


def test_predictions_of_an_index_name_classes_paths_and_what_is_correct(place):
    """Shards have the names of their sources, and a carriage return in a name keeps its row."""
    # A name with a semicolon is one class.
    for label in ("cats", "dogs; puppies", "owls"):
        for number in range(2):
            path = place / "own" / label / f"{number}\r.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, moving_square(8, 32, 32, seed=number))
    write_shards(
        index_folder(place / "own", place / "mine" / "source"), place / "mine", Settings(64)
    )
    index = read_index(place / "mine")
    predict(place / "mine", place / "run", place / "told", None, ApplyOptions())
    with (place / "told" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in rows) == sorted(
        f"{label}/{number}\r.mp4" for label in index.classes for number in range(2)
    )
    for row in rows:
        assert row["class_1"] in index.classes
        assert row["label"] == row["path"].split("/")[0]
        assert row["correct"] == str(int(row["class_1"] == row["label"]))
        assert row["split"] in ("train", "test")


def test_weights_that_overflow_have_no_predictions(place):
    path = place / "run" / "weights.safetensors"
    weights = read_weights(path)
    weights["head.weight"].fill_(3.4e38)
    save_file(weights, place / "huge.safetensors")
    with pytest.raises(UserError, match=r"scores\.parquet: 0 of 1 .*not finite"):
        predict(
            place / "film.mp4",
            place / "huge.safetensors",
            place / "told",
            None,
            ApplyOptions(frames=4, size=24, stride=2),
        )
