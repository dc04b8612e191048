import json

import pytest

from mgm.errors import UserError
from mgm.spec import (
    BACKBONES,
    STAGES,
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
    Sample,
    Views,
    mask_info,
    parse,
)
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
        Pretrain(data=SSV2, mask=Mask(name="tube", ratio=0.9), seed=1),
        Pretrain(data=SSV2, mask=Mask(name="my_masks:stripes")),
        Pretrain(
            data=Data(dataset="folder", digest="0123456789ab"), clips=Clips(stride=2, flip=False)
        ),
        Finetune(data=SSV2, parent=PARENT),
        Finetune(data=SSV2, optim=FinetuneOptim(epochs=30), views=Views(temporal=2)),
        Probe(data=Data(dataset="ucf101"), parent=PARENT, pool="grid"),
        Measure(data=SSV2, name="controls"),
        Sample(data=SSV2),
    ]
    assert [run.run_id for run in runs] == PINNED


PINNED = [
    "pretrain-mgm-vitb-ssv2-e800-d4f62fda",
    "pretrain-mgm-vitb-ssv2-e200-1a8dca17",
    "pretrain-tube-vitb-ssv2-e800-760391c3",
    "pretrain-stripes-vitb-ssv2-e800-8bd6cb75",
    "pretrain-mgm-vitb-folder-e800-e087c6a3",
    "finetune-vitb-ssv2-e100-a7c57380-140435cc",
    "finetune-vitb-ssv2-e30-scratch-c65fc825",
    "probe-vitb-ucf101-a7c57380-f93467d9",
    "measure-controls-ssv2-ea13f64d",
    "sample-figure5-ssv2-a7e01150",
]


@pytest.mark.parametrize(
    "run",
    [
        Pretrain(data=SSV2, parent=PARENT),
        Finetune(data=SSV2, parent=PARENT),
        Probe(data=SSV2.model_copy(update={"labels_per_class": 5})),
        Sample(data=SSV2),
        Measure(data=SSV2, name="saliency"),
    ],
    ids=STAGES,
)
def test_every_field_is_in_the_hash_and_a_file_gives_the_run_back(run):
    fields = json.loads(run.model_dump_json())
    assert parse(fields, "spec.json") == run
    seen = {run.run_id}
    for path, value in _leaves(fields):
        for other in (other for other in _others(value) if other != value):
            try:
                changed = parse(_with(fields, path, other), "spec.json")
            except UserError:
                continue
            assert changed.run_id not in seen, path
            seen.add(changed.run_id)
            break
        else:
            # Another stage has other fields.
            assert path == ("stage",), path


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
        return [[0.5, 0.5], ["x"], [2, 3, 4], [["x", {}]]]
    names = "x grid dis zero 8 coverage vit-s tube window centre float32"
    return [*names.split(), "rand-m7-n4-mstd0.5-inc1", "attentive", PARENT]


def _with(fields, path, value):
    name, *rest = path
    return {**fields, name: _with(fields[name], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("stage", "fields", "says"),
    [
        ("pretrain", {"mask": {"name": "mgn"}}, ["mask.name", "did you mean mgm?", "'mgn'"]),
        ("pretrain", {"mask": {"ratio": 0.001}}, ["mask.ratio", "0.001", "0 of 196"]),
        ("pretrain", {"mask": {"edge": "clamp"}}, ["mask.edge", "remove it"]),
        ("pretrain", {"mask": {"name": "tube", "jitter": False}}, ["jitter", "tube", "remove it"]),
        ("pretrain", {"mask": {"name": "block", "guidance": "dis"}}, ["guidance dis", "block"]),
        ("pretrain", {"mask": "codec-clip", "clips": {"frames": 8}}, ["codec-clip", "4 slots"]),
        # A stride is what a warped mask moves by.
        ("pretrain", {"mask": "warped", "clips": {"sampling": "segments"}}, ["warped", "segments"]),
        ("pretrain", {"optim": {"betas": [2, 3]}}, ["optim.betas.0", "got 2", "less than 1"]),
        ("pretrain", {"optim": {"lr": 1e999}}, ["optim.lr", "finite", "inf"]),
        ("pretrain", {"parent": "../../evil"}, ["parent", "'../../evil'"]),
        ("pretrain", {"model": {"width": 100}}, ["model", "100", "12"]),
        ("pretrain", {"clips": {"size": 100}}, ["clips.size", "100", "16"]),
        ("pretrain", {"clips": {"frames": 3}}, ["clips.frames", "3", "2"]),
        ("pretrain", {"data": {}}, ["data.dataset", "required"]),
        ("finetune", {"head": "attentive", "drop_path": 0.5}, ["drop_path", "attentive"]),
        ("finetune", {"augment": {"rand": "strong"}}, ["augment.rand", "'strong'", "rand-m"]),
        ("finetune", {"augment": {"cutmix": 1}, "optim": {"batch": 1}}, ["cutmix", "a step has 1"]),
        ("pretrian", {}, ["'pretrian'", "did you mean pretrain?"]),
    ],
)
def test_bad_fields_are_one_clear_line(stage, fields, says):
    with refused("s.json: ", *says):
        parse({"stage": stage, "data": {"dataset": "ssv2"}, **fields}, "s.json")


def test_a_backbone_has_its_sizes_by_its_name():
    fields = {"stage": "pretrain", "data": {"dataset": "ssv2"}, "model": {"backbone": "vit-l"}}
    spec = parse(fields, "s.json")
    assert (spec.model.width, spec.model.depth, spec.model.heads) == BACKBONES["vit-l"][0]
    assert (spec.decoder.width, spec.decoder.depth, spec.decoder.heads) == BACKBONES["vit-l"][1]
    assert "width is 64" in Model(backbone="vit-l", width=64).misnamed
    with refused("s.json: model: backbone vit-x", "vit-b", "has no width"):
        parse({**fields, "model": {"backbone": "vit-x"}}, "s.json")
    toy = {"width": 48, "depth": 2, "heads": 4}
    for name, divided in (("timesformer-toy", True), ("toy", False)):
        model = parse({**fields, "model": {"backbone": name, **toy}}, "s.json").model
        assert model.divided is divided


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os:setresuid",
        "os:sep",
        "shutil:move",
        "subprocess:call",
        "collections:Counter",
    ],
)
def test_what_is_no_mask_is_refused_before_it_is_called(name):
    with refused(f"mask {name}: is no mask; a mask is a function of mask"):
        mask_info(name)


@pytest.mark.parametrize("fields", [{"stage": ["a"]}, {"stage": {}}, {"stage": None}, [], 3])
def test_a_stage_that_is_no_name_is_one_line(fields):
    with refused("x.json: stage"):
        parse(fields, "x.json")


def test_a_mask_that_was_mended_is_another_run_and_the_old_spec_is_still_read():
    run = Pretrain(data=SSV2, mask="warped")
    fields = json.loads(run.model_dump_json())
    assert fields["mask"]["version"] == mask_info("warped").version == 2
    assert parse(_with(fields, ("mask", "version"), 1), "spec.json").run_id != run.run_id
