"""Verdicts on the papers' claims, from the papers' own tables and from our runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf, isfinite, nan
from pathlib import Path

import pandas as pd

from mgm.report.cells import FilledCell, Key, paired, unpaired
from mgm.report.claims.claim import CLAIMS, Claim, Condition, LinearCombination, Quantity
from mgm.report.words import DASH, MINUS, comparable
from mgm.results import atomic
from mgm.results.statistics import Estimate, holm, p_value
from mgm.study.quoted import FOOTNOTES, reported
from mgm.study.registry import SHARES, Registry

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
CONTRADICTED = "contradicted by published numbers"
MISCOUNTED = "contradicted by our count of operations"
DIFFERS = "differs from published numbers"
UNTESTED = "not tested at this scale"
# Points. A table number that is nearer to the claimed one differs only by rounding.
ROUNDING = 0.1
# Fewest seeds for a verdict on the paper's experiment.
LEAST_SEEDS = 3
SUPPORTS, CONTRADICTS, SILENT = "supports", "contradicts", "has no number"
# A largest or smallest of up to this many numbers is shown with all of them.
LISTED = 6

# Looks up a number. A quoted number has an empty interval.
Numbers = Callable[[LinearCombination], Estimate]


@dataclass(frozen=True)
class Verdict:
    """Verdict on one claim.

    Attributes:
        table: answer of published numbers: the paper's own tables, or lists of datasets.
        verdict: from the published numbers, else from our runs if they repeat the experiment.
        here: answer of our runs at a smaller scale.
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
    cells: Mapping[Key, FilledCell],
    quoted: Mapping[Key, float] | None = None,
    claims: Iterable[Claim] = CLAIMS,
) -> list[Verdict]:
    """Judge every claim, in the order of the text.

    The published tables go first. If they contradict a claim, that is its verdict. If they differ
    only by rounding, the verdict says so. Otherwise our runs decide, if they repeat the paper's
    experiment with at least three seeds and all needed cells are run. A claim holds if the interval
    of each of its numbers is on the claimed side. It fails if one interval is on the other side,
    and else it is undecided. Holm's method widens the intervals, so the chance of any false verdict
    is 5 %. Methods that are not run have the paper's numbers. At other scales no claim is tested,
    and `here` has what our runs show.

    Args:
        cells: those of all tables and figures, as `mgm.report.cells.fill_all` returns them.
        quoted: the tables' numbers; `reported()` by default.
    """
    full = comparable(registry.scale)
    numbers = reported() if quoted is None else quoted
    judged = [_judge(claim, numbers, cells, full, registry.scale.name) for claim in claims]
    return _with_holm(judged)


def write_claims(reports: Path, verdicts: Iterable[Verdict]) -> Path:
    """Write `reports`/claims.csv and return its path."""
    lines = pd.DataFrame(map(asdict, verdicts)).assign(
        run_ids=lambda every: every.run_ids.str.join(" ")
    )
    return atomic.write(reports / "claims.csv", lines.to_csv(index=False, lineterminator="\n"))


def _with_holm(judged: Sequence[tuple[Verdict, float]]) -> list[Verdict]:
    """Make each claim undecided if its decision does not pass Holm's method.

    Args:
        judged: verdicts, each with the largest p-value of its decision, or NaN.
    """
    tested = [verdict for verdict, p in judged if isfinite(p)]
    passes = holm([p for _, p in judged if isfinite(p)])
    doubtful = {verdict.id for verdict, kept in zip(tested, passes, strict=True) if not kept}
    return [_undecided(verdict) if verdict.id in doubtful else verdict for verdict, _ in judged]


def _undecided(verdict: Verdict) -> Verdict:
    if verdict.here:
        return replace(verdict, here=_here(UNDECIDED, verdict.here.split(":")[0]))
    return replace(verdict, verdict=UNDECIDED)


def _here(answer: str, scale: str) -> str:
    return f"{scale}: {answer} here"


def table_says(claim: Claim, quoted: Mapping[Key, float]) -> str:
    """Return the tables' answer to a claim. Numbers that only the text has get no answer."""
    if claim.text_only or not quoted.keys() >= set(claim.cells):
        return SILENT
    return SUPPORTS if _holds(claim, quoted) else CONTRADICTS


def runs_say(claim: Claim, rows: Mapping[Key, FilledCell], full: bool) -> tuple[str, float]:
    """Return our runs' answer to a claim, and its p-value.

    A claim that holds has the p-value of its weakest condition. A claim that fails has the p-value
    of its strongest refutation.

    Args:
        rows: cells that all have an estimate.
        full: also test the claimed sizes.
    """
    numbers = partial(of_runs, rows)
    held, failed = list[float](), list[float]()
    for condition in claim.conditions:
        numbers_of = _evaluated(condition, numbers)
        answers = [_agrees(condition, number, full) for number in numbers_of]
        p_values = [_p(condition, number) for number in numbers_of]
        if any(answers):
            held.append(min(p for p, agrees in zip(p_values, answers) if agrees))
        elif None not in answers:
            failed.append(max(p_values))
    if failed:
        return FAILS, min(failed)
    return (HOLDS, max(held)) if len(held) == len(claim.conditions) else (UNDECIDED, nan)


def _evaluated(condition: Condition, numbers: Numbers) -> list[Estimate]:
    return [evaluate(quantity, numbers) for quantity in condition.either]


def _p(condition: Condition, number: Estimate) -> float:
    """Return the two-sided p-value against the nearest bound of a condition.

    It is 0 if the number has no interval, or the condition has no bound.
    """
    bounds = [inf if condition.above is None else condition.above, condition.below]
    nearest = min(bounds, key=lambda bound: abs(number.mean - bound))
    if number.low == number.high or not isfinite(nearest):
        return 0.0
    moved = (number.mean - nearest, number.low - nearest, number.high - nearest)
    return p_value(Estimate(*moved, number.n))


def evaluate(quantity: Quantity, numbers: Numbers) -> Estimate:
    """Evaluate a number with its interval.

    The largest of several has the largest bounds, so it is above a value if any of them is. The
    smallest has the smallest bounds, so it is above a value if all of them are.
    """
    if isinstance(quantity, LinearCombination):
        return numbers(quantity)
    pick = max if quantity.pick == "largest" else min
    return Estimate(*map(pick, zip(*(evaluate(each, numbers) for each in quantity.among))))


def of_tables(quoted: Mapping[Key, float], what: LinearCombination) -> Estimate:
    value = what.evaluate([quoted[key] for key in what.cells])
    return Estimate(value, value, value)


def of_runs(rows: Mapping[Key, FilledCell], what: LinearCombination) -> Estimate:
    """Evaluate a number from our runs.

    It is paired by seed if all cells share at least two seeds. Otherwise the intervals of the cells
    are added in quadrature.
    """
    cells = [rows[key] for key in what.cells]
    if (by_seed := paired(cells, what.evaluate)) and by_seed.n > 1:
        return by_seed
    return unpaired([_of_cell(row) for row in cells], what.evaluate)


def _judge(
    claim: Claim,
    quoted: Mapping[Key, float],
    rows: Mapping[Key, FilledCell],
    full: bool,
    scale: str,
) -> tuple[Verdict, float]:
    used = {key: rows[key] for key in claim.cells if key in rows}
    run = any(row.status == "run" for row in used.values())
    for key, row in used.items():
        if full and row.status == "quoted" and key in quoted:
            # A method that is not run has the quoted number, without an interval.
            exact = Estimate(quoted[key], quoted[key], quoted[key])
            used[key] = replace(row, estimate=exact, values=(), status="run")
    run &= len(used) == len(claim.cells) and all(row.status == "run" for row in used.values())
    table = table_says(claim, quoted)
    of_cells = [
        condition
        for condition in claim.conditions
        if any(quantity.cells for quantity in condition.either)
    ]
    once = "measured once, so it has no interval" if any(map(_measured_once, used.values())) else ""
    notes = [
        claim.note,
        *(FOOTNOTES.get(key, "") for key in claim.cells),
        *(row.remark for row in used.values()),
        once,
    ]
    verdict, here, p = NOT_RUN, "", nan
    if run and _too_few(used.values()):
        verdict, here = UNTESTED, f"{scale}: too few seeds"
    elif run:
        answer, p = runs_say(claim, used, full)
        verdict, here = (answer, "") if full else (UNTESTED, _here(answer, scale))
    if not claim.cells and table == SUPPORTS:
        # There is nothing to run.
        verdict = HOLDS
    if table == CONTRADICTS:
        verdict = DIFFERS if _holds(claim, quoted, ROUNDING) else CONTRADICTED
        verdict = MISCOUNTED if claim.our_count else verdict
    return Verdict(
        claim.says,
        claim.source,
        id=claim.id,
        quoted=_show_all(claim.conditions, partial(of_tables, quoted))
        if quoted.keys() >= set(claim.cells)
        else DASH,
        ours=_show_all(of_cells, partial(of_runs, used)) if run else DASH,
        table=table,
        verdict=verdict,
        note="; ".join(dict.fromkeys(filter(None, notes))),
        run_ids=tuple(dict.fromkeys(run_id for row in used.values() for run_id in row.run_ids)),
        here=here,
    ), nan if verdict in (CONTRADICTED, DIFFERS, MISCOUNTED) else p


def _too_few(rows: Iterable[FilledCell]) -> bool:
    """Return whether a cell that varies by seed has fewer than `LEAST_SEEDS` runs."""
    return any(
        row.run_ids and row.estimate.n < LEAST_SEEDS and not _measured_once(row)
        for row in rows
        if row.estimate is not None
    )


def _holds(claim: Claim, quoted: Mapping[Key, float], slack: float = 0.0) -> bool:
    """Return whether the tables meet every condition, within `slack` points."""
    numbers = partial(of_tables, quoted)
    return all(
        any(
            condition.low - slack <= number.mean <= condition.high + slack
            for number in _evaluated(condition, numbers)
        )
        for condition in claim.conditions
    )


def _agrees(condition: Condition, number: Estimate, full: bool) -> bool | None:
    """Return True if the interval is on the claimed side, False if not, None if on both."""
    if (
        full
        and condition.size is not None
        and (number.high < condition.size if condition.size > 0 else number.low > condition.size)
    ):
        return False
    if condition.above is None or (condition.above < number.low and number.high < condition.below):
        return True
    return False if number.high <= condition.above or number.low >= condition.below else None


def _measured_once(row: FilledCell) -> bool:
    return row.metric not in SHARES and row.estimate is not None and not row.estimate.has_interval


def _of_cell(row: FilledCell) -> Estimate:
    """Return a cell's estimate. A single measurement over all videos has an empty interval.

    A single training run has none, because its test videos do not show how much seeds differ.
    """
    assert row.estimate is not None
    mean = row.estimate.mean
    if _measured_once(row):
        return Estimate(mean, mean, mean)
    return Estimate(mean) if row.runs and row.estimate.n == 1 else row.estimate


def _show_all(conditions: Iterable[Condition], numbers: Numbers) -> str:
    return "; ".join(
        " or ".join(_show(each, numbers) for each in condition.either) for condition in conditions
    )


def _show(quantity: Quantity, numbers: Numbers) -> str:
    """Format a number with its interval. Up to `LISTED` numbers of a `MinMax` are listed."""
    if isinstance(quantity, LinearCombination):
        return _format(numbers(quantity), signed=len(quantity.weights) > 1, unit=quantity.unit)
    if len(quantity.among) <= LISTED:
        return ", ".join(_show(each, numbers) for each in quantity.among)
    return (
        f"{quantity.pick} of {len(quantity.among)}: "
        f"{_format(evaluate(quantity, numbers), signed=True)}"
    )


def _format(number: Estimate, signed: bool, unit: str = "") -> str:
    """Format a number: a difference with sign and one decimal, others with at most two."""

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
