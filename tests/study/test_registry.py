"""The runs of the registry, and the fields in which a scale differs from the paper."""

import re
from pathlib import Path

import pytest

from mgm.errors import UserError
from mgm.spec import Finetune, Probe, dotted
from mgm.study import recipes
from mgm.study.experiments import MASK_ROWS, other_masks
from mgm.study.quoted import reported
from mgm.study.registry import CONTROL_ROWS
from mgm.study.scales import Dataset, load_scale
from mgm.study.suite import make_registry

CONFIG = Path(__file__).parents[2] / "workflow" / "config"
SMOKE = load_scale(CONFIG / "smoke.yaml")


def test_table_4e_has_the_papers_rows_and_three_seeds_each():
    registry = make_registry(SMOKE)
    table = registry.tables["4e"]
    others = other_masks("ssv2", "dis")
    assert table.rows == ["No pretraining", *MASK_ROWS, *others, *CONTROL_ROWS]
    assert set(table.groups) == {*others, *CONTROL_ROWS}  # marked as ours
    assert table.columns == ["SSv2", "SSv2, linear probe"]
    cells = [cell for cell in table.cells if cell.row not in CONTROL_ROWS]
    assert len(cells) == 2 * (len(table.rows) - len(CONTROL_ROWS))
    for cell in cells:
        assert [run.seed for run in cell.runs] == ([0] if cell.row in others else [0, 1, 2])
        assert all(
            isinstance(run, Probe if "probe" in cell.column else Finetune) for run in cell.runs
        )
    paper = {row for name, row, column in reported() if name == "4e"}
    assert paper <= set(MASK_ROWS)


def test_table_1_has_every_row_of_the_paper_and_runs_ours():
    """We run these methods, datasets and numbers of epochs; the other rows are quoted."""
    table = make_registry(SMOKE).tables["1"]
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
    registry = make_registry(SMOKE)
    for cell in registry.tables["1"].cells:
        method, dataset, epochs = cell.row.split(", ")
        for leaf in cell.runs:
            parent = registry.specs[leaf.parent]
            assert parent.optim.epochs == int(epochs)
            assert parent.data.dataset == leaf.data.dataset == dataset.lower()
            assert (parent.mask.name, parent.mask.ratio) == {
                "MGM": ("mgm", 0.75),
                "VideoMAE": ("tube", 0.9),
                "ST-MAE": ("agnostic", 0.9),
            }[method]
            run.setdefault((method, dataset), set()).add(int(epochs))
    assert run == ladder


def test_targets_need_their_runs_and_no_others():
    registry = make_registry(SMOKE)
    assert len(registry.runs_of("all")) == len(registry.specs)
    # Numbers of runs: stages x seeds x rows.
    scratch, masks, others = (
        2 * 3,
        3 * 3 * len(MASK_ROWS),
        3 * len(other_masks("ssv2", "dis")),
    )
    assert len(registry.runs_of("table4e")) == scratch + masks + others + len(registry.controls)
    assert len(registry.runs_of("table1")) == 2 * sum(
        bool(cell.runs) for cell in registry.tables["1"].cells
    )
    assert {run.run_id for run in registry.runs_of("figure1")} < {
        run.run_id for run in registry.runs_of("table1")
    }
    assert [run.stage for run in registry.runs_of("figure5")] == ["visualise"]
    assert {run.stage for run in registry.runs_of("figure8")} == {"pretrain", "visualise"}
    with pytest.raises(UserError, match="table9: "):
        registry.runs_of("table9")


def test_shared_runs_are_one_run():
    """MGM, ViT-B, SSv2, 200 epochs is in Tables 4a, b, c, e, the edge ablation and Figure 4's plots."""
    registry = make_registry(SMOKE)
    cells = [
        registry.tables[name].cell(row, "SSv2")
        for name, row in (
            ("4a", "ViT-B"),
            ("4b", "motion vector"),
            ("4c", "yes"),
            ("4e", "MGM (Dense)"),
            ("4_edge", "MGM (grow)"),
        )
    ]
    cells += [
        dict(registry.plots["4a"].lines["MGM"])[0.75],
        dict(registry.plots["4b"].lines["MGM"])[200],
    ]
    assert {cell.runs[0].run_id for cell in cells} == {
        registry.tables["4e"].cell("MGM (Dense)", "SSv2").runs[0].run_id
    }


def test_the_ablations_differ_from_mgm_in_one_field():
    registry = make_registry(SMOKE)

    def parent(table, row, column="SSv2"):
        return registry.specs[registry.tables[table].cell(row, column).runs[0].parent]

    base = dotted(parent("4e", "MGM (Dense)").model_dump())
    for run, change in (
        (parent("4b", "optical flow"), {"mask.guidance": "dis"}),
        (parent("4c", "no"), {"mask.jitter": False}),
        (parent("4_edge", "MGM (clamp)"), {"mask.edge": "clamp"}),
        (
            registry.specs[dict(registry.plots["4a"].lines["MGM"])[0.6].runs[0].parent],
            {"mask.ratio": 0.6},
        ),
    ):
        fields = dotted(run.model_dump())
        assert {name: fields[name] for name in fields if fields[name] != base[name]} == change
    assert parent("4d", "Mini-K200", "K400").data.dataset == "mini-k200"
    assert parent("4a", "TimesFormer").model.backbone == "timesformer-smoke"


def test_guidance_rows_differ_from_mgm_in_one_field_of_the_mask():
    """The runs are those of scale mini; MGM's row is Table 4e's. A scale of one seed has none."""
    assert "4_guidance" not in make_registry(SMOKE).tables
    registry = make_registry(load_scale(CONFIG / "mini.yaml"))
    table, column = registry.tables["4_guidance"], "SSv2, linear probe"
    assert table.columns == [column]
    known = registry.tables["4e"].cell("MGM (Dense)", column).runs[:5]
    assert table.cell(table.ours, column).runs == known
    for row, change in {
        "MGM, shuffled guidance": {"mask.guidance": "shuffled"},
        "MGM, compensated (median)": {"mask.compensate": "median"},
        "MGM, compensated (affine)": {"mask.compensate": "affine"},
    }.items():
        runs = table.cell(row, column).runs
        assert [run.seed for run in runs] == [0, 1, 2, 3, 4]
        for run, base in zip(runs, known, strict=True):
            fields = dotted(registry.specs[run.parent].model_dump())
            of_mgm = dotted(registry.specs[base.parent].model_dump())
            assert {name: fields[name] for name in fields if fields[name] != of_mgm[name]} == change


def test_transfer_starts_from_what_its_row_says():
    """Runs of Tables 2 and 3 start from 800 epochs of pretraining on K400 or SSv2.

    A finetuned parent is a run of Table 1. The supervised parent was trained from scratch.
    """
    registry = make_registry(load_scale(CONFIG / "paper.yaml"))
    for name, dataset, label in zip(
        ("2a", "2b", "2c", "2d", "3"),
        ("k400", "ssv2") * 2 + ("k400",),
        ("K400", "SSv2") * 2 + ("K400",),
    ):
        table = registry.tables[name]
        for cell in table.cells:
            for run in cell.runs:
                parent = registry.specs[run.parent]
                assert parent.data.dataset == dataset
                if cell.row.startswith("Supervised"):
                    assert (
                        parent.stage,
                        parent.parent,
                        parent.optim.epochs,
                        parent.head_dropout,
                    ) == ("finetune", "", 200, 0.5)
                elif cell.row.endswith("Finetune"):
                    assert parent in registry.tables["1"].cell(f"MGM, {label}, 800", label).runs
                else:
                    assert (parent.stage, parent.optim.epochs, parent.mask.name) == (
                        "pretrain",
                        800,
                        {"VideoMAE": "tube", "MGM": "mgm"}[cell.row],
                    )
                assert isinstance(run, Probe if name in ("2c", "2d") else Finetune)
    assert {run.data.dataset for cell in registry.tables["3"].cells for run in cell.runs} == {
        "ucf14-hmdb7",
        "hmdb14-ucf7",
    }


def test_weights_that_a_user_gives_fill_an_external_row():
    scale = SMOKE.model_copy(update={"weights": {"MAM2, SSv2, 1200": "external-mam2-0123abcd"}})
    cell = make_registry(scale).tables["1"].cell("MAM2, SSv2, 1200", "SSv2")
    assert [run.parent for run in cell.runs] == ["external-mam2-0123abcd"]
    assert cell.remark == "from given weights"
    # The second is a row of Table 4e.
    for row in ("MAM3", "MGM (Dense)"):
        with pytest.raises(UserError, match=re.escape(f"weights: {row!r} ")):
            make_registry(SMOKE.model_copy(update={"weights": {row: "external-mam3-0123abcd"}}))
    with pytest.raises(UserError, match=r"more_seeds\.table9"):
        make_registry(SMOKE.model_copy(update={"more_seeds": {"table9": (0, 1)}}))


def test_a_targets_probes_may_have_more_seeds_than_its_finetunings():
    more = {"table4e": (0, 1), "table4e.probe": (0, 1, 2, 3)}
    registry = make_registry(SMOKE.model_copy(update={"more_seeds": more}))
    masks = registry.tables["4e"]
    for row in (masks.base, masks.ours):
        assert [run.seed for run in masks.cell(row, "SSv2").runs] == [0, 1]
        assert [run.seed for run in masks.cell(row, "SSv2, linear probe").runs] == [0, 1, 2, 3]


def test_smoke_differs_from_the_paper_only_in_what_its_yaml_lists():
    listed = SMOKE.overrides
    for spec in (
        recipes.pretrain("ssv2"),
        recipes.finetune("ssv2", "", recipes.Model()),
        recipes.probe("ssv2", "", recipes.Model()),
    ):
        paper, smoke = dotted(spec.model_dump()), dotted(SMOKE.apply(spec, seed=0).model_dump())
        changed = {name for name in paper if paper[name] != smoke[name]}
        backbone = {f"model.{name}" for name in SMOKE.backbones[spec.model.backbone]}
        allowed = (
            set(listed[spec.stage])
            | backbone
            | {"optim.steps", "optim.warmup_epochs", "data.digest"}
        )
        assert changed <= allowed


def test_own_videos_run_the_mask_ablation_under_their_digest():
    scale = SMOKE.model_copy(
        update={
            "name": "mine",
            "more_seeds": {},
            "datasets": {"folder": Dataset(root="videos", digest="0123456789ab")},
        }
    )
    registry = make_registry(scale)
    assert registry.tables["4e"].columns == ["own videos", "own videos, linear probe"]
    assert all(spec.data.digest == "0123456789ab" for spec in registry.specs.values())
    other = make_registry(
        scale.model_copy(
            update={"datasets": {"folder": Dataset(root="videos", digest="ba9876543210")}}
        )
    )
    assert not set(registry.specs) & set(other.specs)
