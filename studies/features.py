"""Compare learned features with a histogram of motion vectors: MGM over compute, on mini's data.

    python studies/features.py plan     # the rungs and their training multiply-adds; trains nothing
    python studies/features.py train    # rung by rung; repeat to continue
    python studies/features.py table    # docs/features.csv, docs/features.png, a table in Markdown

studies/features.md lists the runs and their order, when to stop, and the predictions.
"""

import argparse
from dataclasses import dataclass
from typing import Literal

import drawn
import matplotlib as mpl
import pandas as pd

from mgm.data.synthetic.generator import generate
from mgm.data.synthetic.params import Synthetic
from mgm.paper.cost import train_multiply_adds
from mgm.report.figures.style import STYLE, blank, write
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.frame import frame
from mgm.results.result import examine
from mgm.results.statistics import over_seeds
from mgm.spec import Finetune, Model, Pretrain, Probe, ProbeKind, Run, RunOptions
from mgm.stages.finetune import finetune
from mgm.stages.job import Workplace
from mgm.stages.measure.controls import controls
from mgm.stages.pretrain import pretrain
from mgm.stages.probe import probe
from mgm.stages.runner import run_all

RESULTS = drawn.ROOT / "results/features"
DATA_SEEDS, SEEDS = (709, 710), (1, 2, 3)
TWO = tuple((data_seed, 1) for data_seed in DATA_SEEDS)
ONE = TWO[:1]
SIX = tuple((data_seed, seed) for seed in SEEDS for data_seed in DATA_SEEDS)
LABELLED_STEPS = 4336  # of fine-tuning with every label: four times mini's
CONTROLS = {  # name of a control: title
    "vector_quadrants": "Histogram of motion vectors by quadrant",
    "vector_histogram": "Histogram of motion vectors, 81 numbers",
    "vector_mean": "Mean motion vector, 2 numbers",
}
TITLES = {"none": "Random weights", "pixels": "Target: pixels", "motion": "Target: motion"}
COLOURS = {"none": "#6e6e6e", "pixels": "#1f5fa8", "motion": "#e08214"}
MARKERS = {"steps": "o", "width": "^", "patch": "s", "width and steps": "D"}
COLUMNS = [
    "rung", "target", "varies", "kind", "data_seed", "seed", "multiply_adds", "top1", "run_id",
    "commit",
]  # fmt: skip


@dataclass(frozen=True)
class Rung:
    """A setting of MGM's pretraining. `on` lists its (data seed, run seed) pairs.

    `varies` names the difference from mini. The defaults are mini's steps, width and patch.
    """

    target: Literal["none", "pixels", "motion"]
    varies: str = "steps"
    steps: int = 2800
    width: int = 48
    patch: int = 8
    on: tuple[tuple[int, int], ...] = TWO
    kinds: tuple[ProbeKind, ...] = ("logistic",)

    @property
    def title(self) -> str:
        steps = "" if self.target == "none" else f"{self.steps:,} steps, "
        return f"{TITLES[self.target]}, {steps}width {self.width}, patch {self.patch}"


BOTH: tuple[ProbeKind, ...] = ("logistic", "attentive")
RUNGS = (
    Rung("none", kinds=BOTH),
    Rung("pixels", on=SIX, kinds=BOTH),
    Rung("motion", on=SIX, kinds=BOTH),
    Rung("none", "width", width=96),
    Rung("none", "width", width=192),
    Rung("none", "patch", patch=4),
    Rung("pixels", "width", width=96),
    Rung("motion", "width", width=96),
    Rung("pixels", steps=11_200),
    Rung("motion", steps=11_200),
    Rung("pixels", "patch", patch=4),
    Rung("motion", "width and steps", width=96, steps=11_200, on=ONE),
    Rung("pixels", "width", width=192),
    Rung("motion", steps=44_800, on=ONE),
    Rung("pixels", steps=44_800, on=ONE),
)


def dataset(data_seed: int) -> Synthetic:
    ((_, params),) = drawn.datasets(["mini"], [data_seed])
    return params


def resized(model: Model, rung: Rung) -> Model:
    """Return mini's encoder with a rung's width and patch. A head has 12 channels."""
    if rung.width == model.width and rung.patch == model.patch:
        return model
    name = f"mini-w{rung.width}-p{rung.patch}"
    sizes = {"width": rung.width, "heads": rung.width // 12, "patch": rung.patch}
    return model.model_copy(update={"backbone": name} | sizes)


def specs(rung: Rung, data_seed: int, seed: int) -> tuple[Pretrain | None, list[Probe]]:
    """Return a rung's pretraining run and its probes.

    The decoder stays at two thirds of the encoder's width. The learning rate falls as the width
    grows: 2e-3 per step at width 48.
    """
    base, linear = drawn.specs(dataset(data_seed))["mgm"]
    assert base
    model, wider = resized(base.model, rung), rung.width // base.model.width
    parent = None
    if rung.target != "none":
        decoder, optim = base.decoder, base.optim
        sizes = {"width": decoder.width * wider, "heads": decoder.heads * wider}
        decoder = decoder.model_copy(update=sizes)
        optim = optim.model_copy(update={"steps": rung.steps, "lr": optim.lr / wider})
        fields = {"model": model, "decoder": decoder, "optim": optim, "target": rung.target}
        parent = base.model_copy(update=fields | {"seed": seed})
    fields = {"model": model, "seed": seed, "parent": parent.run_id if parent else ""}
    probes = [linear.model_copy(update=fields | {"kind": kind}) for kind in kinds_of(rung, seed)]
    return parent, probes


def kinds_of(rung: Rung, seed: int) -> tuple[ProbeKind, ...]:
    """Return the probe kinds of a run. Only the first seed has the attentive probe: it is slow."""
    return rung.kinds if seed == SEEDS[0] else rung.kinds[:1]


def ceilings(data_seed: int) -> dict[str, tuple[Pretrain | None, Finetune]]:
    """Return the runs with every label: fine-tuned from scratch, and from mini's MGM."""
    params = dataset(data_seed)
    parent, _ = specs(RUNGS[1], data_seed, SEEDS[0])
    assert parent
    table, found = drawn.mini().registry.tables["4e"], {}
    for name, start in (("from scratch", None), ("from MGM", parent)):
        run = drawn.on(table.cell(drawn.ROWS["none"], "SSv2").runs[0], params)
        optim = run.optim.model_copy(update={"steps": LABELLED_STEPS})
        every = run.data.model_copy(update={"labels_per_class": 0})
        fields = {"optim": optim, "data": every, "seed": SEEDS[0]}
        fields["parent"] = start.run_id if start else ""
        found[name] = (start, run.model_copy(update=fields))
    return found


def order() -> list[tuple[int, list[Run]]]:
    """Return groups of runs with their data seeds, in the order of studies/features.md."""
    several: list[tuple[int, list[Run]]] = []
    for rung in RUNGS:
        for data_seed, seed in rung.on:
            parent, probes = specs(rung, data_seed, seed)
            several.append((data_seed, [*([parent] if parent else []), *probes]))
        if rung == RUNGS[2]:
            for data_seed in DATA_SEEDS:
                runs = [run for pair in ceilings(data_seed).values() for run in pair if run]
                several.append((data_seed, runs))
    return several


def plan() -> None:
    """Print each rung with the training multiply-adds of one run, in 1e12, and its runs."""
    total = 0.0
    for rung in RUNGS:
        work = multiply_adds(specs(rung, *rung.on[0])[0])
        total += work * len(rung.on)
        print(f"{rung.title}: {work / 1e12:.2f} x {len(rung.on)} runs")
    print(f"all rungs: {total / 1e12:.1f}")


def multiply_adds(parent: Pretrain | None) -> float:
    return train_multiply_adds(parent) if parent else 0.0


def train() -> None:
    """Run what is missing, in order. What needs no model comes first."""
    unpack(RESULTS)
    measure_controls()
    for data_seed, runs in order():
        if all(examine(RESULTS / run.run_id, run).state == "run" for run in runs):
            continue
        params = dataset(data_seed)
        place = drawn.DATA / f"ssv2-{params.digest}"
        generate(params, place)
        execution = Workplace(RESULTS, {"ssv2": place}, RunOptions(cache_mb=900))
        for run in runs:
            stage = {"pretrain": pretrain, "probe": probe, "finetune": finetune}[run.stage]
            run_all([run], stage, execution)
    print("every rung is done", flush=True)


def measure_controls() -> None:
    """Write docs/features-controls.csv: features that need no model, on each dataset."""
    path = drawn.DOCS / "features-controls.csv"
    if path.exists():
        return
    found = []
    for data_seed in DATA_SEEDS:
        params = dataset(data_seed)
        index = generate(params, drawn.DATA / f"ssv2-{params.digest}")
        _, (linear, *_) = specs(RUNGS[0], data_seed, SEEDS[0])
        table = controls(index, linear, weights=False)
        found.append(table[table.top1.notna()].assign(data_seed=data_seed))
    columns = ["data_seed", "control", "title", "top1", "chance", "n_test", "label_draws"]
    text = pd.concat(found)[columns].round(2).to_csv(index=False, lineterminator="\n")
    atomic.write(path, text)


def probes() -> pd.DataFrame:
    """Return a row per finished probe and fine-tuning, with the columns `COLUMNS`.

    `multiply_adds` counts only pretraining.
    """
    unpack(RESULTS)
    runs = frame(RESULTS)
    runs = runs[runs.status == "run"].set_index("run_id")
    rows = []
    for rung in RUNGS:
        for data_seed, seed in rung.on:
            parent, several = specs(rung, data_seed, seed)
            head = (rung.title, rung.target, rung.varies)
            rows += [
                (*head, one.kind, data_seed, seed, multiply_adds(parent), one.run_id)
                for one in several
            ]
    for data_seed in DATA_SEEDS:
        for name, (parent, tuned) in ceilings(data_seed).items():
            head = (f"Fine-tuned, every label, {name}", "pixels" if parent else "none", "labels")
            work = multiply_adds(parent)
            rows.append((*head, "fine-tuned", data_seed, SEEDS[0], work, tuned.run_id))
    found = [
        (*row[:-1], runs["metrics.top1"][row[-1]], row[-1], runs.commit[row[-1]])
        for row in rows
        if row[-1] in runs.index
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def table(runs: pd.DataFrame) -> str:
    """Return Markdown: each rung's accuracy by probe kind, as its mean and range over runs."""
    kinds = ["logistic", "attentive", "fine-tuned"]
    lines = ["| setting | multiply-adds (1e12) | " + " | ".join(kinds) + " |"]
    lines.append("|---" * (2 + len(kinds)) + "|")
    for rung, some in runs.groupby("rung", sort=False):
        cells = [_cell(some[some.kind == kind].top1) for kind in kinds]
        work = some.multiply_adds.iloc[0] / 1e12
        lines.append(f"| {rung} | {work:.2f} | " + " | ".join(cells) + " |")
    known = pd.read_csv(drawn.DOCS / "features-controls.csv")
    for control, title in CONTROLS.items():
        values = known[known.control == control].top1
        lines.append(f"| {title} | 0 | {_cell(values)} | | |")
    return "\n".join(lines)


def _cell(values: pd.Series) -> str:
    if values.empty:
        return ""
    words = f"{values.mean():.1f}"
    if len(values) > 1:
        words += f" ({values.min():.1f} to {values.max():.1f}, n = {len(values)})"
    return words


def differences(runs: pd.DataFrame) -> str:
    """Return motion minus pixels at mini's size, paired by dataset and seed, with its interval."""
    some = runs[(runs.kind == "logistic") & runs.rung.isin([RUNGS[1].title, RUNGS[2].title])]
    wide = some.pivot(index=["data_seed", "seed"], columns="target", values="top1").dropna()
    if not {"motion", "pixels"} <= set(wide):
        return "motion minus pixels: not run"
    found = over_seeds((wide.motion - wide.pixels).tolist())
    return (
        f"motion minus pixels: {found.mean:.1f} [{found.low:.1f}, {found.high:.1f}], n = {found.n}"
    )


@mpl.rc_context(STYLE)
def draw(runs: pd.DataFrame) -> None:
    """Draw docs/features.png: accuracy of linear probes over compute, with a dot per run."""
    figure = blank(7.2, 3.6)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.09, right=0.68, top=0.95, bottom=0.14)
    runs = runs[runs.kind == "logistic"]
    pretrained = runs[runs.target != "none"]
    # Random weights took no compute, so they are drawn left of the first rung.
    left = pretrained.multiply_adds.min() / 2
    for target, of_target in runs.groupby("target", sort=False):
        place = of_target.multiply_adds.clip(lower=left)
        steps = of_target[of_target.varies == "steps"].groupby("multiply_adds").top1.mean()
        if target != "none":
            axes.plot(steps.index, steps, color=COLOURS[target], linewidth=1)
        for varies, some in of_target.groupby("varies", sort=False):
            axes.plot(
                place[some.index], some.top1, MARKERS[varies], color=COLOURS[target],
                markersize=4, alpha=0.8, linestyle="none",
            )  # fmt: skip
    known = pd.read_csv(drawn.DOCS / "features-controls.csv")
    for control, title in CONTROLS.items():
        height = known[known.control == control].top1.mean()
        axes.axhline(height, color="#1a1a1a", linewidth=0.8, linestyle=":")
        axes.text(1.02, height, title, transform=axes.get_yaxis_transform(), va="center", size=7)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.set_xlabel("Multiply-adds of pretraining (log scale)")
    axes.set_ylabel("Top-1 accuracy (%), 10 labels per class")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    colours = [axes.plot([], [], color=COLOURS[name], linewidth=3)[0] for name in TITLES]
    shapes = [axes.plot([], [], mark, color="#6e6e6e")[0] for mark in MARKERS.values()]
    names = [*TITLES.values(), *(f"More {name}" for name in ("steps", "width"))]
    names += ["Smaller patches", "More width and steps"]
    axes.legend(
        colours + shapes, names, frameon=False, fontsize=7, loc="lower left",
        bbox_to_anchor=(1.0, 0.0),
    )  # fmt: skip
    write(figure, drawn.DOCS / "features.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("plan", "train", "table"))
    args = parser.parse_args()
    if args.what == "plan":
        plan()
    elif args.what == "train":
        train()
    else:
        runs = probes()
        text = runs.round({"top1": 2}).to_csv(index=False, lineterminator="\n")
        atomic.write(drawn.DOCS / "features.csv", text)
        print(table(runs))
        print(differences(runs))
        draw(runs)


if __name__ == "__main__":
    main()
