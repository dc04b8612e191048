"""The paper's tables, cell by cell."""

from collections.abc import Sequence

from mgm.spec import MASKS, OWN, PUBLISHED, Finetune, Flow, Model, Pretrain
from mgm.study import recipes
from mgm.study.quoted import note, reported
from mgm.study.registry import Registry, Table, with_mask

# What a run starts from: runs that are trained one after another, or the id of a user's weights.
# Without any, from random weights.
Start = Pretrain | Finetune | str

# Columns of Table 1.
COLUMNS = {PUBLISHED[name].title: name for name in ("ssv2", "k400")}

# The methods of Table 1 that are run here, with their masks.
OURS = {"MGM": "mgm", "VideoMAE": "tube", "ST-MAE": "agnostic"}

# Columns of Table 2.
TRANSFER = {"UCF": "ucf101", "HMDB": "hmdb51", "Diving48": "diving48"}

# Columns of Table 3.
ADAPTATION = {"UCF14 → HMDB7": "ucf14-hmdb7", "HMDB14 → UCF7": "hmdb14-ucf7"}

# The masks of Table 4e in the paper's order.
TABLE_4E = ("block", "smm-sparse", "tube", "mgm-sparse", "smm", "mgm")

# Rows of Table 4e: the paper's, then masks that a user added.
MASK_ROWS = {
    MASKS[name].row: name
    for name in dict.fromkeys((*TABLE_4E, *MASKS))
    if MASKS[name].row and not MASKS[name].source
}
# The title of the rows of Table 4e that the paper does not have.
OTHERS = "Ours: masks of other papers"


def table_1(registry: Registry) -> None:
    """Add Table 1: top-1 accuracy after fine-tuning on SSv2 and K400, by pretraining epochs.

    A method that differs in more than its mask is quoted. If the user gives its weights, they are
    fine-tuned like ours.
    """
    if not registry.has("ssv2", "k400"):
        return
    printed = [key for key in reported() if key[0] == "1" and key[2] in COLUMNS]
    table = registry.add_table(
        "1",
        "Fine-tuned top-1 on Something-Something V2 and Kinetics-400",
        "MGM, VideoMAE and ST-MAE are run here, with recipes that differ only in the mask. The "
        "other rows are quoted from the paper. ST-MAE's own recipe has repeated augmentation 4, a "
        "deeper decoder and a class token; its row here is agnostic masking with VideoMAE's "
        "recipe. The paper's 800-epoch cells of VideoMAE are from runs without repeated "
        "augmentation.",
        head="Method, dataset, pretraining epochs",
        groups={
            key[1].split(", ")[0]: "Supervised" if "supervised" in note(*key) else "Self-supervised"
            for key in printed
        },
        rows_name_runs=True,
        own_jobs=True,
        shows_notes=True,
    )
    for _, row, column in printed:
        method, _, epochs = row.split(", ")
        start, remark = tuple[Start, ...](), ""
        if weights := registry.scale.weights.get(row):
            start, remark = (weights,), "from given weights"
        elif method in OURS:
            start = (recipes.pretrain(COLUMNS[column], OURS[method], int(epochs)),)
        runs = start and downstream_runs(registry, "table1", COLUMNS[column], *start)
        table.add(row, column, runs, remark=remark)


def table_2(registry: Registry) -> None:
    """Add Table 2: transfer from K400 (a, c) and SSv2 (b, d) after 800 epochs of pretraining.

    Tables a and b fine-tune, c and d are linear probes (P Table 2).
    """
    for name, dataset, probe in (
        ("2a", "k400", False),
        ("2b", "ssv2", False),
        ("2c", "k400", True),
        ("2d", "ssv2", True),
    ):
        if not registry.has(dataset, *TRANSFER.values()):
            continue
        title = PUBLISHED[dataset].title
        table = registry.add_table(
            name,
            f"{'Linear probe' if probe else 'Fine-tuning'} on UCF101, HMDB51 and Diving48 from "
            f"{title}",
            "UCF101 and HMDB51: split 1. The supervised baseline is ViT-B from scratch with MViT's "
            "recipe." + (" The paper has no recipe for its probe; ours is MAE's." if probe else ""),
        )
        rows = {f"Supervised ({title})": (recipes.supervised(dataset),)} | _pretrained_800(dataset)
        if probe:
            rows.popitem()
        for row, start in rows.items():
            for column, downstream in TRANSFER.items():
                runs = downstream_runs(registry, f"table{name}", downstream, *start, probe=probe)
                table.add(row, column, runs)


def table_3(registry: Registry) -> None:
    """Add Table 3: partial domain adaptation after 800 epochs of pretraining on K400.

    Runs train on the 14 classes of one dataset, and test on the other's videos of the 7 shared
    classes.
    """
    if not registry.has("k400", *ADAPTATION.values()):
        return
    table = registry.add_table(
        "3",
        "Partial domain adaptation",
        "Fine-tuned on the source's 14 classes, and tested as a 14-way classifier on the target's "
        "videos of the 7 shared classes. Training uses no video of the target. Negative transfer "
        "is the share of predictions outside the 7 shared classes (the paper does not report it).",
    )
    for metric, suffix in (("top1", ""), ("outside", ", negative transfer")):
        for row, start in _pretrained_800("k400").items():
            for column, dataset in ADAPTATION.items():
                runs = downstream_runs(registry, "table3", dataset, *start)
                table.add(row, column + suffix, runs, metric)


def table_4abc(registry: Registry) -> None:
    """Add Tables 4a-c: backbones, guidance and jitter of MGM, 200 epochs on SSv2 (P 4.5)."""
    if not registry.has("ssv2"):
        return
    flow, base = registry.scale.flow, recipes.pretrain("ssv2")
    by_flow = "DIS, not RAFT-small" if flow == "dis" else ""
    backbones = {"ViT-S": "vit-s", "ViT-B": "vit-b", "TimesFormer": "timesformer"}
    for name, title, head, rows in (
        (
            "4a",
            "Backbones",
            "Backbone",
            {row: recipes.pretrain("ssv2", backbone=name) for row, name in backbones.items()},
        ),
        (
            "4b",
            "What guides the mask",
            "Guidance",
            {"optical flow": with_mask(base, guidance=flow), "motion vector": base},
        ),
        (
            "4c",
            "Jitter of the box's aspect ratio",
            "Jitter",
            {"no": with_mask(base, jitter=False), "yes": base},
        ),
    ):
        table = registry.add_table(
            name, title, "The paper pretrains MGM for 200 epochs on SSv2.", head=head
        )
        for row, spec in rows.items():
            runs = downstream_runs(registry, f"table{name}", "ssv2", spec, model=spec.model)
            table.add(row, "SSv2", runs, remark=by_flow if row == "optical flow" else "")


def table_4d(registry: Registry) -> None:
    """Add Table 4d: pretraining on Mini-K200 vs K400, tested on K400 (P 4.5)."""
    if not registry.has("k400", "mini-k200"):
        return
    title = "Pretraining data"
    table = registry.add_table(
        "4d", title, "The paper pretrains MGM for 200 epochs and fine-tunes it on K400.", head=title
    )
    for row, dataset in (("Mini-K200", "mini-k200"), ("K400", "k400")):
        table.add(row, "samples", metric="samples", decimals=0)
        runs = downstream_runs(registry, "table4d", "k400", recipes.pretrain(dataset))
        table.add(row, "K400", runs)


def table_4e(registry: Registry) -> None:
    """Add Table 4e: the masks after 200 epochs on SSv2 (P 4.5), or on a user's own videos."""
    dataset, column = (OWN, "own videos") if registry.scale.own_videos else ("ssv2", "SSv2")
    remarks = (
        "Tube masking hides 90 % of the patches (VideoMAE's value), every other mask of the paper "
        "75 % (the paper's value)."
    )
    if not registry.scale.own_videos:
        remarks += (
            " The linear probe and the row without pretraining are ours; the paper has neither "
            "here."
        )
    if registry.scale.other_masks:
        remarks += (
            " Masks of other papers have the mask ratios of their papers and this table's recipe, "
            "so no number is comparable with theirs."
        )
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
    finetuned_and_probed(registry, table, table.base, dataset, column)
    for row, mask in MASK_ROWS.items():
        spec = recipes.pretrain(dataset, mask)
        finetuned_and_probed(registry, table, row, dataset, column, spec)
    if registry.scale.other_masks:
        for row, spec in other_masks(dataset, registry.scale.flow).items():
            table.groups[row] = OTHERS
            seeds = registry.scale.seeds
            finetuned_and_probed(registry, table, row, dataset, column, spec, seeds=seeds)


def other_masks(dataset: str, flow: Flow) -> dict[str, Pretrain]:
    """Return a pretraining spec for each mask of another paper, with Table 4e's recipe.

    MGMAE's mask is warped by motion vectors in one row, and by optical flow in another. Codec Keep
    has two controls: the motion of another video, and changing pixels in place of motion vectors.
    """
    specs = {
        info.row: recipes.pretrain(dataset, name) for name, info in MASKS.items() if info.source
    }
    warped = MASKS["warped"].row
    specs[f"{warped} by flow"] = with_mask(specs[warped], guidance=flow)
    keep = MASKS["codec-keep"].row
    specs[f"{keep}, shuffled"] = with_mask(specs[keep], guidance="shuffled")
    specs[f"{keep} by frame difference"] = with_mask(specs[keep], guidance="difference")
    return specs


def _pretrained_800(dataset: str) -> dict[str, tuple[Pretrain | Finetune, ...]]:
    """Return the rows of Tables 2 and 3, all pretrained for 800 epochs.

    The last one is also fine-tuned with the labels of the pretraining dataset, as in Table 1.
    """
    mgm = recipes.pretrain(dataset, "mgm", 800)
    return {
        "VideoMAE": (recipes.pretrain(dataset, "tube", 800),),
        "MGM": (mgm,),
        f"MGM + {PUBLISHED[dataset].title} Finetune": (
            mgm,
            recipes.finetune(dataset, "", mgm.model),
        ),
    }


def downstream_runs(
    registry: Registry,
    target: str,
    dataset: str,
    *start: Start,
    probe: bool = False,
    model: Model = recipes.MODELS["vit-b"],
    seeds: Sequence[int] = (),
) -> tuple:
    """Add one fine-tuning or probe run per seed, and the runs that it starts from.

    Args:
        target: a table or figure, such as table4e. Its seeds are the default of `seeds`.
        start: pretraining, or pretraining and fine-tuning, or the id of given weights. Without it,
            the runs start from random weights.
    """
    recipe, stage = (recipes.probe, "probe") if probe else (recipes.finetune, "finetune")
    last, runs = recipe(dataset, "", model), []
    for seed in seeds or registry.seeds(target, stage):
        parent = ""
        for part in (*start, last):
            if isinstance(part, str):
                parent = part
            else:
                run = registry.add_scaled(part.model_copy(update={"parent": parent}), seed)
                parent = run.run_id
        runs.append(run)
    return tuple(runs)


def finetuned_and_probed(
    registry: Registry,
    table: Table,
    row: str,
    dataset: str,
    column: str,
    *start: Start,
    seeds: Sequence[int] = (),
) -> None:
    """Add a fine-tuning cell and a linear-probe cell to a row of a table."""
    target = f"table{table.name}"
    for probe, suffix in ((False, ""), (True, ", linear probe")):
        runs = downstream_runs(registry, target, dataset, *start, probe=probe, seeds=seeds)
        table.add(row, column + suffix, runs)


ALL = (
    table_1,
    table_2,
    table_3,
    table_4abc,
    table_4d,
    table_4e,
)
