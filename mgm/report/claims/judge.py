"""The claims of the papers' texts, judged:

by the numbers the paper's own tables quote, and by our runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite, nan, sqrt
from pathlib import Path

import pandas as pd

from mgm.paper.quoted import FOOTNOTES, reported
from mgm.paper.registry import SHARES, Registry
from mgm.report.cells import Row, paired, row_of
from mgm.report.claims.claim import CLAIMS, Claim, Condition, Key, LinearCombination, Quantity
from mgm.report.table_files import DASH, MINUS, comparable
from mgm.results import atomic
from mgm.results.result import RunStatus
from mgm.results.statistics import Estimate, holm, p_value

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
CONTRADICTED = "contradicted by published numbers"
DIFFERS = "differs from published numbers"
UNTESTED = "not tested at this scale"
ROUNDING = 0.1  # points: a table number this near to the claimed one differs by rounding alone
LEAST_SEEDS = 3  # below, no claim about the paper's experiment has a verdict
SUPPORTS, CONTRADICTS, SILENT = "supports", "contradicts", "has no number"
LISTED = 6  # numbers of which a largest or smallest is taken, shown one by one up to this many

Numbers = Callable[[LinearCombination], Estimate]  # the interval is empty for a quoted number


@dataclass(frozen=True)
class Verdict:
    """What came of a claim.

    `table` is what published numbers say: the paper's own tables, or datasets' lists. `verdict`
    weighs them first, then our runs, if those repeat the paper's experiment. `here` is what our
    runs show at their own scale.
    """

    claim: str
    source: str
    quoted: str
    ours: str
    verdict: str
    id: str
    table: str
    note: str
    run_ids: tuple[str, ...]
    here: str = ""


def judge(
    registry: Registry,
    collected: Mapping[str, Iterable[Row]],
    found: Mapping[str, RunStatus],
    quoted: Mapping[Key, float] | None = None,
    claims: Iterable[Claim] = CLAIMS,
) -> list[Verdict]:
    """Judge every claim, in the order of the text.

    Tables that contradict a claim decide it; one that is a rounding apart differs. Otherwise our
    runs do, at the paper's scale with at least three seeds, once all cells it needs are run: the
    claim holds when the interval of each of its numbers lies on the claimed side, fails when one
    lies on the other, and is undecided in between. Intervals are widened by Holm's method, so that
    the chance of any false verdict among all claims is 5 %. A method that nobody ran stands as the
    paper quotes it. At other scales a claim is not tested, and `here` says what the scale shows.

    Args:
        collected: as `mgm.report.cells.rows` gives it.
        found: the runs, for cells that stand in a figure alone.
        quoted: the tables' numbers; `reported()` by default.
    """
    full = comparable(registry.scale)
    numbers = reported() if quoted is None else quoted
    figures = [row_of(cell, found) for plot in registry.plots.values() for cell in plot.cells]
    rows = {
        row.key: row for row in (*figures, *(row for table in collected.values() for row in table))
    }
    judged = [_judge(claim, numbers, rows, full, registry.scale.name) for claim in claims]
    return _with_holm(judged)


def write_claims(reports: Path, verdicts: Iterable[Verdict]) -> Path:
    """`reports`/claims.csv."""
    lines = pd.DataFrame(map(asdict, verdicts)).assign(
        run_ids=lambda every: every.run_ids.str.join(" ")
    )
    return atomic.write(reports / "claims.csv", lines.to_csv(index=False, lineterminator="\n"))


def _with_holm(judged: Sequence[tuple[Verdict, float]]) -> list[Verdict]:
    """Turn decided claims back to undecided where Holm's method does not keep their decision.

    Each verdict comes with the largest p-value that its decision rests on; NaN where none.
    """
    tested = [place for place, (_, p) in enumerate(judged) if isfinite(p)]
    kept = dict(zip(tested, holm([judged[place][1] for place in tested]), strict=True))
    verdicts = []
    for place, (verdict, _) in enumerate(judged):
        if kept.get(place, True):
            verdicts.append(verdict)
        elif verdict.here:
            verdicts.append(replace(verdict, here=_here(UNDECIDED, verdict.here.split(":")[0])))
        else:
            verdicts.append(replace(verdict, verdict=UNDECIDED))
    return verdicts


def _here(answer: str, scale: str) -> str:
    words = {HOLDS: "so here", FAILS: "not so here", UNDECIDED: "undecided here"}
    return f"{scale}: {words[answer]}"


def table_says(claim: Claim, quoted: Mapping[Key, float]) -> str:
    """The tables' answer:

    none to another paper's claims, nor to numbers that stand in the text alone.
    """
    if claim.text_only or not quoted.keys() >= set(claim.cells):
        return SILENT
    numbers = partial(of_tables, quoted)
    holds = all(
        any(one.low <= evaluate(quantity, numbers).mean <= one.high for quantity in one.either)
        for one in claim.conditions
    )
    return SUPPORTS if holds else CONTRADICTS


def runs_say(claim: Claim, rows: Mapping[Key, Row], full: bool) -> tuple[str, float]:
    """Return the runs' answer, as `judge` describes it, and the p-value that it rests on.

    A claim that holds rests on its weakest condition, one that fails on its strongest refutation.
    Every cell of `rows` has an estimate. `full`: sizes count, too.
    """
    numbers = partial(of_runs, rows)
    answers = [
        [(_agrees(one, number, full), _p(one, number)) for number in _evaluated(one, numbers)]
        for one in claim.conditions
    ]
    held, failed = list[float](), list[float]()
    for either in answers:
        agreeing = [p for agrees, p in either if agrees]
        if agreeing:
            held.append(min(agreeing))
        elif all(agrees is False for agrees, _ in either):
            failed.append(max(p for _, p in either))
    if failed:
        return FAILS, min(failed)
    if len(held) < len(answers):
        return UNDECIDED, nan
    return HOLDS, max(held)


def _evaluated(condition: Condition, numbers: Numbers) -> list[Estimate]:
    return [evaluate(quantity, numbers) for quantity in condition.either]


def _p(condition: Condition, number: Estimate) -> float:
    """Return the two-sided p-value against the nearest bound of a condition.

    0 where the number has no spread, or the condition takes no side.
    """
    bounds = [
        one for one in (condition.above, condition.below) if one is not None and isfinite(one)
    ]
    if number.low == number.high or not bounds:
        return 0.0
    nearest = min(bounds, key=lambda bound: abs(number.mean - bound))
    moved = (number.mean - nearest, number.low - nearest, number.high - nearest)
    return p_value(Estimate(*moved, number.n))


def evaluate(quantity: Quantity, numbers: Numbers) -> Estimate:
    """The largest number of several has their largest bounds, so it is above a value when one of
    them is; the smallest, when all are.
    """
    if isinstance(quantity, LinearCombination):
        return numbers(quantity)
    pick = max if quantity.pick == "largest" else min
    return Estimate(*map(pick, zip(*(evaluate(one, numbers) for one in quantity.among))))


def of_tables(quoted: Mapping[Key, float], what: LinearCombination) -> Estimate:
    value = what.evaluate([quoted[key] for key in what.cells])
    return Estimate(value, value, value)


def of_runs(rows: Mapping[Key, Row], what: LinearCombination) -> Estimate:
    """Pair by seed where all cells share two seeds or more;

    else each cell's own interval moves the number, in quadrature.
    """
    cells = [rows[key] for key in what.cells]
    if (by_seed := paired(cells, what.evaluate)) and by_seed.n > 1:
        return by_seed
    numbers = [_of_cell(row) for row in cells]
    means = [number.mean for number in numbers]
    mean, down, up = what.evaluate(means), 0.0, 0.0
    for position, number in enumerate(numbers):
        if not number.has_interval:
            return Estimate(mean)
        ends = [
            what.evaluate([*means[:position], end, *means[position + 1 :]])
            for end in (number.low, number.high)
        ]
        down, up = down + (mean - min(ends)) ** 2, up + (max(ends) - mean) ** 2
    return Estimate(mean, mean - sqrt(down), mean + sqrt(up))


def _judge(
    claim: Claim, quoted: Mapping[Key, float], rows: Mapping[Key, Row], full: bool, scale: str
) -> tuple[Verdict, float]:
    used = {key: rows[key] for key in claim.cells if key in rows}
    run = any(row.status == "run" for row in used.values())
    for key in [
        key for key, row in used.items() if full and row.status == "quoted" and key in quoted
    ]:
        value = quoted[key]  # a method that nobody ran stands as quoted, without spread
        used[key] = replace(
            used[key], estimate=Estimate(value, value, value), values=(), status="run"
        )
    run = (
        run and len(used) == len(claim.cells) and all(row.status == "run" for row in used.values())
    )
    table = table_says(claim, quoted)
    has_numbers = all(key in quoted for key in claim.cells)
    of_cells = [one for one in claim.conditions if any(quantity.cells for quantity in one.either)]
    once = (
        "measured once, so without an interval" if any(map(_measured_once, used.values())) else ""
    )
    notes = [
        claim.note,
        *(FOOTNOTES.get(key, "") for key in claim.cells),
        *(row.remark for row in used.values()),
        once,
    ]
    verdict, here, p = NOT_RUN, "", nan
    if run:
        answer, p = runs_say(claim, used, full)
        verdict = answer if full and not _too_few(used.values()) else UNTESTED
        if verdict == UNTESTED:
            p = nan if _too_few(used.values()) else p
            here = f"{scale}: too few seeds" if _too_few(used.values()) else _here(answer, scale)
    if not claim.cells and table == SUPPORTS:
        verdict = HOLDS  # there is nothing to run
    if table == CONTRADICTS:
        verdict = DIFFERS if _by_rounding(claim, quoted) else CONTRADICTED
    return Verdict(
        claim.says,
        claim.source,
        id=claim.id,
        quoted=_show_all(claim.conditions, partial(of_tables, quoted)) if has_numbers else DASH,
        ours=_show_all(of_cells, partial(of_runs, used)) if run else DASH,
        table=table,
        verdict=verdict,
        note="; ".join(dict.fromkeys(filter(None, notes))),
        run_ids=tuple(dict.fromkeys(run_id for row in used.values() for run_id in row.run_ids)),
        here=here,
    ), nan if verdict in (CONTRADICTED, DIFFERS) else p


def _too_few(rows: Iterable[Row]) -> bool:
    """Tell whether a number rests on fewer than `LEAST_SEEDS` runs that differ by their seeds."""
    return any(
        row.run_ids and row.estimate.n < LEAST_SEEDS and not _measured_once(row)
        for row in rows
        if row.estimate is not None
    )


def _by_rounding(claim: Claim, quoted: Mapping[Key, float]) -> bool:
    """Tell whether the tables miss every condition by a rounding at most."""
    numbers = partial(of_tables, quoted)
    return all(
        any(
            one.low - ROUNDING <= number.mean <= one.high + ROUNDING
            for number in _evaluated(one, numbers)
        )
        for one in claim.conditions
    )


def _agrees(condition: Condition, number: Estimate, full: bool) -> bool | None:
    """The side the interval is on: True the claimed one, False another, None in between."""
    if (
        full
        and condition.size is not None
        and (number.high < condition.size if condition.size > 0 else number.low > condition.size)
    ):
        return False
    if condition.above is None or (condition.above < number.low and number.high < condition.below):
        return True
    return False if number.high <= condition.above or number.low >= condition.below else None


def _measured_once(row: Row) -> bool:
    return row.metric not in SHARES and row.estimate is not None and not row.estimate.has_interval


def _of_cell(row: Row) -> Estimate:
    """A cell that was run. What was measured once, over all videos, is taken as it is."""
    assert row.estimate is not None
    mean = row.estimate.mean
    return Estimate(mean, mean, mean) if _measured_once(row) else row.estimate


def _show_all(conditions: Iterable[Condition], numbers: Numbers) -> str:
    return "; ".join(
        " or ".join(_show(one, numbers) for one in condition.either) for condition in conditions
    )


def _show(quantity: Quantity, numbers: Numbers) -> str:
    """A number with its interval; those of which one is picked are listed when they are few."""
    if isinstance(quantity, LinearCombination):
        return _format(numbers(quantity), signed=len(quantity.weights) > 1, unit=quantity.unit)
    if len(quantity.among) <= LISTED:
        return ", ".join(_show(one, numbers) for one in quantity.among)
    return (
        f"{quantity.pick} of {len(quantity.among)}: "
        f"{_format(evaluate(quantity, numbers), signed=True)}"
    )


def _format(number: Estimate, signed: bool, unit: str = "") -> str:
    """Differences with their sign and one decimal, as the tables print;

    other numbers with two at most.
    """

    def text(value: float) -> str:
        return (f"{value:+.1f}" if signed else f"{round(value, 2):g}").replace("-", MINUS)

    shown = text(number.mean)
    if number.low != number.high:
        shown += (
            f" [{text(number.low)}, {text(number.high)}]"
            if number.has_interval
            else " (no interval)"
        )
    return f"{shown} {unit}".strip()
