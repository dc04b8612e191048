"""An error in a scale's file is one line that names the file and the field."""

import pytest
import yaml

from mgm.dag.workflow import Workflow
from mgm.errors import UserError
from mgm.study import CONFIG

TEXT = (CONFIG / "smoke.yaml").read_text()
TOY = {"width": 48, "depth": 2, "heads": 4}


def changed(**fields) -> str:
    return yaml.safe_dump({**yaml.safe_load(TEXT), **fields}, sort_keys=False)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        *((text, "contains no fields") for text in ("", "- smoke\n", "smoke\n")),
        ("name: smoke\n\tseeds: [0]\n", "line 2"),
        ("seeds: [0\nname: x\n", "line 2"),
        (b"name: \xff\n", "is not text in UTF-8 (byte 0xff at 6"),
        ("name: \0\n", "contains a NUL character"),
        ("name: &a [*a]\n", "*a is an alias"),
        (
            "".join(
                f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9 if n else 'x')}]\n" for n in range(9)
            ),
            "*l0 is an alias",
        ),
        ("name: 2026-13-45\n", "caveat: Field required"),
        (f"name: {'9' * 5000}\n", "not YAML (Exceeds"),
        ("name: " + "[" * 3000, "not YAML"),
        (f"{TEXT}---\n{TEXT}", "line"),
        (f"{TEXT}\nname: other\n", "name is given twice"),
        (changed(seedz=1), "seedz"),
        (changed(seeds=[]), "seeds"),
        *(
            (changed(name=name), "name")
            for name in (
                "",
                "n" * 300,
                "$(touch X)x",
                "tiny;touch X #",
                "../../evil",
                "/evil",
                "..",
                "-n",
                5,
            )
        ),
        (changed(datasets={"../x": {"root": "x"}}), "datasets"),
        (changed(datasets={"ssv2": {}}), "datasets.ssv2"),
        (changed(datasets={"ssv2": {"generate": {"clases": 2}}}), "datasets.ssv2.generate: clases"),
        (
            changed(datasets={"ssv2": {"generate": {"classes": "many"}}}),
            "datasets.ssv2.generate: classes",
        ),
        (changed(overrides={"pretrian": {"optim.lr": 1}}), "overrides.pretrian"),
        (changed(overrides={"pretrain": {"optim.lrr": 1}}), "overrides.pretrain.optim.lrr"),
        (changed(overrides={"pretrain": {"optim.lr": float("inf")}}), "optim.lr"),
        (changed(steps={"factor": float("nan"), "power": 1, "warmup": 0}), "steps.factor"),
        (changed(backbones={"vit-x": {"width": 8}}), "vit-x"),
        (
            changed(backbones={"vit-b": TOY | {"backbone": "toy"}}),
            "backbones lacks vit-s",
        ),
        (
            changed(name="mine", backbones={"vit-b": TOY}),
            "backbones.vit-b has other sizes than vit-b; add backbone: vit-b-mine",
        ),
        (changed(seeds_of={"table9": {"a": [0]}}), "seeds_of.table9"),
        (TEXT.replace("labels_per_class: 20", "labels_per_class: 41"), "labels_per_class 41"),
        (changed(overrides={"finetune": {"optim.epochs": [1]}}), "optim.epochs"),
        (changed(datasets={}), "dataset"),
    ],
)
def test_a_bad_scale_is_one_line(content, named, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        Workflow({"scale": str(path)})
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert "s.yaml: " in str(error.value) or "scale smoke: " in str(error.value)


def test_a_scales_own_backbones_name_its_runs(tmp_path):
    names = ("vit-b", "vit-s", "timesformer")
    (tmp_path / "s.yaml").write_text(
        changed(name="mine", backbones={name: {"backbone": f"{name}-toy"} | TOY for name in names})
    )
    names = {
        spec.model.backbone
        for spec in Workflow({"scale": str(tmp_path / "s.yaml")}).plan.specs.values()
    }
    assert names >= {"vit-b-toy", "timesformer-toy"}
    assert not names & {"vit-s", "timesformer"}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"scale": "huge"}, "huge.yaml:"),
        ({"scale": "/nowhere/mine.yaml"}, "/nowhere/mine.yaml:"),
        # Snakemake's numbers.
        ({"study": 202311}, "--config study: .*202311"),
        ({"scale": 7}, "--config scale: .*7"),
        ({"scale": True}, "--config scale: true is not"),
        ({"ucf101": 1.5}, "--config sources.ucf101: .*1.5"),
        ({"study": "drawn", "scale": "mini"}, "--config study=drawn .*scale=mini"),
        ({"scale": "mini", "ucf101": "."}, "sources: ucf101: mini"),
        ({"gpu": "24gb"}, "--config gpu is not"),
        ({"epochs": 3}, "--config epochs"),
    ],
)
def test_a_bad_option_is_one_line(config, named):
    with pytest.raises(UserError, match=named) as error:
        Workflow(config)
    assert "\n" not in str(error.value)


def test_a_stages_own_steps_win_over_the_rule(tmp_path):
    fields = yaml.safe_load(TEXT)
    fields["overrides"]["finetune"]["optim.steps"] = 7
    (path := tmp_path / "x.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    specs = Workflow({"scale": str(path)}).plan.specs.values()
    assert {spec.optim.steps for spec in specs if spec.stage == "finetune"} == {7}
    rule = round(fields["steps"]["factor"] * 200 ** fields["steps"]["power"])
    assert rule in {spec.optim.steps for spec in specs if spec.stage == "pretrain"}
