"""The one judge of statements: predictions of studies, and claims of papers."""

from math import inf, isfinite
from typing import Literal, NamedTuple

from mgm.results.statistics import ENOUGH, EQUAL, FEWEST, MOST, Estimate
from mgm.study.formula import Statement

NEVER = f"more than {MOST:,} units would decide"
Verdict = Literal["holds", "refuted", "open", "not run"]


class Judged(NamedTuple):
    """A verdict, and why it is open or not run."""

    verdict: Verdict
    why: str = ""


def range_of(statement: Statement) -> tuple[float, float]:
    """Return the smallest and the largest value that a statement allows.

    Differences of decimals have rounding errors.
    """
    bound, tolerance = statement.bound, statement.tolerance
    return {
        "is": (bound - tolerance - EQUAL, bound + tolerance + EQUAL),
        "above": (bound + EQUAL, inf),
        "at least": (bound - EQUAL, inf),
        "below": (-inf, bound - EQUAL),
        "within": (-bound - EQUAL, bound + EQUAL),
        "level": (-EQUAL, EQUAL),
    }[statement.relation]


def judge(statement: Statement, estimate: Estimate | None) -> Judged:
    """Compare a statement with the 95 % confidence interval of its number.

    - holds: the interval lies within what the statement allows.
    - refuted: it lies outside.
    - open: it has a part of both, or there are fewer than six units. `why` says how many units
      would decide, with the spread that these have, if their mean stays. "Level" states no margin,
      so it can be refuted alone.
    - not run: there are fewer than three units.
    """
    if estimate is None:
        return Judged("not run")
    if not estimate.has_interval:
        return Judged("not run" if estimate.n < FEWEST else "open", estimate.unknown)
    if estimate.n < ENOUGH and estimate.error:
        return Judged("open", f"a verdict needs {ENOUGH} units")
    low, high = range_of(statement)
    if low <= estimate.low and estimate.high <= high:
        return Judged("holds")
    if estimate.high < low or estimate.low > high:
        return Judged("refuted")
    if statement.relation == "level":
        return Judged("open", "level needs a margin, such as within 3")
    ends = [abs(estimate.mean - end) for end in (low, high) if isfinite(end)]
    units = estimate.decided_by(min(ends))
    return Judged("open", f"{units:,} units would decide" if units <= MOST else NEVER)
