"""Verdicts on the papers' claims, from the papers' own tables and from our runs.

`claims.yaml` has the claims. Their formulas are those of predictions, over cells of many studies.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import product
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from mgm.reading import read_yaml
from mgm.report.findings import Findings, agrees, combined, in_words
from mgm.results.statistics import FEWEST, Estimate, holm, over_seeds, p_value
from mgm.spec import PUBLISHED, FrozenModel
from mgm.spec.compute import official_multiply_adds
from mgm.study import recipes
from mgm.study.formula import HALF, Formula, Statement, Term, parse_statement
from mgm.study.quoted import FOOTNOTES, Key, Quote, reported
from mgm.study.schema import CONTROLS, SHARES

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
CONTRADICTED = "contradicted by published numbers"
MISCOUNTED = "contradicted by our count of operations"
DIFFERS = "differs from published numbers"
UNTESTED = "not tested at this scale"
# Points. A table number that is nearer to the claimed one differs only by rounding.
ROUNDING = 0.1
DASH = "\N{EN DASH}"
SUPPORTS, CONTRADICTS, SILENT = "supports", "contradicts", "has no number"


class Claim(FrozenModel):
    """A sentence, shortened at "…", with statements. Of each group, one must hold."""

    id: str
    says: str
    place: str = Field("", alias="in")
    column: str = ""
    tests: tuple[str | tuple[str, ...], ...]
    note: str = ""
    text_only: bool = False
    our_count: bool = False
    source: str = ""

    @property
    def groups(self) -> list[list[Statement]]:
        groups = []
        for test in self.tests:
            if isinstance(test, str):
                groups += [[self._read(text)] for text in each(test)]
            else:
                groups.append([self._read(text) for part in test for text in each(part)])
        return groups

    def _read(self, text: str) -> Statement:
        said = parse_statement(text)
        terms = (
            term._replace(place=term.place or self.place, column=term.column or self.column)
            for term in said.formula.terms
        )
        return said._replace(formula=Formula(tuple(terms), said.formula.signs))


# Looks a formula up. A quoted number has an empty interval.
Lookup = Callable[[Formula], Estimate | None]


def each(text: str) -> Iterable[str]:
    """Yield a text with each choice of its lists {A; B}."""
    parts = re.split(r"\{([^{}]*)\}", text)
    for choice in product(*(part.split("; ") for part in parts[1::2])):
        parts[1::2] = choice
        yield "".join(parts)


@cache
def read_claims() -> tuple[Claim, ...]:
    """Read the claims."""
    sections = read_yaml(Path(__file__).with_name("claims.yaml"))
    return tuple(
        Claim.model_validate(fields | {"source": source})
        for source, claims in sections.items()
        for fields in claims
    )


def judge(
    findings: Mapping[str, Findings], quoted: Mapping[Key, Quote] | None = None
) -> pd.DataFrame:
    """Judge every claim, in the order of the text.

    The published tables go first. If they contradict a claim, that is its verdict. If they differ
    only by rounding, the verdict says so. Otherwise our runs decide, if they repeat the paper's
    experiment with at least three seeds and all needed cells are run. A claim holds if the interval
    of each of its numbers is on the claimed side. It fails if one interval is on the other side,
    and else it is undecided. Holm's method widens the intervals, so the chance of any false verdict
    is 5 %. Methods that are not run have the paper's numbers. At other scales no claim is tested.

    Returns:
        A row per claim. `quoted` and `ours` are its numbers in words, `table` the answer of
        published numbers, and `here` that of our runs at a smaller scale.
    """
    judged = [
        _judge(claim, findings, reported() if quoted is None else quoted) for claim in read_claims()
    ]
    tested = [row["id"] for row, p in judged if isfinite(p)]
    passes = holm([p for _, p in judged if isfinite(p)])
    doubtful = {name for name, passed in zip(tested, passes, strict=True) if not passed}
    return pd.DataFrame([_undecided(row) if row["id"] in doubtful else row for row, _ in judged])


def _undecided(row: dict[str, str]) -> dict[str, str]:
    if row["here"]:
        return row | {"here": f"{row['here'].split(':')[0]}: {UNDECIDED} here"}
    return row | {"verdict": UNDECIDED}


def _judge(
    claim: Claim, findings: Mapping[str, Findings], quoted: Mapping[Key, Quote]
) -> tuple[dict[str, str], float]:
    """Return a claim's row, and the largest p-value of its decision; NaN without one."""
    scale = next(iter(findings.values())).suite.scale.name
    full, groups = scale == "paper", claim.groups
    printed = partial(of_paper, quoted)
    answers = [[printed(said.formula) for said in group] for group in groups]
    known = all(number is not None for group in answers for number in group)
    table = SILENT
    if known and not claim.text_only:
        table = SUPPORTS if _holds(groups, printed) else CONTRADICTS
    terms = dict.fromkeys(
        term for group in groups for said in group for term in said.formula.terms if _is_cell(term)
    )
    cells = {term: cell for term in terms if (cell := cell_in(findings, term)) is not None}
    # Methods that are not run have the quoted number at the paper's scale.
    complete = len(cells) == len(terms) and all(
        cell["status"] == "finished" or (full and cell["status"] == "quoted")
        for cell in cells.values()
    )
    run = complete and any(cell["status"] == "finished" for cell in cells.values())
    verdict, here, p, ours = NOT_RUN, "", nan, partial(of_runs, findings)
    if run and any(_too_few(cell) for cell in cells.values()):
        verdict, here = UNTESTED, f"{scale}: too few seeds"
    elif run:
        answer, p = runs_say(groups, ours, full)
        verdict, here = (answer, "") if full else (UNTESTED, f"{scale}: {answer} here")
    if not terms and table == SUPPORTS:
        # There is nothing to run.
        verdict = HOLDS
    if table == CONTRADICTS:
        verdict = DIFFERS if _holds(groups, printed, ROUNDING) else CONTRADICTED
        verdict = MISCOUNTED if claim.our_count else verdict
        p = nan
    once = any(_measured_once(cell) for cell in cells.values())
    notes = [claim.note, *(FOOTNOTES.get(_key(term), "") for term in terms)]
    notes += ["measured once, so it has no interval"] * once
    run_ids = dict.fromkeys(run for cell in cells.values() for run in cell["run_ids"].split())
    of_cells = [
        [said for said in group if any(map(_is_cell, said.formula.terms))] for group in groups
    ]
    return {
        "claim": claim.says,
        "source": claim.source,
        "quoted": _show(groups, printed) if known else DASH,
        "ours": _show(filter(None, of_cells), ours) if run else DASH,
        "verdict": verdict,
        "id": claim.id,
        "table": table,
        "note": "; ".join(dict.fromkeys(filter(None, notes))),
        "run_ids": " ".join(run_ids),
        "here": here,
    }, p


def runs_say(groups: Iterable[list[Statement]], ours: Lookup, full: bool) -> tuple[str, float]:
    """Return our runs' answer to a claim, and its p-value.

    A claim that holds has the p-value of its weakest statement. A claim that fails has the p-value
    of its strongest refutation.

    Args:
        full: also test the claimed sizes.
    """
    held, failed, undecided = list[float](), list[float](), False
    for group in groups:
        tested = [(said, number) for said in group if (number := ours(said.formula)) is not None]
        answers = [agrees(said, number, full) for said, number in tested]
        p_values = [_p(said, number) for said, number in tested]
        if any(answers):
            held.append(min(p for p, answer in zip(p_values, answers) if answer))
        elif answers and None not in answers:
            failed.append(max(p_values))
        else:
            undecided = True
    if failed:
        return FAILS, min(failed)
    return (UNDECIDED, nan) if undecided else (HOLDS, max(held))


def _p(said: Statement, number: Estimate) -> float:
    """Return the two-sided p-value against the bound of a statement, or 0 without an interval."""
    if number.low == number.high:
        return 0.0
    bound = 0.0 if said.relation in ("is", "level") else said.bound
    moved = (number.mean - bound, number.low - bound, number.high - bound)
    return p_value(Estimate(*moved, number.n))


def _holds(groups: Iterable[list[Statement]], printed: Lookup, slack: float = 0.0) -> bool:
    """Return whether printed numbers meet a statement of each group, within `slack` points."""
    return all(any(_met(said, printed(said.formula), slack) for said in group) for group in groups)


def _met(said: Statement, number: Estimate | None, slack: float) -> bool:
    assert number is not None
    low, high = {
        "is": (said.bound - said.tolerance, said.bound + said.tolerance),
        "above": (said.bound + HALF, inf),
        "at least": (said.bound - HALF, inf),
        "below": (-inf, said.bound - HALF),
        "within": (-said.bound, said.bound),
        "level": (0.0, 0.0),
    }[said.relation]
    # Differences of decimals have rounding errors.
    return low - slack - 1e-9 <= number.mean <= high + slack + 1e-9


def of_paper(quoted: Mapping[Key, Quote], formula: Formula) -> Estimate | None:
    """Evaluate a formula from the paper's numbers; None if one is not printed."""
    numbers = []
    for term in formula.terms:
        number = _fact(term)
        if number is None:
            if (key := _key(term)) not in quoted:
                return None
            number = quoted[key].value
        numbers.append(number)
    total = formula.of(numbers)
    return Estimate(total, total, total)


def of_runs(findings: Mapping[str, Findings], formula: Formula) -> Estimate | None:
    """Evaluate a formula from our runs.

    It is paired by seed where all cells share enough seeds. Otherwise the intervals of the cells
    are added in quadrature.
    """
    parts: list[pd.Series | float] = []
    estimates: list[Estimate] = []
    for term in formula.terms:
        number = _fact(term)
        cell = None if number is not None else cell_in(findings, term)
        if cell is not None and (cell["status"] == "quoted" or _measured_once(cell)):
            number = cell["paper"] if cell["status"] == "quoted" else cell["mean"]
        if number is not None:
            parts.append(float(number))
            estimates.append(Estimate(number, number, number))
            continue
        if cell is None:
            return None
        study, dataset = term.place.split("/", 1)
        parts.append(findings[study].series(dataset, term, ""))
        estimates.append(Estimate(cell["mean"], cell["low"], cell["high"], cell["n"]))
    paired = any(isinstance(part, pd.Series) for part in parts)
    if paired:
        units = combined(formula, parts, [term.row in CONTROLS for term in formula.terms])
        if len(units) >= FEWEST:
            return over_seeds(units.tolist())
    mean = formula.of(estimate.mean for estimate in estimates)
    if not paired:
        return Estimate(mean, mean, mean)
    if not all(isfinite(estimate.low) for estimate in estimates):
        return Estimate(mean, unknown="too few seeds")
    half = sqrt(sum(((estimate.high - estimate.low) / 2) ** 2 for estimate in estimates))
    return Estimate(mean, mean - half, mean + half, min(estimate.n for estimate in estimates))


def cell_in(findings: Mapping[str, Findings], term: Term) -> dict[str, Any] | None:
    """Return the row of `Findings.cells` that a term names; None if there is none."""
    study, dataset, row, column = _key(term)
    return findings[study].by_place.get((dataset, column, row)) if study in findings else None


def _is_cell(term: Term) -> bool:
    """Return whether a term is a cell, and not a number."""
    return _fact(term) is None


def _key(term: Term) -> Key:
    study, _, dataset = term.place.partition("/")
    return study, dataset, term.row, term.column or _first_columns().get(study, "")


@cache
def _first_columns() -> dict[str, str]:
    """Return each study's first column, which its first quoted number has."""
    columns: dict[str, str] = {}
    for study, _, _, column in reported():
        columns.setdefault(study, column)
    return columns


def _fact(term: Term) -> float | None:
    """Return a number, or one of "facts": of published lists, or our count of multiply-adds."""
    if term.number is not None or not term.place.startswith("facts/"):
        return term.number
    about = term.place.removeprefix("facts/")
    if about == "compute":
        method, epochs = term.row.split(", ")
        mask = {"MGM": "mgm", "VideoMAE": "tube"}[method]
        # That code embeds hidden tubelets before it drops them.
        return int(epochs) * official_multiply_adds(recipes.pretrain("ssv2", mask, int(epochs)))
    lists = PUBLISHED[about]
    return {"videos": lists.train + lists.test, "classes": lists.classes}[term.row]


def _measured_once(cell: Mapping[str, Any]) -> bool:
    return (
        cell["status"] == "finished" and cell["metric"] not in SHARES and not isfinite(cell["low"])
    )


def _too_few(cell: Mapping[str, Any]) -> bool:
    """Return whether a cell that varies by seed has too few runs for an interval."""
    return cell["status"] == "finished" and cell["n"] < FEWEST and not _measured_once(cell)


def _show(groups: Iterable[list[Statement]], numbers: Lookup) -> str:
    return "; ".join(" or ".join(in_words_of(said, numbers) for said in group) for group in groups)


def in_words_of(said: Statement, numbers: Lookup) -> str:
    """Format the number that a statement is about: a difference with its sign."""
    number = numbers(said.formula)
    if number is None or number.low != number.high:
        return in_words(number)
    differs = len(said.formula.terms) > 1 and not said.formula.is_ratio
    return f"{number.mean:+.1f}" if differs else f"{round(number.mean, 2):g}"
