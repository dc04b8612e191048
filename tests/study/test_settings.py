"""A study and a scale may set only what has an effect, at its place."""

import pytest

from mgm.errors import UserError
from mgm.spec import STAGES, dotted, leaves
from mgm.study import CONFIG
from mgm.study.expand import expand
from mgm.study.scales import Scale, load_scale
from mgm.study.settings import require_effect
from tests.helpers.errors import refused
from tests.helpers.fake_results import study_of
from tests.helpers.other_values import OTHER

SMOKE = load_scale(CONFIG / "smoke.yaml")
# The paper's recipes, on drawn videos.
TOY = Scale(name="toy", datasets=SMOKE.datasets)
HIDDEN = {"stage": "measure", "name": "hidden", "metric": "hidden"}
COLUMNS = {"Probe": {}, "Fine": {"stage": "finetune"}, "Hidden": HIDDEN}
ONE = {"generate": {}}
UNSEEDED = {"datasets": {"a": {"use": "ssv2"}}, "dataset_seeds": ()}


def small(**fields):
    """Return a study of each kind of column."""
    plain = {"rows": {"MGM": {}, "Random": "none"}, "columns": COLUMNS, "controls": []}
    plain |= {"compare": [], "datasets": {"a": ONE}, "dataset_seeds": 1}
    views = {"figure5": {"kind": "clips", "show": "every-mask"}}
    return study_of(**plain | {"views": views} | fields)


def with_column(name, **fields):
    return {"columns": COLUMNS | {name: COLUMNS[name] | fields}}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        # Names and values are checked where no run has them, too.
        ({"rows": {"MGM": {"maskk": 1}}}, "rows.MGM: maskk is not a field of a spec"),
        ({"rows": {"MGM": {"optim": {"lrr": 1}}}}, "rows.MGM: optim.lrr is not a field"),
        (
            {"rows": {"MGM": {"mask": "tubee"}}},
            "rows.MGM: mask.name: no such mask; did you mean tube",
        ),
        (with_column("Fine", rows={"MGM": {"optim.rate": 1}}), "columns.Fine.rows.MGM: optim.rate"),
        ({"settings": {"sample": {"optim.lr": 1}}}, "settings.sample: optim.lr is not a field"),
        ({"settings": {"finetune": {"optim.epochs": "few"}}}, "optim.epochs: Input should be"),
        (
            {"settings": {"finetune": {"drop_path": 1}}},
            "settings.finetune: drop_path: Input should",
        ),
        # The study decides.
        (
            {"rows": {"MGM": {"parent": "x"}}},
            "parent has no effect here; it belongs to rows.NAME.from",
        ),
        ({"rows": {"MGM": {"mask.version": 2}}}, "it belongs to mask.name"),
        (with_column("Probe", **{"data.dataset": "x"}), "it belongs to datasets"),
        ({"settings": {"measure": {"name": "coverage"}}}, "name has no effect here"),
        ({"settings": {"sample": {"masks": []}}}, "settings.sample: masks has no effect here"),
        # A test has the model of its pretraining.
        (
            with_column("Fine", **{"model.depth": 3}),
            "model.depth has no effect here; it belongs to",
        ),
        ({"settings": {"probe": {"model.patch": 4}}}, "model.patch has no effect here"),
        ({"settings": {"measure": {"clips.frames": 4}}}, "clips.frames has no effect here"),
        # Such runs do not read it.
        (with_column("Probe", **{"clips.crop": "resized"}), "such runs do not read it"),
        (with_column("Hidden", train_clips=2), "train_clips has no effect here"),
        ({"rows": {"MGM": {}, "Random": {"from": "none", "optim.lr": 1}}}, "rows.Random: optim.lr"),
        ({"rows": {"MGM": {}, "Random": {"from": "none", "mask": "tube"}}}, "rows.Random: mask"),
        # Two units would be one run.
        ({"settings": {"probe": {"seed": 1}}}, "seed has no effect here; it belongs to seeds"),
        (UNSEEDED | {"rows": {"MGM": {"seed": 1}}}, "rows.MGM: seed has no effect here"),
        (
            {"datasets": {"a": {"use": "ssv2", "settings": {"probe": {"seed": 1}}}}}
            | {"dataset_seeds": ()},
            "datasets.a.settings.probe: seed has no effect here",
        ),
        # Datasets.
        (
            {
                "datasets": {
                    "a": ONE,
                    "b": ONE | {"tested": False, "settings": {"probe": {}, "finetune": {}}},
                }
            },
            "datasets.b.settings has no effect",
        ),
        (
            {"datasets": {"a": ONE, "m": {"mean_of": ["a"], "rows": ["MGM"]}}},
            "datasets.m.rows has no",
        ),
        ({"datasets": {"a": ONE | {"recipe": "ssv2"}}}, "datasets.a.recipe has no effect"),
        ({"datasets": {"a": {"generate": {"seed": 2}}}}, "datasets.a.generate.seed has no effect"),
        (
            {"datasets": {"a": {"use": "ssv2", "dataset_seeds": 1}}, "dataset_seeds": ()},
            "datasets.a.dataset_seeds",
        ),
        (
            {"datasets": {"a": ONE | {"settings": {"sample": {"clips.stride": 2}}}}},
            "settings.sample",
        ),
        ({"seeds": "0-2"}, "small: seeds has no effect"),
        (UNSEEDED | {"dataset_seeds": "0-2"}, "small: dataset_seeds has no effect"),
        # Views.
        ({"views": {"t": {"show": "masks"}}}, "views.t.show has no effect"),
        ({"views": {"t": {"hue": "row"}}}, "views.t.hue has no effect"),
        ({"views": {"c": {"kind": "chart", "turned": True}}}, "views.c.turned has no effect"),
        ({"views": {"c": {"kind": "clips"}}}, "views.c"),
    ],
)
def test_a_setting_without_an_effect_is_refused_with_its_place(fields, named):
    with refused("study small: ", named):
        require_effect([small(**fields)], SMOKE)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"overrides": {"probe": {"model.patch": 4}}},
            "overrides.probe: model.patch has no effect",
        ),
        ({"overrides": {"pretrain": {"model.width": 8}}}, "it belongs to backbones.NAME"),
        ({"datasets": {"x": {"root": "data/x", "title": "X"}}}, "datasets.x.title has no effect"),
        ({"overrides": {"finetune": {"seed": 3}}}, "overrides.finetune: seed has no effect"),
        (
            {"overrides": {"measure": {"clips.size": 8}}},
            "overrides.measure: clips.size has no effect",
        ),
        ({"overrides": {"probe": {"poool": "grid"}}}, "did you mean pool?"),
        ({"backbones": {"vit-l": {"widht": 8}}}, "backbones.vit-l: widht is not a field"),
        ({"backbones": {"vit-l": {"depth": 0}}}, "backbones.vit-l: depth: Input should be"),
    ],
)
def test_a_setting_of_a_scale_is_refused_alike(fields, named):
    with refused("scale toy: ", named):
        require_effect([], Scale(name="toy", **fields))


def test_a_seed_may_differ_where_the_videos_of_units_do():
    drawn = {"generate": {}, "settings": {"probe": {"seed": 3}}}
    study = small(datasets={"a": drawn}, rows={"MGM": {"seed": 2}}, dataset_seeds="1-2")
    require_effect([study], SMOKE)
    cells = expand([study], SMOKE).cells
    assert cells.run_id[cells.column == "Probe"].nunique() == 2


def at(kind, name, field, value):
    """Return a study and a scale that set a field at a place."""
    own = {name: {field: value}}
    if kind == "overrides":
        return small(), TOY.model_copy(update={kind: own})
    if kind == "columns":
        return small(**with_column(name, **own[name])), TOY
    return small(**{kind: own | ({"Random": "none"} if kind == "rows" else {})}), TOY


@pytest.mark.parametrize(
    ("kind", "name", "stage"),
    [
        ("rows", "MGM", "pretrain"),
        ("columns", "Probe", "probe"),
        ("columns", "Fine", "finetune"),
        ("columns", "Hidden", "measure"),
        *(("settings", stage, stage) for stage in STAGES),
        # A scale does not know which measures a study has.
        *(("overrides", stage, stage) for stage in STAGES if stage != "measure"),
    ],
)
def test_what_is_accepted_reaches_a_run_that_reads_it(kind, name, stage):
    plain, accepted = expand([small()], TOY).specs, 0
    for field in OTHER.keys() & {*leaves(STAGES[stage])}:
        study, scale = at(kind, name, field, OTHER[field])
        try:
            require_effect([study], scale)
            specs = expand([study], scale).specs
        except UserError:
            continue
        accepted += 1
        # A list, as in JSON.
        value = [*OTHER[field]] if isinstance(OTHER[field], tuple) else OTHER[field]
        assert any(
            dotted(spec.model_dump(mode="json")).get(field) == value
            and field not in spec.unread[getattr(spec, "name", "")]
            for run_id, spec in specs.items()
            if run_id not in plain and spec.stage == stage
        ), field
    assert accepted
