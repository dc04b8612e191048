"""The paper's tables, cell by cell (DESIGN 4), and two of our own:

the box at the frame's edge, and numbers of the text that we measure.
"""

from collections.abc import Callable, Sequence
from typing import get_args

from mgm.masking import MASKS, Edge
from mgm.paper import recipes
from mgm.paper.quoted import note, reported
from mgm.paper.registry import Registry, Table, with_mask
from mgm.paper.scales import OWN
from mgm.spec import Finetune, Flow, Measure, Model, Pretrain, Probe

COLUMNS = {"ssv2": "SSv2", "k400": "K400"}
OURS = {"MGM": "mgm", "VideoMAE": "tube", "ST-MAE": "agnostic"}  # methods we run, by their masks
TRANSFER = {"UCF": "ucf101", "HMDB": "hmdb51", "Diving48": "diving48"}  # columns of Table 2
ADAPTATION = {"UCF14 → HMDB7": "ucf14-hmdb7", "HMDB14 → UCF7": "hmdb14-ucf7"}  # columns of Table 3
TABLE_4E = ("block", "smm-sparse", "tube", "mgm-sparse", "smm", "mgm")  # the paper's order
MASK_ROWS = {  # rows of Table 4e: the paper's, then a user's own
    MASKS[name].row: name
    for name in dict.fromkeys((*TABLE_4E, *MASKS))
    if MASKS[name].row and not MASKS[name].source
}
OTHERS = "Ours: masks of other papers"  # the rows of Table 4e that the paper does not have


def table_1(registry: Registry) -> None:
    """Finetuned top-1 on SSv2 and K400 over pretraining epochs. A method that differs in more than
    its mask is quoted, unless a user
    gives its weights: then they are finetuned like ours."""
    if not registry.has("ssv2", "k400"):
        return
    printed = [key for key in reported() if key[0] == "1" and key[2] in COLUMNS.values()]
    table = registry.add_table(
        "1",
        "Finetuned top-1 on Something-Something V2 and Kinetics-400",
        "MGM, VideoMAE and ST-MAE are run here, under one recipe that differs in the mask alone; the other rows are quoted from the paper. "
        "ST-MAE's own recipe is another (repeated augmentation 4, a deeper decoder, a class token), so its row is agnostic masking under "
        "VideoMAE's. The paper quotes VideoMAE's 800-epoch cells from runs without repeated augmentation.",
        head="Method, dataset, pretraining epochs",
        groups={
            key[1].split(", ")[0]: "Supervised" if "supervised" in note(*key) else "Self-supervised"
            for key in printed
        },
        rows_name_runs=True,
        own_jobs=True,
        takes_weights=True,
        shows_notes=True,
    )
    datasets = {column: dataset for dataset, column in COLUMNS.items()}
    for _, row, column in printed:
        method, _, epochs = row.split(", ")
        runs, remark = tuple[Finetune, ...](), ""
        if weights := registry.scale.weights.get(row):
            runs = downstream_runs(registry, "table1", datasets[column], fixed_parent(weights))
            remark = "from given weights"
        elif method in OURS:
            runs = downstream_runs(
                registry,
                "table1",
                datasets[column],
                _pretrained(registry, datasets[column], OURS[method], int(epochs)),
            )
        table.add(row, column, runs, remark=remark)


def table_2(registry: Registry) -> None:
    """Transfer from K400 (a, c) and SSv2 (b, d), finetuned (a, b) and by linear probe (c, d;

    P Table 2), 800 epochs of pretraining.
    """
    for name, dataset, probes in (
        ("2a", "k400", False),
        ("2b", "ssv2", False),
        ("2c", "k400", True),
        ("2d", "ssv2", True),
    ):
        if not registry.has(dataset, *TRANSFER.values()):
            continue
        table = registry.add_table(
            name,
            f"{'Linear probe' if probes else 'Finetuning'} on UCF101, HMDB51 and Diving48 from {COLUMNS[dataset]}",
            "UCF101 and HMDB51 on their split 1. The supervised baseline is ViT-B from scratch by MViT's recipe."
            + (" The paper gives no recipe for its probe; ours is MAE's." if probes else ""),
        )
        parents = {
            f"Supervised ({COLUMNS[dataset]})": trained_parent(
                registry, recipes.supervised(dataset)
            )
        }
        parents |= _pretrained_800(registry, dataset)
        if probes:
            del parents[f"MGM + {COLUMNS[dataset]} Finetune"]
        for row, parent in parents.items():
            for column, downstream in TRANSFER.items():
                table.add(
                    row,
                    column,
                    downstream_runs(registry, f"table{name}", downstream, parent, probes),
                )


def table_3(registry: Registry) -> None:
    """Partial domain adaptation from K400-800:

    trained on one set's 14 classes, tested on the other's videos of the 7 shared ones.
    """
    if not registry.has("k400", *ADAPTATION.values()):
        return
    table = registry.add_table(
        "3",
        "Partial domain adaptation",
        "Finetuned on the source's 14 classes, tested as a 14-way classifier on the target's videos of the 7 shared classes; no video of "
        "the target is seen. Negative transfer is the share of predictions outside the 7 shared classes (the paper does not report it).",
    )
    for metric, suffix in (("top1", ""), ("outside", ", negative transfer")):
        for row, parent in _pretrained_800(registry, "k400").items():
            for column, dataset in ADAPTATION.items():
                table.add(
                    row,
                    column + suffix,
                    downstream_runs(registry, "table3", dataset, parent),
                    metric,
                )


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
        "4b": (
            "What guides the mask",
            "Guidance",
            {"optical flow": (with_mask(base, guidance=flow), dis), "motion vector": (base, "")},
        ),
        "4c": (
            "Jitter of the box's aspect ratio",
            "Jitter",
            {"no": (with_mask(base, jitter=False), ""), "yes": (base, "")},
        ),
    }
    for name, (title, head, several) in rows.items():
        table = registry.add_table(
            name, title, "MGM, 200 epochs of pretraining on SSv2.", head=head
        )
        for row, (spec, remark) in several.items():
            runs = downstream_runs(
                registry, f"table{name}", "ssv2", trained_parent(registry, spec), model=spec.model
            )
            table.add(row, "SSv2", runs, remark=remark)


def table_4d(registry: Registry) -> None:
    """Pretraining on Mini-K200 against K400, tested on K400 (P 4.5)."""
    if not registry.has("k400", "mini-k200"):
        return
    title = "Pretraining data"
    table = registry.add_table(
        "4d", title, "MGM, 200 epochs of pretraining; finetuned on K400.", head=title
    )
    for row, dataset in (("Mini-K200", "mini-k200"), ("K400", "k400")):
        table.add(row, "samples", metric="samples", decimals=0)
        table.add(
            row,
            "K400",
            downstream_runs(
                registry, "table4d", "k400", _pretrained(registry, dataset, "mgm", 200)
            ),
        )


def table_4e(registry: Registry) -> None:
    """The mask grid: 200 epochs on SSv2 (P 4.5), or on a user's own videos."""
    dataset, column = (OWN, "own videos") if registry.scale.own_videos else ("ssv2", "SSv2")
    remarks = "Tube hides 90 % of the patches, every other mask of the paper 75 % (VideoMAE's and the paper's values)."
    if not registry.scale.own_videos:
        remarks += " The linear probe and the row without pretraining are ours: the paper reports neither here."
    if registry.scale.other_masks:
        remarks += " Masks of other papers have their papers' ratios and this table's recipe: no number of theirs."
    title = "Mask types: trajectory by spatial continuity"
    table = registry.add_table(
        "4e",
        title,
        remarks,
        base="No pretraining",
        ours=MASKS["mgm"].row,
        own_jobs=True,
        rows_name_runs=True,
    )
    rows = {table.base: fixed_parent("")} | {
        row: _pretrained(registry, dataset, mask, 200) for row, mask in MASK_ROWS.items()
    }
    for row, parent in rows.items():
        _finetuned_and_probed(registry, table, row, dataset, column, parent)
    if registry.scale.other_masks:
        for row, spec in other_masks(dataset, registry.scale.flow).items():
            table.groups[row] = OTHERS
            _finetuned_and_probed(
                registry,
                table,
                row,
                dataset,
                column,
                trained_parent(registry, spec),
                registry.scale.seeds,
            )


def other_masks(dataset: str, flow: Flow) -> dict[str, Pretrain]:
    """Other papers' masks under Table 4e's recipe: rows of our own, with the scale's own seeds.
    MGMAE's is carried by vectors and by flow; VideoMAE V2's is the decoder's, beside tubes."""
    made = {
        info.row: recipes.pretrain(dataset, name) for name, info in MASKS.items() if info.source
    }
    warped, cell = MASKS["warped"].row, MASKS["running-cell"].row
    made[f"{warped} by flow"] = with_mask(made[warped], guidance=flow)
    made[cell] = with_mask(recipes.pretrain(dataset, "tube"), predicts="running-cell")
    return made


def table_4_still(registry: Registry) -> None:
    """Ours: Table 4e's probes on still clips."""
    masks = registry.tables["4e"]
    column = next(name for name in masks.columns if name.endswith("linear probe"))
    title = "Our control: what one frame tells"
    note = "Linear probes with every label, on clips whose frames are all the middle one: the less, the more Table 4e says of motion."
    table = registry.add_table("4_still", title, note)
    for row in (masks.base, masks.ours):
        probes = [
            run
            for run in masks.cell(row, column).runs
            if isinstance(run, Probe) and run.seed in registry.seeds("table4_still")
        ]
        every_label = probes[0].data.model_copy(update={"labels_per_class": 0})
        still = [
            run.model_copy(update={"still": True, "label_draws": 1, "data": every_label})
            for run in probes
        ]
        table.add(row, column, tuple(map(registry.add, still)))


def table_4_edge(registry: Registry) -> None:
    """Ours:

    what a box does at the frame's edge (DESIGN 2). Block stays inside the frame, so the rule does
    not touch it.
    """
    if not registry.has("ssv2"):
        return
    table = registry.add_table(
        "4_edge",
        "Our ablation: the box at the frame's edge",
        "The paper does not say what a box does at the edge. Grow: what hangs over is gained on the other side. Clamp: the box stays "
        "inside the frame. Spill: what hangs over goes to random patches. A random block never reaches the edge.",
        head="Mask",
    )
    _finetuned_and_probed(
        registry, table, "Random Block", "ssv2", "SSv2", _pretrained(registry, "ssv2", "block", 200)
    )
    for name, mask in {"SMM": "smm", "MGM": "mgm"}.items():
        for edge in get_args(Edge):
            parent = trained_parent(registry, with_mask(recipes.pretrain("ssv2", mask), edge=edge))
            _finetuned_and_probed(registry, table, f"{name} ({edge})", "ssv2", "SSv2", parent)


def measured(registry: Registry) -> None:
    """Numbers of the papers' text that are measured, not trained for."""
    if not registry.has("ssv2", "k400"):
        return
    flow = registry.scale.flow
    table = registry.add_table(
        "measured",
        "Numbers of the papers' text, measured",
        "Saliency: mean motion inside the annotated boxes over that outside. Times: one thread of this machine. The step: one of masked "
        "pretraining against one whose encoder sees all tokens.",
        head="What",
    )
    seed = registry.scale.seeds[0]

    def runs(name: str, dataset: str, videos: int = 0) -> tuple[Measure]:
        like = registry.scale.apply(recipes.pretrain(dataset), seed)
        fields = {
            "data": like.data,
            "clips": like.clips,
            "model": like.model,
            "decoder": like.decoder,
        }
        return (registry.add(Measure(name=name, flow=flow, videos=videos, seed=seed, **fields)),)  # type: ignore[arg-type]

    motion_time, dis = (
        runs("motion-time", "ssv2", videos=60),
        "DIS, not RAFT-small" if flow == "dis" else "",
    )
    for dataset, column in COLUMNS.items():
        table.add("Saliency score", column, runs("saliency", dataset), "saliency", 2)
    table.add("Reading motion vectors", "ms a video", motion_time, "vectors_ms")
    table.add("Optical flow", "ms a video", motion_time, "flow_ms", remark=dis)
    table.add("Step at 90 % hidden", "times faster", runs("step-time", "ssv2"), "speedup", 2)


Parent = Callable[[int], str]  # of a seed: the run id to start from, empty for none


def trained_parent(registry: Registry, spec: Pretrain | Finetune) -> Parent:
    return lambda seed: registry.add_scaled(spec, seed).run_id


def fixed_parent(run_id: str) -> Parent:
    return lambda seed: run_id


def _pretrained(registry: Registry, dataset: str, mask: str, epochs: int) -> Parent:
    return trained_parent(registry, recipes.pretrain(dataset, mask, epochs))


def _pretrained_800(registry: Registry, dataset: str) -> dict[str, Parent]:
    """Rows of Tables 2 and 3:

    pretrained for 800 epochs, and then finetuned with the pretraining set's labels, as in Table 1.
    """
    mgm = _pretrained(registry, dataset, "mgm", 800)

    def finetuned(seed: int) -> str:
        return registry.add_scaled(
            recipes.finetune(dataset, mgm(seed), recipes.MODELS["vit-b"]), seed
        ).run_id

    return {
        "VideoMAE": _pretrained(registry, dataset, "tube", 800),
        "MGM": mgm,
        f"MGM + {COLUMNS[dataset]} Finetune": finetuned,
    }


def downstream_runs(
    registry: Registry,
    target: str,
    dataset: str,
    parent: Parent,
    probe: bool = False,
    model: Model = recipes.MODELS["vit-b"],
    seeds: Sequence[int] = (),
) -> tuple:
    """One finetuning or probe a seed, by default of the target's, from the parent of that seed."""
    recipe, verb = (recipes.probe, "probe") if probe else (recipes.finetune, "finetune")
    return tuple(
        registry.add_scaled(recipe(dataset, parent(seed), model), seed)
        for seed in seeds or registry.seeds(target, verb)
    )


def _finetuned_and_probed(
    registry: Registry,
    table: Table,
    row: str,
    dataset: str,
    column: str,
    parent: Parent,
    seeds: Sequence[int] = (),
) -> None:
    for probe, suffix in ((False, ""), (True, ", linear probe")):
        table.add(
            row,
            column + suffix,
            downstream_runs(registry, f"table{table.name}", dataset, parent, probe, seeds=seeds),
        )


ALL = (
    table_1,
    table_2,
    table_3,
    table_4abc,
    table_4d,
    table_4e,
    table_4_still,
    table_4_edge,
    measured,
)
