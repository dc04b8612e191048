"""The paper's tables, cell by cell (DESIGN 4), and two of our own: the box at the frame's edge, and numbers of the text that we measure."""

from collections.abc import Callable
from typing import get_args

from mgm.experiments import recipes
from mgm.experiments.registry import Cell, Registry, Table, with_mask
from mgm.experiments.scales import OWN
from mgm.masking import MASKS
from mgm.spec import Edge, Finetune, Measure, Pretrain

COLUMNS = {"ssv2": "SSv2", "k400": "K400"}
TABLE_1: dict[str, tuple[tuple[str, str, str], ...]] = {  # groups of (method, its epochs on SSv2, on K400), as the paper prints them
    "Supervised": (
        ("SlowFast", "196", "-"),
        ("TimeSformer", "15", "15"),
        ("VidTr", "50", "-"),
        ("MotionFormer", "90+35", "90"),
        ("MViTv1", "200", "-"),
        ("MViTv2", "200", "-"),
    ),
    "Self-supervised": (
        ("BEVT", "800+150", "800+150"),
        ("M3Video", "400", "400"),
        ("MGM", "400", "400"),
        ("VideoMAE", "800", "800"),
        ("MGM", "800", "800"),
        ("MAM2", "1200", "800"),
        ("MGM", "1200", "1200"),
        ("OmniMAE", "1600", "1600"),
        ("VideoMAE", "1600", "1600"),
        ("VideoMAE", "2400", ""),
        ("ST-MAE", "", "1600"),
        ("MotionMAE", "2400", "1600"),
        ("MGM", "1600", "1600"),
        ("MGM", "2400", ""),
    ),
}
OURS = {"MGM": "mgm", "VideoMAE": "tube", "ST-MAE": "agnostic"}  # methods we run, by their masks
TRANSFER = {"UCF": "ucf101", "HMDB": "hmdb51", "Diving48": "diving48"}  # columns of Table 2
ADAPTATION = {"UCF14 → HMDB7": "ucf14-hmdb7", "HMDB14 → UCF7": "hmdb14-ucf7"}  # columns of Table 3
TABLE_4E = ("block", "smm-sparse", "tube", "mgm-sparse", "smm", "mgm")  # the paper's order
MASK_ROWS = {MASKS[name].row: name for name in dict.fromkeys((*TABLE_4E, *MASKS)) if MASKS[name].row}  # rows of Table 4e; others follow


def table_1(registry: Registry) -> None:
    """Finetuned top-1 on SSv2 and K400 over pretraining epochs. A method that differs in more than its mask is quoted, unless a user
    gives its weights: then they are finetuned like ours."""
    if not registry.has("ssv2", "k400"):
        return
    table = registry.tables["1"] = Table(
        "1",
        "Finetuned top-1 on Something-Something V2 and Kinetics-400",
        "MGM, VideoMAE and ST-MAE are run here, under one recipe that differs in the mask alone; the other rows are quoted from the paper. "
        "ST-MAE's own recipe is another (repeated augmentation 4, a deeper decoder, a class token), so its row is agnostic masking under "
        "VideoMAE's. The paper quotes VideoMAE's 800-epoch cells from runs without repeated augmentation.",
        head="Method, dataset, pretraining epochs",
        groups={method: group for group, rows in TABLE_1.items() for method, *_ in rows},
        rows_name_runs=True,
        takes_weights=True,
    )
    for rows in TABLE_1.values():
        for method, *epochs_of in rows:
            for (dataset, column), epochs in zip(COLUMNS.items(), epochs_of, strict=True):
                if not epochs:
                    continue
                row, runs, remark = f"{method}, {column}, {epochs}", tuple[Finetune, ...](), ""
                if weights := registry.scale.weights.get(row):
                    runs = downstream_runs(registry, "table1", dataset, fixed_parent(weights))
                    remark = "from given weights"
                elif method in OURS:
                    runs = downstream_runs(registry, "table1", dataset, _pretrained(registry, dataset, OURS[method], int(epochs)))
                table.cells.append(Cell("1", row, column, runs, remark=remark))


def table_2(registry: Registry) -> None:
    """Transfer from K400 (a, c) and SSv2 (b, d), finetuned (a, b) and by linear probe (c, d; P Table 2), 800 epochs of pretraining."""
    for name, dataset, probes in (("2a", "k400", False), ("2b", "ssv2", False), ("2c", "k400", True), ("2d", "ssv2", True)):
        if not registry.has(dataset, *TRANSFER.values()):
            continue
        table = registry.tables[name] = Table(
            name,
            f"{'Linear probe' if probes else 'Finetuning'} on UCF101, HMDB51 and Diving48 from {COLUMNS[dataset]}",
            "UCF101 and HMDB51 on their split 1. The supervised baseline is ViT-B from scratch by MViT's recipe."
            + (" The paper gives no recipe for its probe; ours is MAE's." if probes else ""),
        )
        parents = {f"Supervised ({COLUMNS[dataset]})": _supervised(registry, dataset), **_pretrained_800(registry, dataset)}
        if probes:
            del parents[f"MGM + {COLUMNS[dataset]} Finetune"]
        for row, parent in parents.items():
            for column, downstream in TRANSFER.items():
                table.cells.append(Cell(name, row, column, downstream_runs(registry, f"table{name}", downstream, parent, probes)))


def table_3(registry: Registry) -> None:
    """Partial domain adaptation from K400-800: trained on one set's 14 classes, tested on the other's videos of the 7 shared ones."""
    if not registry.has("k400", *ADAPTATION.values()):
        return
    table = registry.tables["3"] = Table(
        "3",
        "Partial domain adaptation",
        "Finetuned on the source's 14 classes, tested as a 14-way classifier on the target's videos of the 7 shared classes; no video of "
        "the target is seen. Negative transfer is the share of predictions outside the 7 shared classes (the paper does not report it).",
    )
    for metric, suffix in (("top1", ""), ("outside", ", negative transfer")):
        for row, parent in _pretrained_800(registry, "k400").items():
            for column, dataset in ADAPTATION.items():
                table.cells.append(Cell("3", row, column + suffix, downstream_runs(registry, "table3", dataset, parent), metric))


def table_4abc(registry: Registry) -> None:
    """Backbones, guidance and jitter of MGM: 200 epochs on SSv2 (P 4.5)."""
    if not registry.has("ssv2"):
        return
    flow = registry.scale.flow
    base = recipes.pretrain("ssv2")
    dis = "DIS, not RAFT-small" if flow == "dis" else ""
    small = {
        row: recipes.pretrain("ssv2", backbone=name)
        for row, name in (("ViT-S", "vit-s"), ("ViT-B", "vit-b"), ("TimesFormer", "timesformer"))
    }
    rows: dict[str, tuple[str, str, dict[str, tuple[Pretrain, str]]]] = {
        "4a": ("Backbones", "Backbone", {row: (spec, "") for row, spec in small.items()}),
        "4b": ("What guides the mask", "Guidance", {"optical flow": (with_mask(base, guidance=flow), dis), "motion vector": (base, "")}),
        "4c": ("Jitter of the box's aspect ratio", "Jitter", {"no": (with_mask(base, jitter=False), ""), "yes": (base, "")}),
    }
    for name, (title, head, several) in rows.items():
        table = registry.tables[name] = Table(name, title, "MGM, 200 epochs of pretraining on SSv2.", head=head)
        for row, (spec, remark) in several.items():
            runs = downstream_runs(registry, f"table{name}", "ssv2", pretrain_parent(registry, spec), model=spec.model)
            table.cells.append(Cell(name, row, "SSv2", runs, remark=remark))


def table_4d(registry: Registry) -> None:
    """Pretraining on Mini-K200 against K400, tested on K400 (P 4.5)."""
    if not registry.has("k400", "mini-k200"):
        return
    table = registry.tables["4d"] = Table(
        "4d", "Pretraining data", "MGM, 200 epochs of pretraining; finetuned on K400.", head="Pretraining data"
    )
    for row, dataset in (("Mini-K200", "mini-k200"), ("K400", "k400")):
        table.cells.append(Cell("4d", row, "samples", (), metric="samples", decimals=0))
        table.cells.append(
            Cell("4d", row, "K400", downstream_runs(registry, "table4d", "k400", _pretrained(registry, dataset, "mgm", 200)))
        )


def table_4e(registry: Registry) -> None:
    """The mask grid: 200 epochs on SSv2 (P 4.5), or on a user's own videos."""
    dataset, column = (OWN, "own videos") if registry.scale.own_videos else ("ssv2", "SSv2")
    note = "Tube hides 90 % of the patches, every other mask 75 % (VideoMAE's and the paper's values)."
    if not registry.scale.own_videos:
        note += " The linear probe and the row without pretraining are ours: the paper reports neither here."
    table = registry.tables["4e"] = Table(
        "4e", "Mask types: trajectory by spatial continuity", note, compares_masks=True, rows_name_runs=True
    )
    rows = {"No pretraining": fixed_parent("")} | {row: _pretrained(registry, dataset, mask, 200) for row, mask in MASK_ROWS.items()}
    for row, parent in rows.items():
        _finetuned_and_probed(registry, table, "table4e", row, dataset, column, parent)


def table_4_edge(registry: Registry) -> None:
    """Ours: what a box does at the frame's edge (DESIGN 2). Block stays inside the frame, so the rule does not touch it."""
    if not registry.has("ssv2"):
        return
    table = registry.tables["4_edge"] = Table(
        "4_edge",
        "Our ablation: the box at the frame's edge",
        "The paper does not say what a box does at the edge. Grow: what hangs over is gained on the other side. Clamp: the box stays "
        "inside the frame. Spill: what hangs over goes to random patches. A random block never reaches the edge.",
        head="Mask",
    )
    _finetuned_and_probed(registry, table, "table4_edge", "Random Block", "ssv2", "SSv2", _pretrained(registry, "ssv2", "block", 200))
    for name, mask in {"SMM": "smm", "MGM": "mgm"}.items():
        for edge in get_args(Edge):
            parent = pretrain_parent(registry, with_mask(recipes.pretrain("ssv2", mask), edge=edge))
            _finetuned_and_probed(registry, table, "table4_edge", f"{name} ({edge})", "ssv2", "SSv2", parent)


def measured(registry: Registry) -> None:
    """Numbers of the papers' text that are measured, not trained for."""
    if not registry.has("ssv2", "k400"):
        return
    flow = registry.scale.flow
    table = registry.tables["measured"] = Table(
        "measured",
        "Numbers of the papers' text, measured",
        "Saliency: mean motion inside the annotated boxes over that outside. Times: one thread of this machine. The step: one of masked "
        "pretraining against one whose encoder sees all tokens.",
        head="What",
        trains=False,
    )
    seed = registry.scale.seeds[0]

    def runs(name: str, dataset: str, videos: int = 0) -> tuple[Measure]:
        like = registry.scale.apply(recipes.pretrain(dataset), seed)
        run = Measure(
            name=name,  # type: ignore[arg-type]
            data=like.data,
            clips=like.clips,
            model=like.model,
            decoder=like.decoder,
            flow=flow,
            videos=videos,
            seed=seed,
        )
        return (registry.add(run),)

    motion_time, dis = runs("motion-time", "ssv2", videos=60), "DIS, not RAFT-small" if flow == "dis" else ""
    table.cells += [
        *(Cell("measured", "Saliency score", column, runs("saliency", dataset), "saliency", 2) for dataset, column in COLUMNS.items()),
        Cell("measured", "Reading motion vectors", "ms a video", motion_time, "vectors_ms"),
        Cell("measured", "Optical flow", "ms a video", motion_time, "flow_ms", remark=dis),
        Cell("measured", "Step at 90 % hidden", "times faster", runs("step-time", "ssv2"), "speedup", 2),
    ]


Parent = Callable[[int], str]  # of a seed: the run id to start from, empty for none


def pretrain_parent(registry: Registry, spec: Pretrain) -> Parent:
    return lambda seed: registry.add_scaled(spec, seed).run_id


def fixed_parent(run_id: str) -> Parent:
    return lambda seed: run_id


def _pretrained(registry: Registry, dataset: str, mask: str, epochs: int) -> Parent:
    return pretrain_parent(registry, recipes.pretrain(dataset, mask, epochs))


def _pretrained_800(registry: Registry, dataset: str) -> dict[str, Parent]:
    """Rows of Tables 2 and 3: pretrained for 800 epochs, and then finetuned with the pretraining set's labels, as in Table 1."""
    mgm = _pretrained(registry, dataset, "mgm", 800)

    def finetuned(seed: int) -> str:
        return registry.add_scaled(recipes.finetune(dataset, mgm(seed), recipes.MODELS["vit-b"]), seed).run_id

    return {"VideoMAE": _pretrained(registry, dataset, "tube", 800), "MGM": mgm, f"MGM + {COLUMNS[dataset]} Finetune": finetuned}


def _supervised(registry: Registry, dataset: str) -> Parent:
    return lambda seed: registry.add_scaled(recipes.supervised(dataset), seed).run_id


def downstream_runs(
    registry: Registry, target: str, dataset: str, parent: Parent, probe: bool = False, model=recipes.MODELS["vit-b"]
) -> tuple:
    """One finetuning or probe a seed of the target, from the parent of that seed."""
    recipe = recipes.probe if probe else recipes.finetune
    return tuple(registry.add_scaled(recipe(dataset, parent(seed), model), seed) for seed in registry.seeds(target))


def _finetuned_and_probed(registry: Registry, table: Table, target: str, row: str, dataset: str, column: str, parent: Parent) -> None:
    table.cells.append(Cell(table.name, row, column, downstream_runs(registry, target, dataset, parent)))
    table.cells.append(Cell(table.name, row, f"{column}, linear probe", downstream_runs(registry, target, dataset, parent, probe=True)))


ALL = (table_1, table_2, table_3, table_4abc, table_4d, table_4e, table_4_edge, measured)
