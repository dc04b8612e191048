"""The training commands take `"init": PATH` from a user's spec file."""

import json
import shutil

import pytest
import torch
import yaml
from typer.testing import CliRunner

from mgm.cli import app
from mgm.errors import UserError
from mgm.models import build_mae, read_weights, save_weights
from mgm.models.formats import to_huggingface, to_videomae
from mgm.models.vit import IMAGENET_MEAN, IMAGENET_STD
from mgm.spec import parse, read_spec
from mgm.stages.parents import complete, resolve_init, verified_weights
from mgm.stages.pretrain import pretrain
from mgm.stages.runner import run_all


@pytest.fixture
def parent(execution, pretraining):
    """Return the folder of a pretrained run."""
    run_all([pretraining], pretrain, execution)
    return execution.results / pretraining.run_id


def run(spec, init, videos, out, **changed):
    """Run `mgm VERB` on a spec file with `init` in place of the parent.

    Returns:
        The folder of the new run, or the error message.
    """
    fields = json.loads(spec.model_dump_json()) | changed
    fields.pop("parent")
    out.mkdir(exist_ok=True)
    (out / "mine.json").write_text(json.dumps(fields | {"init": str(init)}))
    done = CliRunner().invoke(
        app, [spec.stage, str(out / "mine.json"), "--out", str(out), "--data", f"ssv2={videos}"]
    )
    if done.exception:
        return str(done.exception)
    (folder,) = out.glob(f"{spec.stage}-*")
    return folder


def test_a_file_gives_what_the_run_that_wrote_it_gives(
    execution, parent, finetuning, probing, videos, tmp_path
):
    torch.save({"model": to_videomae(read_weights(parent))}, tmp_path / "official.pth")
    torch.save(to_huggingface(read_weights(parent)), tmp_path / "hf.bin")
    processor = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    for spec in (finetuning, probing):
        out = tmp_path / spec.stage
        by_id = run(spec, parent, videos, out)
        wanted = (by_id / "predictions.csv").read_bytes()
        for file in ("official.pth", "hf.bin"):
            found = run(spec, tmp_path / file, videos, tmp_path / f"{spec.stage}-{file}")
            assert (found / "predictions.csv").read_bytes() == wanted
            assert found.name != by_id.name  # other bytes, another run


def test_pretraining_goes_on_from_a_file_with_every_weight(parent, pretraining, videos, tmp_path):
    still = {
        "optim": pretraining.optim.model_dump(mode="json") | {"lr": 1e-30, "min_lr": 0, "steps": 1}
    }
    found = read_weights(
        run(pretraining, parent / "weights.safetensors", videos, tmp_path / "out", **still)
    )
    wanted = read_weights(parent)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_sizes_that_a_spec_lacks_come_from_the_weights(pretraining, tmp_path):
    save_weights(build_mae(pretraining), tmp_path / "given.safetensors")
    fields = {"stage": "pretrain", "init": str(tmp_path / "given.safetensors")}
    found = complete(fields, "mine.json", tmp_path)
    for part in ("model", "decoder"):
        for name in ("width", "depth"):
            assert found[part][name] == getattr(getattr(pretraining, part), name)
    own = {"model": {"backbone": "vit-s"}}
    assert complete(fields | own, "mine.json", tmp_path)["model"] == own["model"]


def test_the_content_and_not_the_path_names_the_run(parent, finetuning, tmp_path):
    shutil.copytree(parent, tmp_path / "moved")
    fields = {"verb": "finetune"}
    adopted = [
        resolve_init(fields | {"init": str(place)}, "mine.json", tmp_path)
        for place in (parent, tmp_path / "moved")
    ]
    assert adopted[0] == adopted[1]
    # The place where they were found last.
    assert verified_weights(tmp_path / adopted[0]["parent"])[0].parent == tmp_path / "moved"
    assert adopted[0].keys() == {"verb", "parent", "model"}
    assert resolve_init(fields, "mine.json", tmp_path) is fields


def test_bad_starts_are_one_clear_line(parent, pretraining, finetuning, videos, tmp_path):
    for init, line in [
        (tmp_path / "none.pth", f"init: {tmp_path}/none.pth: no such weights; correct the path"),
        ("", "init is ''; write the path of weights"),
        (videos, f"init: {videos}: this folder holds no weights"),
    ]:
        said = run(finetuning, init, videos, tmp_path / "out")
        assert line in said
        assert said.startswith(f"{tmp_path}/out/mine.json: ")
    both = {"init": str(parent), "parent": parent.name}
    with pytest.raises(Exception, match=r"mine\.json: .*init and parent"):
        resolve_init(both, "mine.json", tmp_path)
    torch.save(
        to_videomae({k: v for k, v in read_weights(parent).items() if "mask_token" not in k}),
        tmp_path / "lacking.pth",
    )
    assert "has no mask_token (1 of" in run(
        pretraining, tmp_path / "lacking.pth", videos, tmp_path / "other"
    )


def test_a_probe_inherits_model_and_clips_and_names_a_field_that_differs(
    execution, parent, pretraining, probing
):
    fields = {"stage": "probe", "data": {"dataset": "ssv2"}, "parent": parent.name}
    made = parse(complete(fields, "x", execution.results), "x")
    assert (made.model, made.clips) == (pretraining.model, pretraining.clips)
    other = fields | {"clips": {"frames": 2}, "model": {"width": 16}}
    made = parse(complete(other, "x", execution.results), "x")
    assert made.clips == pretraining.clips.model_copy(update={"frames": 2})
    whole = json.loads(probing.model_dump_json())
    assert parse(complete(whole, "x", execution.results), "x") == probing
    with pytest.raises(UserError, match=r"mine\.yaml: model\.width is 32.* 16"):
        complete(fields | {"model": {"width": 32}}, "mine.yaml", execution.results)


def test_runs_without_a_spec_file(videos, tmp_path, pretraining):
    """Options alone start a pretraining run, and a probe's spec needs only data and a parent."""
    out, data = tmp_path / "results", f"ssv2={videos}"
    words = [f"{part}.{name}={json.dumps(value)}" for part in ("model", "clips", "optim", "decoder")
             for name, value in getattr(pretraining, part).model_dump(mode="json").items()]  # fmt: skip
    words.append("model.backbone=vit-small")
    sets = [word for one in words for word in ("--set", one)]
    call = ["pretrain", "--set", "mask.name=tube", "--data", data, "--out", str(out), *sets]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.exception
    (run,) = out.glob("pretrain-tube-*")
    spec = {"stage": "probe", "data": {"dataset": "ssv2"}, "parent": run.name}
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump(spec))
    done = CliRunner().invoke(
        app, ["probe", str(tmp_path / "probe.yaml"), "--data", data, "--out", str(out)]
    )
    assert done.exit_code == 0, done.exception
    (probed,) = out.glob("probe-*")
    own = pretraining.model.model_copy(update={"backbone": "vit-small"})
    assert read_spec(probed).model == own
    for words, said in (
        (["pretrain", "--out", str(out)], "mgm pretrain: .*--data"),
        (["pretrain", "x.json", "--set", "seed=1"], "--set seed=1: .*x.json"),
    ):
        with pytest.raises(UserError, match=said):
            CliRunner().invoke(app, words, catch_exceptions=False)
