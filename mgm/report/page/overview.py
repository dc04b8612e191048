"""Summaries on the page: finding, comparisons, conclusions and cost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from mgm.report.cells import FilledCell, commit_of, frame, gain, mean_gain
from mgm.report.claims.judge import NOT_RUN, Verdict
from mgm.report.page.runs import NOTES, STAGES
from mgm.report.tables import TableView
from mgm.report.words import caveat_of, comparable, number
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, holm, p_value
from mgm.spec import Data, Spec, data_name
from mgm.study.registry import NO_MODEL, Registry, Table, label_of


def overview(
    registry: Registry,
    statuses: Mapping[str, RunStatus],
    views: Mapping[str, TableView],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    """Return counts of runs, their provenance, comparisons, conclusions and missing runs."""
    results = [run.result for run in statuses.values() if run.result is not None]
    data = {
        (
            data_name(Data(dataset=facts["dataset"], digest=facts["digest"]), facts["note"]),
            *(facts[name] for name in ("classes", "train", "test", "note", "digest")),
        )
        for facts in (result["data"] for result in results)
    }
    libraries = ("python", "torch", "av")
    versions = {
        ", ".join(f"{name} {run['versions'].get(name, '?')}" for name in libraries)
        for run in results
    }
    return {
        "done": len(results),
        "total": max(len(registry.specs), 1),
        "stages": Counter(spec.stage for spec in registry.specs.values()),
        "states": Counter(run.state for run in statuses.values() if run.state != "run"),
        "data": sorted(data),
        "devices": list(dict.fromkeys((result["device"], result["threads"]) for result in results)),
        "versions": sorted(versions),
        "commits": Counter(commit_of(result) for result in results).most_common(),
        "spent": sum(result["wall_s"] for result in results),
        "last": max((str(result["finished"]) for result in results), default=""),
        "compares": [
            *_with_the_paper(registry, views.values()),
            *_pretraining(registry, views.values()),
            *_masks(registry, views.values()),
        ],
        "concludes": _conclusions(registry, statuses, views.values(), verdicts),
        "troubles": [
            run_id
            for state in ("altered", "failed", "running", "not run")
            for run_id in registry.specs
            if statuses[run_id].state == state and (state != "not run" or statuses[run_id].why)
        ],
    }


def caveat(registry: Registry, statuses: Mapping[str, RunStatus]) -> str:
    """Return the limits of the numbers: the scale's caveat, or the size of the user's data."""
    scale = registry.scale
    if not scale.own_videos:
        return caveat_of(scale)
    results = [run.result for run in statuses.values() if run.result is not None]
    # Figures may show larger clips than those of training.
    trained = [spec for spec in registry.specs.values() if spec.stage in NOTES]
    frames = max(spec.clips.frames for spec in trained)
    size = max(spec.clips.size for spec in trained)
    width = max(spec.model.width for spec in trained)
    small = (
        f"The models are small ({width} wide, clips of {frames} x {size} x {size}). The order of "
        "the masks may differ for larger ones."
    )
    if not results:
        return f"Your own videos. {small}"
    data = results[0]["data"]
    step = f"{100 / data['test']:.1f}" if data["test"] else "?"
    return (
        f"{data['classes']} classes, {data['train']} training and {data['test']} test videos. One "
        f"test video is {step} points. Split: {data['note']}. {small}"
    )


def finding(registry: Registry, views: Mapping[str, TableView], drawn: Set[str]) -> dict[str, Any]:
    """Return the main finding as a sentence, with its table, cell and figure.

    The table is the first one that compares a method of ours with others. The finding is about its
    linear probe if there is one, else about finetuning. All values are empty before the first run.
    """
    nothing = {"sentence": "", "table": "", "cell": None, "figure": ""}
    table = next((table for table in registry.tables.values() if table.ours), None)
    known = [cell for cell in views[table.name].cells if cell.estimate] if table else []
    ours = [cell for cell in known if table and cell.row == table.ours]
    if table is None or not ours:
        return nothing
    mine = min(ours, key=lambda cell: ("probe" not in cell.column, ours.index(cell)))
    assert mine.estimate is not None
    others = {cell.row: cell for cell in known if cell.column == mine.column and cell is not mine}
    gains = {
        name: difference
        for name, cell in others.items()
        if (name == table.base or name not in table.groups) and (difference := gain(mine, cell))
    }
    base = [name for name in gains if name == table.base]
    masks = sorted((name for name in gains if name not in base), key=lambda name: gains[name].mean)
    parts = [f"{_difference(gains[name])} {name}" for name in (*base, *masks[:1])]
    if len(masks) > 1:
        parts[-1] += f", the best of {len(masks)} other masks"
    seeds = f"mean of {mine.estimate.n} seeds" if mine.estimate.n > 1 else "one seed"
    where = registry.scale.named(mine.column)
    sentence = (
        f"{where}: {mine.row} reaches {number(mine.estimate.mean)} % top-1 accuracy ({seeds})"
    )
    sentence += f", {' and '.join(parts)}." if parts else "."
    if any(gains[name].has_interval for name in (*base, *masks[:1])):
        sentence += " Brackets: 95 % confidence intervals, paired by seed."
    free = {
        name: cell.estimate.mean
        for name, cell in others.items()
        if cell.estimate and table.groups.get(name) == NO_MODEL
    }
    if free:
        best = max(free, key=free.__getitem__)
        sentence += f" Without a model: {number(free[best])} % ({best})."
    plots = (name for name, plot in registry.plots.items() if plot.reference == table.ours)
    return {
        "sentence": sentence[0].upper() + sentence[1:],
        "table": table.name,
        "cell": mine,
        "figure": next((name for name in plots if name in drawn), ""),
    }


def _difference(difference: Estimate) -> str:
    """Format a paired difference as size, interval, and "above" or "below"."""
    word = "above" if difference.mean >= 0 else "below"
    size = abs(difference.mean)
    if not difference.has_interval:
        return "level with" if number(size) == "0.0" else f"{number(size)} points {word}"
    ends = (difference.low, difference.high)
    low, high = ends if difference.mean >= 0 else (-ends[1], -ends[0])
    noise = "(within noise) " if low <= 0 <= high else ""
    return f"{number(size)} points [{number(low)}, {number(high)}] {noise}{word}"


def cost(
    registry: Registry, statuses: Mapping[str, RunStatus]
) -> list[list[tuple[str, str, int, int, float]]]:
    """Return run counts and computing times: in total, per stage, and per table or figure.

    Returns:
        Rows of (name, address, runs, finished runs, seconds). Tables and figures count their runs
        and all runs that these start from. Shared runs count in each.
    """
    specs = registry.specs.values()
    groups: list[list[tuple[str, str, Sequence[Spec]]]] = [
        [("All", "#runs", list(specs))],
        [
            (title, f"#runs-{stage}", [spec for spec in specs if spec.stage == stage])
            for stage, title in STAGES.items()
        ],
        [
            (label_of(kind + name), f"#{kind}-{name}", registry.runs_of(kind + name))
            for kind, names in (("table", registry.tables), ("figure", registry.figure_names))
            for name in names
        ],
    ]
    rows: list[list[tuple[str, str, int, int, float]]] = [[] for _ in groups]
    for lines, group in zip(rows, groups):
        for title, address, runs in group:
            times = [result["wall_s"] for run in runs if (result := statuses[run.run_id].result)]
            if runs:
                lines.append((title, address, len(runs), len(times), sum(times)))
    return rows


def _with_the_paper(registry: Registry, views: Iterable[TableView]) -> list[tuple[str, str]]:
    """Return sentences with addresses of their tables, as do the functions below."""
    if registry.scale.own_videos:
        return [("The paper: it has no numbers for your videos.", "")]
    if not comparable(registry.scale):
        other = "trains other models on other data, so no difference is shown"
        return [(f"The paper: scale {registry.scale.name} {other}.", "")]
    cells = frame(cell for view in views for cell in view.cells)
    known = cells[cells.metric == "top1"].dropna(subset=["paper", "ci_low", "ci_high"])
    if known.empty:
        return [("The paper: no cell with a number in the paper is run yet.", "")]
    inside, mean = known.paper.between(known.ci_low, known.ci_high).sum(), known.difference.mean()
    text = (
        f"The paper: its number is inside our 95 % interval in {inside} of {len(known)} cells. The "
        f"mean of ours minus the paper's is {number(mean, True)} points."
    )
    return [(text, "")]


def _own_cells(
    views: Iterable[TableView], which: str
) -> Iterator[tuple[Table, FilledCell, list[FilledCell]]]:
    """Yield each table, a cell of the row in its field `which`, and the cell's other masks.

    These are the other rows of the column that are pretrained with a mask.
    """
    for view in views:
        for own in (cell for cell in view.cells if cell.row == getattr(view.table, which)):
            column = [cell for cell in view.cells if cell.column == own.column]
            others = [cell for cell in column if cell.row not in (own.row, view.table.base)]
            yield view.table, own, [cell for cell in others if cell.metric == own.metric]


def _pretraining(registry: Registry, views: Iterable[TableView]) -> list[tuple[str, str]]:
    """Compare the masks' mean with no pretraining, paired by seed."""
    sentences = []
    for table, base, masks in _own_cells(views, "base"):
        # A mask that is not run, such as a new one, leaves the others' mean as it is.
        others = [cell for cell in masks if cell.row not in table.groups and cell.estimate]
        if others and (difference := mean_gain(others, base)):
            gain_text = f"{number(difference.mean, True)} points"
            if difference.has_interval:
                gain_text += f" [{number(difference.low, True)}, {number(difference.high, True)}]"
                if difference.low <= 0 <= difference.high:
                    gain_text += ", within noise"
            else:
                gain_text += ", from one seed"
            where = registry.scale.named(base.column)
            text = f"the mean gain of the {len(others)} masks of {table.label} is {gain_text}"
            sentences.append((f"No pretraining, {where}: {text}.", f"table-{table.name}"))
    return sentences


def _masks(registry: Registry, views: Iterable[TableView]) -> list[tuple[str, str]]:
    """Compare our mask with each of the others, paired by seed."""
    sentences = []
    for table, ours, masks in _own_cells(views, "ours"):
        gains = {
            cell.row: difference
            for cell in masks
            if (difference := gain(ours, cell)) and difference.has_interval
        }
        if not gains:
            continue
        passed = holm([p_value(difference) for difference in gains.values()])
        means = {name: gains[name].mean for name, passes in zip(gains, passed) if passes}
        sides = {
            "above": [name for name, mean in means.items() if mean > 0],
            "below": [name for name, mean in means.items() if mean < 0],
        }
        parts = [f"{side} {', '.join(names)}" for side, names in sides.items() if names]
        if within := len(gains) - sum(map(len, sides.values())):
            parts.append(f"within noise of {within} of {len(gains)}")
        text = f"{registry.scale.named(ours.column)}: {ours.row} is {'; '.join(parts)}"
        sentence = f"Other masks, {text} (paired by seed, Holm's method)."
        sentences.append((sentence, f"table-{table.name}"))
    return sentences


def _conclusions(
    registry: Registry,
    statuses: Mapping[str, RunStatus],
    views: Iterable[TableView],
    verdicts: Sequence[Verdict],
) -> list[tuple[str, str]]:
    """Return sentences on the limits of the numbers, and the count of each verdict."""
    sentences = [(caveat(registry, statuses), "")]
    estimates = [cell.estimate for view in views for cell in view.cells if cell.estimate]
    counted = [estimate.n for estimate in estimates if estimate.has_interval]
    if single := counted.count(1):
        text = (
            f"{single} of {len(counted)} numbers rest on one seed. Their intervals are over test "
            "videos and leave out the variation between seeds, so they cannot separate two methods."
        )
        sentences.append((text, ""))
    judged = Counter(verdict.verdict for verdict in verdicts)
    if judged.keys() - {NOT_RUN}:
        text = ", ".join(f"{name} ({count})" for name, count in judged.most_common())
        sentences.append((f"{len(verdicts)} claims of the papers' texts: {text}.", "claims"))
    return sentences
