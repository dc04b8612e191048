"""Tables that the paper does not have.

They are controls, ablations and measured numbers.
"""

from collections.abc import Collection
from typing import get_args

from mgm.spec import MASKS, Edge, Measure, Probe
from mgm.study import recipes
from mgm.study.experiments import COLUMNS, downstream_runs, finetuned_and_probed
from mgm.study.registry import CONTROL_ROWS, NO_MODEL, Registry, with_mask


def _probes(registry: Registry, row: str, seeds: Collection[int]) -> tuple[str, list[Probe]]:
    """Return Table 4e's column of linear probes, and those of a row with these seeds."""
    table = registry.tables["4e"]
    column = next(name for name in table.columns if name.endswith("linear probe"))
    runs = table.cell(row, column).runs
    return column, [run for run in runs if isinstance(run, Probe) and run.seed in seeds]


def controls(registry: Registry) -> None:
    """Add our controls: Table 4e's linear probe on features that need no model.

    Labels, draws, splits and groups are the same as in the probes with the scale's own seeds.
    """
    table = registry.tables["4e"]
    column, probes = _probes(registry, table.base, registry.scale.seeds)
    runs = tuple(registry.add(recipes.controls(run)) for run in probes)
    for row, metric in CONTROL_ROWS.items():
        table.groups[row] = NO_MODEL
        table.add(row, column, runs, metric)


# Each row with the fields that differ from MGM's mask.
GUIDANCE = {
    "MGM (Dense)": {},
    "MGM, shuffled guidance": {"guidance": "shuffled"},
    "MGM, compensated (median)": {"compensate": "median"},
    "MGM, compensated (affine)": {"compensate": "affine"},
}


def table_4_guidance(registry: Registry) -> None:
    """Add our ablation of what guides MGM's box, by linear probes alone.

    Leave it out at scales of one seed: the differences between these rows are too small for that.
    """
    if not registry.has("ssv2") or len(registry.scale.seeds) < 2:
        return
    table = registry.add_table(
        "4_guidance",
        "Our ablation: what guides the box",
        "Shuffled guidance follows the motion of another video, so the box moves independently of "
        "the clip. Compensated guidance subtracts the camera's motion from the vectors of each "
        "frame: their median, or an affine fit.",
        ours=MASKS["mgm"].row,
        head="Mask",
        rows_name_runs=True,
    )
    for row, fields in GUIDANCE.items():
        spec = with_mask(recipes.pretrain("ssv2"), **fields)
        runs = downstream_runs(registry, "table4_guidance", "ssv2", spec, probe=True)
        table.add(row, "SSv2, linear probe", runs)


def table_4_edge(registry: Registry) -> None:
    """Add our ablation of what a box does at the frame's edge.

    A random block stays inside the frame, so the rule does not affect it.
    """
    if not registry.has("ssv2"):
        return
    table = registry.add_table(
        "4_edge",
        "Our ablation: the box at the frame's edge",
        "The paper does not say what a box does at the edge. Grow: the box grows on the other side "
        "by the part outside the frame. Clamp: the box stays inside the frame. A random "
        "block never leaves the frame.",
        head="Mask",
    )
    rows = {"Random Block": recipes.pretrain("ssv2", "block")} | {
        f"{name} ({edge})": with_mask(recipes.pretrain("ssv2", mask), edge=edge)
        for name, mask in {"SMM": "smm", "MGM": "mgm"}.items()
        for edge in get_args(Edge)
    }
    for row, spec in rows.items():
        finetuned_and_probed(registry, table, row, "ssv2", "SSv2", spec)


def measured(registry: Registry) -> None:
    """Add numbers from the papers' text that are measured without training."""
    if not registry.has("ssv2", "k400"):
        return
    flow = registry.scale.flow
    table = registry.add_table(
        "measured",
        "Numbers of the papers' text, measured",
        "Saliency: mean motion inside the annotated boxes divided by the mean outside. Times: on "
        "one thread of this machine. Step: a step of masked pretraining is this many times faster "
        "than a step whose encoder sees all tokens.",
        head="Quantity",
    )

    def runs(name: str, dataset: str, videos: int = 0) -> tuple[Measure]:
        like = registry.scale.apply(recipes.pretrain(dataset), registry.scale.seeds[0])
        same = like.model_dump(include={"data", "clips", "model", "decoder", "seed"})
        return (registry.add(Measure(name=name, flow=flow, videos=videos, **same)),)  # type: ignore[arg-type]

    motion_time = runs("motion-time", "ssv2", videos=60)
    dis = "DIS, not RAFT-small" if flow == "dis" else ""
    for column, dataset in COLUMNS.items():
        table.add("Saliency score", column, runs("saliency", dataset), "saliency", 2)
    table.add("Reading motion vectors", "ms per video", motion_time, "vectors_ms")
    table.add("Optical flow", "ms per video", motion_time, "flow_ms", remark=dis)
    table.add("Step at 90 % hidden", "times faster", runs("step-time", "ssv2"), "speedup", 2)


ALL = (
    controls,
    table_4_edge,
    table_4_guidance,
    measured,
)
