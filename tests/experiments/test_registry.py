"""The registry and the scales: what runs, and in which fields a scale differs from the paper."""

from pathlib import Path

import pytest
import yaml

from mgm.errors import UserError
from mgm.experiments import recipes
from mgm.experiments.registry import MASK_ROWS, Registry
from mgm.experiments.scales import Dataset, Scale, load_scale
from mgm.report.reported import reported
from mgm.spec import Finetune, Pretrain, Probe, parents

CONFIG = Path(__file__).parents[2] / "workflow" / "config"
SMOKE = load_scale(CONFIG / "smoke.yaml")


def test_table_4e_has_the_papers_rows_and_three_seeds_each():
    registry = Registry(SMOKE)
    table = registry.tables["4e"]
    assert table.rows == ["No pretraining", *MASK_ROWS]
    assert table.columns == ["SSv2", "SSv2, linear probe"]
    assert len(table.cells) == 14
    for cell in table.cells:
        assert [run.seed for run in cell.runs] == [0, 1, 2]
        assert all(isinstance(run, Probe if "probe" in cell.column else Finetune) for run in cell.runs)
    paper = {row for name, row, column in reported() if name == "4e"}
    assert paper == set(MASK_ROWS)


def test_table_1_has_every_row_of_the_paper_and_runs_ours():
    """DESIGN 4: which methods run, on what, for how many epochs; the rest is quoted."""
    table = Registry(SMOKE).tables["1"]
    assert {(cell.row, cell.column) for cell in table.cells} == {
        (row, column) for name, row, column in reported() if name == "1" and column != "GFLOPs"
    }
    ladder = {
        ("MGM", "SSv2"): {400, 800, 1200, 1600, 2400},
        ("MGM", "K400"): {400, 800, 1200, 1600},
        ("VideoMAE", "SSv2"): {800, 1600, 2400},
        ("VideoMAE", "K400"): {800, 1600},
        ("ST-MAE", "K400"): {1600},
    }
    run: dict[tuple[str, str], set[int]] = {}
    registry = Registry(SMOKE)
    for cell in registry.tables["1"].cells:
        method, dataset, epochs = cell.row.split(", ")
        for leaf in cell.runs:
            parent = registry.specs[leaf.parent]
            assert parent.optim.epochs == int(epochs)
            assert parent.data.dataset == leaf.data.dataset == dataset.lower()
            assert (parent.mask.name, parent.mask.ratio) == {"MGM": ("mgm", 0.75), "VideoMAE": ("tube", 0.9), "ST-MAE": ("agnostic", 0.9)}[
                method
            ]
            run.setdefault((method, dataset), set()).add(int(epochs))
    assert run == ladder


def test_a_cells_runs_come_from_the_mask_and_seed_it_names():
    registry = Registry(SMOKE)
    for cell in registry.tables["4e"].cells:
        for run in cell.runs:
            if cell.row == "No pretraining":
                assert run.parent == ""
            else:
                parent = registry.specs[run.parent]
                assert isinstance(parent, Pretrain)
                assert (parent.mask.name, parent.seed) == (MASK_ROWS[cell.row], run.seed)
                assert parent.mask.ratio == (0.9 if cell.row == "Random Tube" else 0.75)


def test_parents_stand_before_their_children_and_no_run_twice():
    registry = Registry(SMOKE)
    ids = list(registry.specs)
    assert len(ids) == 18 + 21 + 21 + 15 + 15 + 1  # Table 4e: pretrain, finetune, probe; Table 1: pretrain, finetune; Figure 5
    for position, run_id in enumerate(ids):
        assert all(parent in ids[:position] for parent in parents(registry.specs[run_id]))


def test_targets_need_their_runs_and_no_others():
    registry = Registry(SMOKE)
    assert len(registry.runs_of("all")) == 91
    assert len(registry.runs_of("table4e")) == 60
    assert len(registry.runs_of("table1")) == 30
    assert {run.run_id for run in registry.runs_of("figure1")} < {run.run_id for run in registry.runs_of("table1")}
    assert [run.verb for run in registry.runs_of("figure5")] == ["visualise"]
    with pytest.raises(UserError, match="table9: no such target at scale smoke; choose one of all, table1, table4e, figure5, figure1"):
        registry.runs_of("table9")


def test_smoke_differs_from_the_paper_only_in_what_its_yaml_lists(capsys):
    """Prints the difference: `pytest -s -k differs`."""
    listed = SMOKE.overrides
    for spec in (recipes.pretrain("ssv2"), recipes.finetune("ssv2", "", recipes.Model()), recipes.probe("ssv2", "", recipes.Model())):
        paper, smoke = _flat(spec.model_dump()), _flat(SMOKE.apply(spec, seed=0).model_dump())
        changed = {name for name in paper if paper[name] != smoke[name]}
        backbone = {f"model.{name}" for name in SMOKE.backbones[spec.model.backbone]}
        allowed = set(listed[spec.verb]) | backbone | {"optim.steps", "optim.warmup_epochs", "data.digest"}
        assert changed <= allowed
        for name in sorted(changed):
            print(f"{spec.verb:9} {name:22} paper {paper[name]!s:12} smoke {smoke[name]}")


def test_every_override_has_its_reason():
    lines = (CONFIG / "smoke.yaml").read_text().splitlines()
    for line in lines[lines.index("overrides:") + 1 : lines.index("datasets:")]:
        if line.strip() and not line.rstrip().endswith(":"):
            assert "#" in line, f"no reason given: {line}"


def _flat(fields, prefix=""):
    flat = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def test_one_monotone_rule_maps_epochs_to_steps():
    runs = [SMOKE.apply(recipes.pretrain("ssv2", epochs=epochs), 0) for epochs in (200, 400, 800, 1600, 2400)]
    steps = [run.optim.steps for run in runs]
    assert steps == sorted(set(steps))
    assert steps == [round(SMOKE.steps.factor * epochs**SMOKE.steps.power) for epochs in (200, 400, 800, 1600, 2400)]


def test_own_videos_run_the_mask_ablation_under_their_digest():
    scale = SMOKE.model_copy(update={"name": "mine", "datasets": {"folder": Dataset(root="videos", digest="0123456789ab")}})
    registry = Registry(scale)
    assert registry.tables["4e"].columns == ["own videos", "own videos, linear probe"]
    assert all(spec.data.digest == "0123456789ab" for spec in registry.specs.values())
    other = Registry(scale.model_copy(update={"datasets": {"folder": Dataset(root="videos", digest="ba9876543210")}}))
    assert not set(registry.specs) & set(other.specs)


def test_bad_scales_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: no such scale; choose one of .*smoke"):
        load_scale(CONFIG / "none.yaml")
    fields = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**fields, "seedz": 1}))
    with pytest.raises(UserError, match=r"s.yaml: seedz: "):
        load_scale(path)
    wrong = Scale.model_validate({**fields, "overrides": {"pretrain": {"mask.rat": 0.5}}})
    with pytest.raises(UserError, match=r"scale smoke: overrides.pretrain.mask.rat is not a field of a spec"):
        Registry(wrong)
