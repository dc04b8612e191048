"""A mask comparison of a scale's own: masks as rows, evaluations as columns.

A scale with a `grid` has this table alone, and none of the paper's. Its runs are ordered by what
matters most: each mask once before any mask's second seed, and each row complete before the next.
"""

from mgm.masking import MASKS
from mgm.paper import recipes
from mgm.paper.registry import Registry
from mgm.paper.scales import Grid
from mgm.paper.tables import fixed_parent, trained_parent

KINDS = {
    "logistic": "linear probe",
    "sgd": "SGD probe",
    "attentive": "attentive probe",
    "knn": "k-NN",
}
NAMES = {"ucf101": "UCF101", "hmdb51": "HMDB51", "ssv2": "SSv2", "k400": "K400"}
NONE = "No pretraining"


def table_masks(registry: Registry) -> None:
    """Fill the grid's table, seed by seed and row by row, so that runs are in their order."""
    grid = registry.scale.grid
    assert grid is not None
    table = registry.add_table(
        "masks",
        "Masks by evaluation",
        f"Pretrained on {NAMES.get(grid.data, grid.data)} for {grid.epochs} epochs. "
        "A row is added when its pretraining and all its evaluations are done.",
        base=NONE,
        ours=MASKS["mgm"].row if "mgm" in grid.masks else "",
        head="Mask",
    )
    model = recipes.MODELS[grid.backbone]
    cells: dict[tuple[str, str], list] = {}
    for seed in registry.scale.seeds:
        for row, parent in _rows(registry, grid).items():
            start = parent(seed)
            if grid.finetune:
                spec = recipes.finetune(grid.data, start, model)
                cells.setdefault((row, _column(grid.data, "fine-tuned")), []).append(
                    registry.add_scaled(spec, seed)
                )
            for dataset in (grid.data, *grid.transfer):
                for kind in grid.kinds:
                    probe = recipes.probe(dataset, start, model).model_copy(update={"kind": kind})
                    cells.setdefault((row, _column(dataset, KINDS[kind])), []).append(
                        registry.add_scaled(probe, seed)
                    )
    for (row, column), runs in cells.items():
        table.add(row, column, tuple(runs))


def _rows(registry: Registry, grid: Grid):
    """Return the parent of each row: random weights first, then the masks as the scale lists them."""
    rows = {NONE: fixed_parent("")}
    for mask in grid.masks:
        spec = recipes.pretrain(grid.data, mask, grid.epochs, grid.backbone)
        rows[MASKS[mask].row] = trained_parent(registry, spec)
    return rows


def _column(dataset: str, what: str) -> str:
    return f"{NAMES.get(dataset, dataset)}, {what}"


def rank(registry: Registry) -> dict[str, int]:
    """Return each run's place in the order of importance, from 0."""
    return {run_id: place for place, run_id in enumerate(registry.specs)}
