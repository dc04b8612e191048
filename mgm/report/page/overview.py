"""The page's first screen:

what was run and on what, how it compares, what may be concluded, what it cost.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mgm.paper.registry import Registry, label_of
from mgm.report.cells import Row, commit_of, frame, gain, mean_gain
from mgm.report.claims.check import NOT_RUN, Verdict
from mgm.report.page.runs import VERBS
from mgm.report.tables import caveat_of, comparable, number
from mgm.results.result import RunStatus
from mgm.spec import Spec


def overview(
    registry: Registry,
    found: Mapping[str, RunStatus],
    rows: Mapping[str, Sequence[Row]],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    results = [run.result for run in found.values() if run.result is not None]
    data = {
        tuple(
            result["data"][name]
            for name in ("dataset", "classes", "train", "test", "note", "digest")
        )
        for result in results
    }
    versions = {
        ", ".join(
            f"{name} {result['versions'].get(name, '?')}" for name in ("python", "torch", "av")
        )
        for result in results
    }
    return {
        "done": len(results),
        "total": max(len(registry.specs), 1),
        "verbs": Counter(spec.verb for spec in registry.specs.values()),
        "states": Counter(run.state for run in found.values() if run.state != "run"),
        "data": sorted(data),
        "devices": list(dict.fromkeys((result["device"], result["threads"]) for result in results)),
        "versions": sorted(versions),
        "commits": Counter(commit_of(result) for result in results).most_common(),
        "spent": sum(result["wall_s"] for result in results),
        "last": max((str(result["finished"]) for result in results), default=""),
        "compares": [
            *_beside_the_paper(registry, rows),
            *_pretraining(registry, rows),
            *_masks(registry, rows),
        ],
        "concludes": _conclusions(registry, rows, verdicts),
        "troubles": [
            run_id
            for state in ("altered", "failed", "running", "not run")
            for run_id in registry.specs
            if found[run_id].state == state and (state != "not run" or found[run_id].why)
        ],
    }


def cost(
    registry: Registry, found: Mapping[str, RunStatus]
) -> list[list[tuple[str, str, int, int, float]]]:
    """(name, address, runs, finished runs, seconds), in three groups: of all, of each verb, and of
    each table and figure with all that its runs start from; what several share counts in each."""
    groups: list[Mapping[tuple[str, str], Sequence[Spec]]] = [
        {("All", "#runs"): list(registry.specs.values())},
        {
            (title, f"#runs-{verb}"): [
                spec for spec in registry.specs.values() if spec.verb == verb
            ]
            for verb, title in VERBS.items()
        },
        {
            (table.label, f"#table-{name}"): registry.runs_of(f"table{name}")
            for name, table in registry.tables.items()
        }
        | {
            (label_of(f"figure{name}"), f"#figure-{name}"): registry.runs_of(f"figure{name}")
            for name in registry.figure_names
        },
    ]

    def line(name: str, address: str, specs: Sequence[Spec]) -> tuple[str, str, int, int, float]:
        done = [result for spec in specs if (result := found[spec.run_id].result)]
        return name, address, len(specs), len(done), sum(result["wall_s"] for result in done)

    return [[line(*which, specs) for which, specs in group.items() if specs] for group in groups]


def _beside_the_paper(
    registry: Registry, rows: Mapping[str, Sequence[Row]]
) -> list[tuple[str, str]]:
    """(sentence, address of what it rests on), as all of these."""
    if registry.scale.own_videos:
        return [("With the paper: not at all, for it has no numbers for own videos.", "")]
    if not comparable(registry.scale):
        other = f"for scale {registry.scale.name} trains other models on other data; its numbers stand beside ours for orientation"
        return [(f"With the paper: not at all, {other}, and no difference is shown.", "")]
    cells = frame(row for several in rows.values() for row in several)
    known = cells[cells.metric == "top1"].dropna(subset=["paper", "ci_low", "ci_high"])
    if known.empty:
        return [("With the paper: no cell with a number of the paper's is run yet.", "")]
    inside, mean = known.paper.between(known.ci_low, known.ci_high).sum(), known.difference.mean()
    text = f"its number is inside our 95 % interval in {inside} of {len(known)} cells; ours is {number(mean, True)} points from it"
    return [(f"With the paper: {text} on average.", "")]


def _pretraining(registry: Registry, rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    said = []
    for table, base in (
        (table, row)
        for name, table in registry.tables.items()
        for row in rows[name]
        if row.row == table.base
    ):
        others = [
            row
            for row in rows[table.name]
            if row.column == base.column and row is not base and row.row not in table.groups
        ]
        if one := mean_gain(others, base):
            bounds = (
                f" [{number(one.low, True)}, {number(one.high, True)}]" if one.has_interval else ""
            )
            noise = (
                ", from one seed"
                if not one.has_interval
                else ", within noise"
                if one.low <= 0 <= one.high
                else ""
            )
            text = f"the {len(others)} masks of {table.label} add {number(one.mean, True)} points{bounds} on average{noise}"
            said.append((f"With no pretraining, {base.column}: {text}.", f"table-{table.name}"))
    return said


def _masks(registry: Registry, rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    """Our mask against each of the others, paired by seed."""
    said = []
    for table, ours in (
        (table, row)
        for name, table in registry.tables.items()
        for row in rows[name]
        if row.row == table.ours
    ):
        others = [
            row
            for row in rows[table.name]
            if row.column == ours.column and row.row not in (table.ours, table.base)
        ]
        gains = [(row.row, one) for row in others if (one := gain(ours, row)) and one.has_interval]
        above = [name for name, one in gains if one.low > 0]
        below = [name for name, one in gains if one.high < 0]
        if gains:
            within = len(gains) - len(above) - len(below)
            parts = [f"above {', '.join(above)}"] * bool(above) + [
                f"below {', '.join(below)}"
            ] * bool(below)
            parts += [f"within noise of {within} of {len(gains)}"] * bool(within)
            text = f"{ours.row} with the other masks, {ours.column}: {'; '.join(parts)} (differences paired by seed)."
            said.append((text, f"table-{table.name}"))
    return said


def _conclusions(
    registry: Registry, rows: Mapping[str, Sequence[Row]], verdicts: Sequence[Verdict]
) -> list[tuple[str, str]]:
    said = [(caveat_of(registry.scale), "")]
    counted = [
        row.estimate
        for several in rows.values()
        for row in several
        if row.estimate and row.estimate.has_interval
    ]
    if single := sum(one.n == 1 for one in counted):
        text = f"{single} of {len(counted)} numbers rest on one seed: their intervals are over test videos and know nothing of seeds"
        said.append((f"{text}, so they cannot tell two methods apart.", ""))
    judged = Counter(verdict.verdict for verdict in verdicts)
    if decided := {name: count for name, count in judged.most_common() if name != NOT_RUN}:
        text = ", ".join(f"{count} {name}" for name, count in decided.items())
        said.append(
            (
                f"Of {len(verdicts)} claims of the papers' texts: {text}; {judged[NOT_RUN]} not run.",
                "claims",
            )
        )
    return said
