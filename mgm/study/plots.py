"""The paper's figures: some draw cells of tables, others draw the arrays of a run."""

from typing import get_args

from mgm.spec import OWN, Edge, Measure, Visualise
from mgm.study import recipes
from mgm.study.experiments import downstream_runs
from mgm.study.registry import SHARES, Cell, Figure, Plot, Registry, with_mask

# The paper does not list its ratios. 0.9 is VideoMAE's.
RATIOS = (0.6, 0.75, 0.9)
TOP1 = SHARES["top1"]
# Fields that a measurement or a picture has in common with the pretraining that it shows.
SAME = {"data", "clips", "model", "seed"}


def figure_1(registry: Registry) -> None:
    """Add Figure 1: top-1 accuracy on SSv2 over pretraining epochs.

    MGM and VideoMAE are run here. The other methods that the paper names are quoted.
    """
    if not (table := registry.tables.get("1")):
        return
    lines: dict[str, list[tuple[float, Cell]]] = {}
    for cell in table.cells:
        method, _, epochs = cell.row.split(", ")
        if cell.column == "SSv2" and table.groups[method] == "Self-supervised":
            lines.setdefault(method, []).append((sum(map(float, epochs.split("+"))), cell))
    registry.plots["1"] = Plot(
        "Top-1 accuracy on Something-Something V2 over pretraining epochs",
        "Solid lines are our runs with 95 % intervals. Dotted lines and open marks are the paper's "
        "numbers.",
        "Pretraining epochs",
        TOP1,
        {method: _over_x(points) for method, points in lines.items()},
    )


def figure_4a(registry: Registry) -> None:
    """Add Figure 4a: accuracy over the mask ratio, of MGM after 200 epochs on SSv2."""
    if not registry.has("ssv2"):
        return
    # This row has the ratio 0.75, the only point of the figure that a table prints. It keeps all
    # its seeds, so that every figure shows one value.
    quoted = registry.tables["4e"].cell("MGM (Dense)", "SSv2")
    points = [(0.75, quoted)]
    for ratio in RATIOS:
        if ratio != 0.75:
            spec = with_mask(recipes.pretrain("ssv2"), ratio=ratio)
            runs = downstream_runs(registry, "figure4a", "ssv2", spec)
            points.append((ratio, Cell("4a_ratio", f"{ratio:g}", "SSv2", runs)))
    registry.plots["4a"] = Plot(
        "Mask ratio",
        "The paper pretrains MGM for 200 epochs on SSv2, and prints a number for 0.75 only.",
        "Mask ratio",
        TOP1,
        {"MGM": _over_x(points)},
    )


def _over_x(points: list[tuple[float, Cell]]) -> tuple[tuple[float, Cell], ...]:
    return tuple(sorted(points, key=lambda point: point[0]))


def figure_4b(registry: Registry) -> None:
    """Add Figure 4b: accuracy over epochs of MGM's pretraining on SSv2, from Tables 4e and 1."""
    if not (ladder := registry.plots.get("1")):
        return
    points = ((200.0, registry.tables["4e"].cell("MGM (Dense)", "SSv2")), *ladder.lines["MGM"])
    registry.plots["4b"] = Plot(
        "Duration of pretraining",
        "MGM on SSv2. The point at 200 epochs is from Table 4, the others are from Table 1.",
        "Pretraining epochs",
        TOP1,
        {"MGM": points},
    )


def figure_4_edge(registry: Registry) -> None:
    """Add our figure of the accuracy by the rule for a box at the frame's edge."""
    if not (table := registry.tables.get("4_edge")):
        return
    edges = get_args(Edge)
    rows = {name: [f"{name} ({edge})" for edge in edges] for name in ("MGM", "SMM")}
    rows["Random Block"] = ["Random Block"] * len(edges)
    lines = {
        name: tuple((float(x), table.cell(row, "SSv2")) for x, row in enumerate(rows_of_line))
        for name, rows_of_line in rows.items()
    }
    registry.plots["4_edge"] = Plot(
        "Our ablation: the box at the frame's edge",
        "A random block stays inside the frame, so every rule has the same run of it. The paper "
        "does not name its rule.",
        "Rule for a box at the frame's edge",
        TOP1,
        lines,
        edges,
    )


def figure_4_seeds(registry: Registry) -> None:
    """Add our figure of every seed of Table 4e, and of each mask minus MGM, paired by seed.

    A scale with one seed has no such figure.
    """
    table = registry.tables.get("4e")
    if not table or len(registry.seeds("table4e")) < 2:
        return
    rows = [row for row in table.rows if row not in table.groups]
    registry.plots["4_seeds"] = Plot(
        "Ours: the masks of Table 4e, seed by seed",
        "All rows have the same seeds. A seed draws the initial weights, the order of clips, the "
        "masks and the labels.",
        SHARES[table.cell(rows[0], table.columns[0]).metric],
        "",
        {
            column: tuple((float(x), table.cell(row, column)) for x, row in enumerate(rows))
            for column in reversed(table.columns)
        },
        tuple(rows),
        table.ours,
    )


def figure_5(registry: Registry) -> None:
    """Add Figure 5, every mask on one clip, and our figure of the moving pixels under each mask."""
    like = recipes.pretrain(OWN if registry.scale.own_videos else "ssv2")
    centre = like.clips.model_copy(update={"crop": "centre"})
    seed = registry.scale.seeds[0]
    clip = Visualise(data=like.data, clips=centre, model=like.model)
    registry.figures["5"] = Figure(
        registry.add_scaled(clip, seed),
        "Every mask on one clip",
        "Each row is a mask. Each column is a time slot of the token grid.",
        shows_masks=True,
    )
    same = registry.scale.apply(like, seed).model_dump(include=SAME)
    registry.figures["5_coverage"] = Figure(
        registry.add(Measure(name="coverage", **same)),
        "Ours: moving pixels that each mask hides",
        "A mask that ignores motion hides the same share of moving pixels as of all pixels.",
        vector=True,
    )


def figures_6_to_8(registry: Registry) -> None:
    """Add Figures 6 to 8: MGM's input, attention and reconstructions (P 4.6, Appendix B).

    Both are pretrained on K400 for 800 epochs.
    """
    if not registry.has("k400"):
        return
    seed = registry.scale.seeds[0]
    mgm, videomae = (
        registry.add_scaled(recipes.pretrain("k400", mask, 800), seed) for mask in ("mgm", "tube")
    )
    slots = "Each column is a time slot of the token grid."
    for figure, parents, title, note in (
        (
            "6",
            [mgm],
            "Motion and attention",
            "A clip, the mask that the model was trained with, the clip's motion, and the model's "
            f"attention. {slots}",
        ),
        (
            "7",
            [mgm],
            "Attention over the frames",
            f"Attention of one model over several test clips. {slots}",
        ),
        (
            "8",
            [mgm, videomae],
            "Reconstructions",
            f"MGM and VideoMAE reconstruct the same test clips, each with its own mask. {slots}",
        ),
    ):
        shown = tuple(parent.run_id for parent in parents)
        run = Visualise(figure=figure, parents=shown, **mgm.model_dump(include=SAME))  # type: ignore[arg-type]
        registry.figures[figure] = Figure(registry.add(run), title, note)


ALL = (
    figure_1,
    figure_4a,
    figure_4b,
    figure_4_edge,
    figure_4_seeds,
    figure_5,
    figures_6_to_8,
)
