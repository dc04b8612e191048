"""The claims of the papers' texts, judged:

by the numbers the paper's own tables quote, and by our runs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import sqrt
from pathlib import Path

import pandas as pd

from mgm.paper.quoted import FOOTNOTES, reported
from mgm.paper.registry import SHARES, Registry
from mgm.report.cells import Row, paired, row_of
from mgm.report.claims.claim import Claim, Condition, Key, LinearCombination, Quantity
from mgm.report.claims.paper import CLAIMS
from mgm.report.statistics import Estimate
from mgm.report.tables import DASH, MINUS, comparable
from mgm.results import files as atomic
from mgm.results.result import RunStatus

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
CONTRADICTED = "contradicted by the paper's own table"
SUPPORTS, CONTRADICTS, SILENT = "supports", "contradicts", "has no number"
LISTED = 6  # numbers of which a largest or smallest is taken, shown one by one up to this many

Numbers = Callable[[LinearCombination], Estimate]  # the interval is empty for a quoted number


@dataclass(frozen=True)
class Verdict:
    """`table` is what the paper's own tables say of the claim;

    `verdict` weighs them first, then our runs.
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


def judge(
    registry: Registry,
    collected: Mapping[str, Iterable[Row]],
    found: Mapping[str, RunStatus],
    quoted: Mapping[Key, float] | None = None,
    claims: Iterable[Claim] = CLAIMS,
) -> list[Verdict]:
    """Judge every claim, in the order of the text.

    Tables that contradict a claim decide it. Otherwise our runs do, once all cells it needs are
    run: it holds when the 95 % interval of each of its numbers lies on the claimed side, fails when
    one lies on the other, and is undecided in between. How large a difference is counts at the
    paper's scale alone, where a method that nobody ran stands as the paper quotes it.

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
    return [_judge(claim, numbers, rows, full) for claim in claims]


def write_claims(reports: Path, verdicts: Iterable[Verdict]) -> Path:
    """`reports`/claims.csv."""
    lines = pd.DataFrame(map(asdict, verdicts)).assign(
        run_ids=lambda every: every.run_ids.str.join(" ")
    )
    return atomic.write(reports / "claims.csv", lines.to_csv(index=False, lineterminator="\n"))


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


def runs_say(claim: Claim, rows: Mapping[Key, Row], full: bool) -> str:
    """The runs' answer, as `judge` describes it.

    Every cell of `rows` has an estimate. `full`: sizes count, too.
    """
    numbers = partial(of_runs, rows)
    answers = [
        [_agrees(one, evaluate(quantity, numbers), full) for quantity in one.either]
        for one in claim.conditions
    ]
    conditions = [
        True if True in either else None if None in either else False for either in answers
    ]
    return FAILS if False in conditions else UNDECIDED if None in conditions else HOLDS


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
    claim: Claim, quoted: Mapping[Key, float], rows: Mapping[Key, Row], full: bool
) -> Verdict:
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
    return Verdict(
        claim.says,
        claim.source,
        id=claim.id,
        quoted=_show_all(claim.conditions, partial(of_tables, quoted)) if has_numbers else DASH,
        ours=_show_all(of_cells, partial(of_runs, used)) if run else DASH,
        table=table,
        verdict=CONTRADICTED
        if table == CONTRADICTS
        else runs_say(claim, used, full)
        if run
        else NOT_RUN,
        note="; ".join(dict.fromkeys(filter(None, notes))),
        run_ids=tuple(dict.fromkeys(run_id for row in used.values() for run_id in row.run_ids)),
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
    return f"{quantity.pick} of {len(quantity.among)}: {_format(evaluate(quantity, numbers), signed=True)}"


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
