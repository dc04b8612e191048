import json
import re
import resource

import pytest

from mgm.errors import UserError
from mgm.reading import read_yaml
from mgm.spec import (
    BACKBONES,
    Clips,
    Data,
    Finetune,
    FinetuneOptim,
    Mask,
    Measure,
    Model,
    Optim,
    Pretrain,
    Probe,
    Views,
    Visualise,
    data_name,
    parse,
)
from mgm.spec.new_spec import STAGES, commented, fields_of, write_new
from tests.helpers.errors import refused

SSV2 = Data(dataset="ssv2")
PARENT = "pretrain-mgm-vitb-ssv2-e200-a7c57380"


def test_ten_run_ids_never_change():
    """A run id never changes, because it names results that took weeks.

    If this fails, a default or the hash changed. Restore it, and add a field instead.
    """
    runs = [
        Pretrain(data=SSV2),
        Pretrain(data=SSV2, optim=Optim(epochs=200)),
        Pretrain(data=SSV2, optim=Optim(epochs=200), seed=1),
        Pretrain(data=SSV2, mask=Mask(name="tube", ratio=0.9)),
        Pretrain(
            data=Data(dataset="folder", digest="0123456789ab"), clips=Clips(stride=2, flip=False)
        ),
        Finetune(data=SSV2, parent=PARENT),
        Finetune(data=SSV2, optim=FinetuneOptim(epochs=30), views=Views(temporal=2)),
        Probe(data=Data(dataset="ucf101"), parent=PARENT),
        Probe(data=SSV2, model=Model(width=64, depth=3, heads=4)),
        Visualise(data=SSV2),
    ]
    assert [run.run_id for run in runs] == PINNED


PINNED = [
    "pretrain-mgm-vitb-ssv2-e800-e3b0835a",
    "pretrain-mgm-vitb-ssv2-e200-a7c57380",
    "pretrain-mgm-vitb-ssv2-e200-9d283924",
    "pretrain-tube-vitb-ssv2-e800-9c5f80ab",
    "pretrain-mgm-vitb-folder-e800-e2d903f1",
    "finetune-vitb-ssv2-e100-a7c57380-f17e8f76",
    "finetune-vitb-ssv2-e30-scratch-9296a21f",
    "probe-vitb-ucf101-a7c57380-0585ed3e",
    "probe-vitb-ssv2-random-3c7da567",
    "visualise-figure5-ssv2-4aea9dbf",
]


@pytest.mark.parametrize(
    "run",
    [
        Pretrain(data=SSV2, parent=PARENT),
        Finetune(data=SSV2, parent=PARENT),
        Probe(data=SSV2.model_copy(update={"labels_per_class": 5})),
        Visualise(data=SSV2),
        Measure(data=SSV2, name="saliency"),
    ],
)
def test_every_field_is_in_the_hash_and_a_file_gives_the_run_back(run):
    fields = json.loads(run.model_dump_json())
    assert parse(fields, "spec.json") == run
    seen = {run.run_id}
    for path, value in _leaves(fields):
        # Another verb is another kind of run.
        if path == ("verb",):
            continue
        for other in (other for other in _others(value) if other != value):
            try:
                changed = parse(_with(fields, path, other), "spec.json")
            except UserError:
                continue
            assert changed.run_id not in seen, path
            seen.add(changed.run_id)
            break
        else:
            pytest.fail(f"no other valid value tried for {path}")


def _leaves(fields, path=()):
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _others(value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2, 0.5, 1, value / 2]
    if isinstance(value, list):
        return [[0.5, 0.5], ["x"], [2, 3, 4]]
    names = "x knn groups dis none affine inverse zero 8 coverage vit-s tube clamp"
    names += " max window centre float32 rand-m7-n4-mstd0.5-inc1 attentive"
    return [*names.split(), PARENT]


def _with(fields, path, value):
    name, *rest = path
    return {**fields, name: _with(fields[name], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("verb", "fields", "named", "values"),
    [
        ("pretrain", {"mask": {"name": "x"}}, "mask.name", ["'x'", "tube"]),
        ("pretrain", {"mask": {"ratio": 1.0}}, "mask.ratio", ["1.0"]),
        ("pretrain", {"mask": {"ratio": 0.001}}, "mask.ratio", ["0.001", "0 of 196"]),
        (
            "pretrain",
            {"clips": {"size": 16}},
            "clips.size 16",
            ["model.patch 16"],
        ),  # one patch cannot be hidden in part
        ("pretrain", {"epochs": 3}, "epochs", ["remove it"]),
        ("pretrain", {"optim": {"learning_rate": 3}}, "optim.learning_rate", ["remove it"]),
        ("pretrain", {"optim": {"betas": [2, 3]}}, "optim.betas.0", ["got 2", "less than 1"]),
        ("pretrain", {"optim": {"lr": 1e999}}, "optim.lr", ["finite", "inf"]),
        ("pretrain", {"optim": {"epochs": 10**30}}, "optim.epochs", [str(10**30)]),
        ("pretrain", {"seed": 2**70}, "seed", [str(2**70)]),
        ("pretrain", {"parent": "../../evil"}, "parent", ["'../../evil'"]),
        ("pretrain", {"data": {"dataset": "a/b"}}, "data.dataset", ["'a/b'"]),
        ("pretrain", {"model": {"width": 100}}, "model", ["100", "12"]),
        ("pretrain", {"clips": {"size": 100}}, "clips.size", ["100", "16"]),
        ("pretrain", {"clips": {"size": 80000}}, "clips.size", ["80000", "4096"]),
        ("pretrain", {"clips": {"frames": 3}}, "clips.frames", ["3", "2"]),
        ("pretrain", {"data": {}}, "data.dataset", ["required"]),
        ("finetune", {"augment": {"erasing": 2.0}}, "augment.erasing", ["2.0"]),
        ("finetune", {"augment": {"rand": "strong"}}, "augment.rand", ["'strong'", "rand-m"]),
        (
            "finetune",
            {"augment": {"cutmix": 1.0}, "optim": {"batch": 1}},
            "augment.mixup and augment.cutmix",
            ["it has 1"],
        ),
        ("finetune", {"views": {"spatial": 2}}, "views.spatial", ["2", "1 or 3"]),
    ],
)
def test_bad_fields_are_one_clear_line(verb, fields, named, values):
    with refused(f"s.json: {named}", *values):
        parse({"verb": verb, "data": {"dataset": "ssv2"}, **fields}, "s.json")


def test_a_backbone_has_its_sizes_by_its_name():
    fields = {"verb": "pretrain", "data": {"dataset": "ssv2"}, "model": {"backbone": "vit-l"}}
    spec = parse(fields, "s.json")
    assert (spec.model.width, spec.model.depth, spec.model.heads) == BACKBONES["vit-l"][0]
    assert (spec.decoder.width, spec.decoder.depth, spec.decoder.heads) == BACKBONES["vit-l"][1]
    assert Model(backbone="vit-l", width=64).width == 64
    with refused("s.json: model: backbone vit-x", "vit-b", "has no width"):
        parse({**fields, "model": {"backbone": "vit-x"}}, "s.json")
    toy = {"width": 48, "depth": 2, "heads": 4}
    for name, divided in (("timesformer-toy", True), ("toy", False)):
        assert (
            parse({**fields, "model": {"backbone": name, **toy}}, "s.json").model.divided is divided
        )


def test_weights_tell_the_vits_apart_by_width_and_depth():
    sizes = [encoder[:2] for name, (encoder, _) in BACKBONES.items() if name != "timesformer"]
    assert len(set(sizes)) == len(sizes)


def test_a_mask_that_was_mended_is_another_run_and_the_old_spec_is_still_read():
    """The old specs of two masks that were fixed keep the run ids they had."""
    for name, old_id in (
        ("warped", "pretrain-warped-vitb-ssv2-e800-bbba3ae4"),
        ("motion-bins", "pretrain-motion-bins-vitb-ssv2-e800-07f5b12a"),
    ):
        run = Pretrain(data=SSV2, mask={"name": name})
        fields = json.loads(run.model_dump_json())
        assert fields["mask"]["version"] == 2
        old = parse(_with(fields, ("mask", "version"), 1), "spec.json")
        assert old.run_id == old_id != run.run_id
    assert Pretrain(data=SSV2).mask.version == 1


def test_a_mask_may_be_its_bare_name():
    named, bare = (
        parse({"verb": "pretrain", "data": {"dataset": "ssv2"}, "mask": mask}, "spec.json")
        for mask in ({"name": "tube"}, "tube")
    )
    assert named == bare
    with refused("spec.json: mask.name", "mgn", "did you mean mgm?"):
        parse({"verb": "pretrain", "data": {"dataset": "ssv2"}, "mask": "mgn"}, "spec.json")


@pytest.mark.parametrize("stage", STAGES)
def test_a_new_spec_is_the_stages_defaults(stage, tmp_path):
    made = parse(fields_of(stage, "mine", []), "x")
    (tmp_path / "x.yaml").write_text(commented(made))
    assert parse(read_yaml(tmp_path / "x.yaml"), "x") == made


def test_a_new_spec_that_a_full_disk_cuts_off_is_not_in_the_way(tmp_path):
    """A full disk is imitated by a limit on file sizes."""
    text, path = commented(parse(fields_of("pretrain", "mine", []), "x")), tmp_path / "x.yaml"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=re.escape(str(path))):
            write_new(text, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write_new(text, path)
    assert path.read_text() == text


def test_words_are_fields_and_comments_have_their_choices():
    words = ["optim.epochs=3", "optim.lr=1e-3", "model.backbone=vit-l", "clips.flip=false"]
    made = parse(fields_of("pretrain", "mine", ["mask.name=tube", *words]), "x")
    assert (made.mask.name, made.optim.epochs, made.optim.lr) == ("tube", 3, 1e-3)
    assert made.clips.flip is False
    assert "# Choices: float32, bf16.\n  precision:" in commented(made)
    with pytest.raises(UserError, match="--set epochs: "):
        fields_of("pretrain", "mine", ["epochs"])


def test_a_digest_alone_does_not_make_videos_generated():
    """The user's own videos have a digest too. The index's note tells them apart."""

    def told(name, note="", digest="0123456789ab"):
        return data_name(Data(dataset=name, digest=digest), note)

    assert told("mine", "split as given") == told("mine") == "mine"
    drawn = "generated videos (seed 1), split as drawn; pack copies of index 845cce5fb7f2"
    assert told("any", drawn) == "any (generated)"
    assert told("ssv2", drawn) == told("ssv2") == "SSv2 stand-in (generated)"
    assert told("ssv2", digest="") == "SSv2"
