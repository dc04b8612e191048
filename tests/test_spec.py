import json

import pytest

from mgm.errors import UserError
from mgm.spec import (
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
    differences,
    parents,
    parse,
)  # fmt: skip

SSV2 = Data(dataset="ssv2")
PARENT = "pretrain-mgm-vitb-ssv2-e200-a7c57380"


def test_ten_run_ids_never_change():
    """A run id names results that took weeks. If this fails, a default or the hash changed: put it back, and add a field instead."""
    runs = [
        Pretrain(data=SSV2),
        Pretrain(data=SSV2, optim=Optim(epochs=200)),
        Pretrain(data=SSV2, optim=Optim(epochs=200), seed=1),
        Pretrain(data=SSV2, mask=Mask(name="tube", ratio=0.9)),
        Pretrain(data=Data(dataset="folder", digest="0123456789ab"), clips=Clips(stride=2, flip=False)),
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


def test_only_what_differs_from_the_defaults_is_hashed():
    run = Pretrain(data=SSV2, optim=Optim(epochs=200), mask=Mask(name="tube"))
    assert differences(run) == {"verb": "pretrain", "data": {"dataset": "ssv2"}, "optim": {"epochs": 200}, "mask": {"name": "tube"}}
    assert differences(Finetune(data=SSV2)) == {"verb": "finetune", "data": {"dataset": "ssv2"}}


@pytest.mark.parametrize(
    "run",
    [Pretrain(data=SSV2), Finetune(data=SSV2, parent=PARENT), Probe(data=SSV2), Visualise(data=SSV2), Measure(data=SSV2, name="saliency")],
)
def test_every_field_is_in_the_hash_and_a_file_gives_the_run_back(run):
    fields = json.loads(run.model_dump_json())
    assert parse(fields, "spec.json") == run
    seen = {run.run_id}
    for path, value in _leaves(fields):
        if path == ("verb",):  # another kind of run
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
        return [[0.5, 0.5], ["x"]]
    return ["x", "dis", "zero", "8", "coverage", "vit-s", "tube", "spill", "window", "centre", "float32", PARENT, "rand-m7-n4-mstd0.5-inc1"]


def _with(fields, path, value):
    name, *rest = path
    return {**fields, name: _with(fields[name], rest, value) if rest else value}


def test_partial_fields_take_the_defaults_of_their_verb():
    run = parse({"verb": "finetune", "data": {"dataset": "ssv2"}, "optim": {"epochs": 30}}, "spec.json")
    assert (run.optim.lr, run.optim.batch, run.optim.betas) == (5e-4, 128, (0.9, 0.999))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": {"name": "x"}}, "s.json: mask.name: is unknown; choose one of .*tube.* (got 'x')"),
        ({"mask": {"ratio": 1.0}}, "s.json: mask.ratio: Input should be less than 1 (got 1.0)"),
        ({"mask": {"ratio": 0.0}}, "s.json: mask.ratio: Input should be greater than 0 (got 0.0)"),
        ({"mask": {"ratio": 0.001}}, "s.json: mask.ratio 0.001 hides 0 of 196 patches a slot; choose one that hides 1 to 195"),
        ({"epochs": 3}, "s.json: epochs is not a field of a pretrain spec; remove it or correct its name"),
        ({"optim": {"learning_rate": 3}}, "s.json: optim.learning_rate is not a field of a pretrain spec; remove it or correct its name"),
        ({"model": {"width": 100}}, "s.json: model: width 100 is not a multiple of heads 12; change one of them"),
        ({"clips": {"size": 100}}, "s.json: clips.size 100 is not a multiple of model.patch 16; change one of them"),
        ({"clips": {"frames": 3}}, "s.json: clips.frames 3 is not a multiple of model.tubelet 2; change one of them"),
        ({"data": {}}, "s.json: data.dataset: Field required"),
    ],
)
def test_bad_fields_are_one_clear_line(fields, message):
    import re

    with pytest.raises(UserError) as caught:
        parse({"verb": "pretrain", "data": {"dataset": "ssv2"}, **fields}, "s.json")
    assert re.fullmatch(message.replace("(got", r"\(got").replace(")", r"\)").replace(".*'", ".*'"), str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_decay": 1.5}, "s.json: layer_decay: Input should be less than or equal to 1 (got 1.5)"),
        ({"drop_path": 1.0}, "s.json: drop_path: Input should be less than 1 (got 1.0)"),
        ({"augment": {"erasing": 2.0}}, "s.json: augment.erasing: Input should be less than or equal to 1 (got 2.0)"),
        ({"augment": {"mixup": -0.8}}, "s.json: augment.mixup: Input should be greater than or equal to 0 (got -0.8)"),
        ({"augment": {"repeats": 0}}, "s.json: augment.repeats: Input should be greater than or equal to 1 (got 0)"),
        (
            {"augment": {"rand": "strong"}},
            "s.json: augment.rand: not RandAugment in timm's notation; "
            "write it like rand-m7-n4-mstd0.5-inc1, or leave it empty (got 'strong')",
        ),
        (
            {"augment": {"cutmix": 1.0}, "optim": {"batch": 1}},
            "s.json: augment.mixup and augment.cutmix mix a step's clips, but it has 1; set both to 0 or raise optim.batch",
        ),
        ({"views": {"spatial": 2}}, "s.json: views.spatial: Input should be 1 or 3 (got 2)"),
        ({"views": {"temporal": 0}}, "s.json: views.temporal: Input should be greater than or equal to 1 (got 0)"),
    ],
)
def test_recipe_fields_out_of_range_are_one_clear_line(fields, message):
    with pytest.raises(UserError) as caught:
        parse({"verb": "finetune", "data": {"dataset": "ssv2"}, **fields}, "s.json")
    assert str(caught.value) == message


def test_parents():
    assert parents(Finetune(data=SSV2, parent=PARENT)) == (PARENT,)
    assert parents(Finetune(data=SSV2)) == parents(Pretrain(data=SSV2)) == ()
    assert parents(Visualise(data=SSV2, parents=(PARENT,))) == (PARENT,)
