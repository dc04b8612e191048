"""The page's first screen: what was run and on what, how it compares, what may be concluded, what it cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mgm.experiments.registry import Registry
from mgm.experiments.scales import OWN
from mgm.report.cells import Row, commit_of, gain
from mgm.report.claims.check import NOT_RUN, Verdict
from mgm.report.page.runs import VERBS, day, duration, in_order, label
from mgm.report.statistics import Estimate, over_seeds
from mgm.report.tables import comparable, number, promise_of
from mgm.runs.result import RunStatus
from mgm.spec import Spec

BASE = "No pretraining"  # the row other rows' gain is measured from, where a table has one
OURS = "MGM (Dense)"  # the row of Table 4e that the paper is about
TROUBLES = 8  # listed; the rest stands with the runs


def overview(
    registry: Registry, found: Mapping[str, RunStatus], rows: Mapping[str, Sequence[Row]], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    results = [run.result for run in found.values() if run.result is not None]
    states = Counter(run.state for run in found.values() if run.state != "run")
    verbs: Counter[str] = Counter(spec.verb for spec in registry.specs.values())
    troubles = [
        {"run_id": run_id, "state": found[run_id].state, "why": found[run_id].why}
        for state in ("altered", "failed", "running", "not run")
        for run_id in registry.specs
        if found[run_id].state == state and (state != "not run" or found[run_id].why)
    ]
    return {
        "done": len(results),
        "total": max(len(registry.specs), 1),
        "kinds": ", ".join(f"{verbs[verb]} {verb}" for verb in VERBS if verbs[verb]),
        "others": ", ".join(f"{count} {state}" for state, count in states.items()),
        "facts": _facts(results),
        "compares": [*_beside_the_paper(registry, rows), *_pretraining(rows), *_masks(registry, rows)],
        "concludes": _conclusions(registry, rows, verdicts),
        "troubles": troubles[:TROUBLES],
        "more_troubles": len(troubles[TROUBLES:]),
    }


def cost(registry: Registry, found: Mapping[str, RunStatus]) -> list[list[tuple[str, str, int, int, float]]]:
    """(name, address, runs, finished runs, seconds), in three groups: of all, of each verb, and of each table and figure with all that its
    runs start from; what several share counts in each."""
    groups: list[Mapping[tuple[str, str], Sequence[Spec]]] = [
        {("All", "#runs"): list(registry.specs.values())},
        {(title, f"#runs-{verb}"): [spec for spec in registry.specs.values() if spec.verb == verb] for verb, title in VERBS.items()},
        {(table.label, f"#table-{name}"): registry.runs_of(f"table{name}") for name, table in registry.tables.items()}
        | {(label(name), f"#figure-{name}"): registry.runs_of(f"figure{name}") for name in in_order(registry)},
    ]

    def line(name: str, address: str, specs: Sequence[Spec]) -> tuple[str, str, int, int, float]:
        done = [result for spec in specs if (result := found[spec.run_id].result)]
        return name, address, len(specs), len(done), sum(result["wall_s"] for result in done)

    return [[line(*which, specs) for which, specs in group.items() if specs] for group in groups]


def mean_gain(better: Sequence[Row], base: Row) -> Estimate | None:
    """Seed by seed the mean over rows, minus the base; only over seeds that every row has."""
    seeds = [values for values in zip(*(row.values for row in better), base.values) if None not in values]
    return over_seeds([sum(values[:-1]) / len(better) - values[-1] for values in seeds]) if seeds else None


def _facts(results: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(label, lines): what all results share is said once, what differs once each."""
    data = sorted({tuple(result["data"][name] for name in ("dataset", "classes", "train", "test", "note", "digest")) for result in results})
    devices = Counter(f"{result['device']}, {result['threads']} thread{'s' * (result['threads'] != 1)}" for result in results)
    versions = {", ".join(f"{name} {result['versions'].get(name, '?')}" for name in ("python", "torch", "av")) for result in results}
    commits = Counter(commit_of(result) for result in results)
    last = max((str(result["finished"]) for result in results), default="")
    spent = sum(result["wall_s"] for result in results)
    sets = [
        _line(
            f"{'own videos' if dataset == OWN else dataset}: {classes} classes",
            f"{train} training and {test} test videos"
            + (f"; {note}; digest {digest[:12] or 'none'}" if len(data) <= 2 else ""),  # else it stands with each run alone
        )
        for dataset, classes, train, test, note, digest in data
    ]
    built = [
        _line(commit[:12], f"{count} run{'s' * (count > 1)}" + ", with uncommitted changes" * commit.endswith("-dirty"), code=True)
        for commit, count in commits.most_common()
    ]
    return [
        ("Data", sets),
        ("Machine", [_line(device, "; ".join(sorted(versions))) for device in devices]),
        ("Commit", built),
        ("Computing time", [_line(duration(spent), f"all runs added up; the last finished {day(last)}")] if results else []),
    ]


def _line(text: str, more: str, code: bool = False) -> dict[str, Any]:
    return {"text": text, "more": more, "code": code}


def _beside_the_paper(registry: Registry, rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    """(sentence, address of what it rests on), as all of these."""
    if registry.scale.own_videos:
        return [("With the paper: not at all, for it has no numbers for own videos.", "")]
    if not comparable(registry.scale):
        other = f"for scale {registry.scale.name} trains other models on other data; its numbers stand beside ours for orientation"
        return [(f"With the paper: not at all, {other}, and no difference is shown.", "")]
    known = [
        (row.paper, row.estimate.mean, row.estimate.low <= row.paper <= row.estimate.high)
        for several in rows.values()
        for row in several
        if row.metric == "top1"
        and row.paper is not None
        and row.estimate
        and row.estimate.low is not None
        and row.estimate.high is not None
    ]
    if not known:
        return [("With the paper: no cell with a number of the paper's is run yet.", "")]
    inside, mean = sum(within for *_, within in known), sum(ours - paper for paper, ours, _ in known) / len(known)
    told = (
        f"its number is inside our 95 % interval in {inside} of {len(known)} cells; ours is {number(mean, True)} points from it on average"
    )
    return [(f"With the paper: {told}.", "")]


def _pretraining(rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    said = []
    for name, several in rows.items():
        for base in (row for row in several if row.row == BASE):
            others = [row for row in several if row.column == base.column and row.row != BASE]
            if one := mean_gain(others, base):
                said.append(
                    (f"With no pretraining, {base.column}: the {len(others)} masks of Table {name} add {_points(one)}{_noise(one)}.", name)
                )
    return said


def _masks(registry: Registry, rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    """Our mask against each of the others, paired by seed."""
    said = []
    masks = [name for name, table in registry.tables.items() if table.compares_masks]
    for table, ours in ((name, row) for name in masks for row in rows[name] if row.row == OURS):
        others = [row for row in rows[table] if row.column == ours.column and row.row not in (OURS, BASE)]
        gains = [(row.row, one) for row in others if (one := gain(ours, row)) and one.low is not None and one.high is not None]
        above = [name for name, one in gains if one.low is not None and one.low > 0]
        below = [name for name, one in gains if one.high is not None and one.high < 0]
        if gains:
            within = len(gains) - len(above) - len(below)
            parts = [f"above {', '.join(above)}"] * bool(above) + [f"below {', '.join(below)}"] * bool(below)
            parts += [f"within noise of {within} of {len(gains)}"] * bool(within)
            said.append((f"{OURS} with the other masks, {ours.column}: {'; '.join(parts)} (differences paired by seed).", table))
    return said


def _conclusions(registry: Registry, rows: Mapping[str, Sequence[Row]], verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    said = [(promise_of(registry.scale), "")]
    counted = [row.estimate for several in rows.values() for row in several if row.estimate and row.estimate.low is not None]
    if single := sum(one.n == 1 for one in counted):
        told = f"{single} of {len(counted)} numbers rest on one seed: their intervals are over test videos and know nothing of seeds"
        said.append((f"{told}, so they cannot tell two methods apart.", ""))
    judged = Counter(verdict.verdict for verdict in verdicts)
    if decided := {name: count for name, count in judged.most_common() if name != NOT_RUN}:
        told = ", ".join(f"{count} {name}" for name, count in decided.items())
        said.append((f"Of {len(verdicts)} claims of the papers' texts: {told}; {judged[NOT_RUN]} not run.", "claims"))
    return said


def _points(one: Estimate) -> str:
    bounds = f" [{number(one.low, True)}, {number(one.high, True)}]" if one.low is not None else ""
    return f"{number(one.mean, True)} points{bounds} on average"


def _noise(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return ", from one seed"
    return "" if one.low > 0 or one.high < 0 else ", within noise"
