"""Verdicts on the papers' claims, from the papers' own tables and from our runs.

`claims.yaml` has the claims. Their formulas are those of predictions, over cells of many studies.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import product
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from mgm.reading import read_yaml
from mgm.report.findings import Findings, estimate_of, in_words
from mgm.report.judge import Judged, judge
from mgm.results.statistics import FEWEST, Estimate, exact, of_mean
from mgm.spec import PUBLISHED, FrozenModel
from mgm.spec.compute import official_multiply_adds
from mgm.study import recipes
from mgm.study.formula import Formula, Statement, Term, parse_statement
from mgm.study.quoted import FOOTNOTES, Key, Quote, reported
from mgm.study.schema import SHARES

# From the worst answer to the best.
ORDER = ("refuted", "not run", "open", "holds")
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


# Looks a formula up. A quoted number is exact.
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


def judge_claims(
    findings: Mapping[str, Findings], quoted: Mapping[Key, Quote] | None = None
) -> pd.DataFrame:
    """Judge every claim, in the order of the text.

    The published tables go first. If they contradict a claim, that is its verdict; if they differ
    by rounding alone, the verdict says so. Otherwise our runs decide, as `judge` says, once all
    cells are run. Methods that are not run have the paper's numbers. On generated data, with other
    models or with another schedule, nothing is tested: those runs do not repeat the paper's.

    Returns:
        A row per claim. `quoted` and `ours` are its numbers in words, and `table` is the answer of
        published numbers.
    """
    quoted = reported() if quoted is None else quoted
    return pd.DataFrame([_judge(claim, findings, quoted) for claim in read_claims()])


def _judge(
    claim: Claim, findings: Mapping[str, Findings], quoted: Mapping[Key, Quote]
) -> dict[str, str]:
    full = next(iter(findings.values())).repeats_the_paper
    groups, printed = claim.groups, partial(of_paper, quoted)
    answers = [[printed(said.formula) for said in group] for group in groups]
    known = all(number is not None for group in answers for number in group)
    table = SILENT
    if known and not claim.text_only:
        table = SUPPORTS if answer_to(groups, printed).verdict == "holds" else CONTRADICTS
    terms = dict.fromkeys(
        term for group in groups for said in group for term in said.formula.terms if _is_cell(term)
    )
    cells = {term: cell for term in terms if (cell := cell_in(findings, term)) is not None}
    complete = len(cells) == len(terms) and all(
        cell["status"] == "finished" or (full and cell["status"] == "quoted")
        for cell in cells.values()
    )
    run = complete and any(cell["status"] == "finished" for cell in cells.values())
    verdict, why, ours = "not run", "", partial(of_runs, findings)
    if run:
        verdict, why = answer_to(groups, ours) if full else (UNTESTED, "")
    if not terms and table == SUPPORTS:
        # There is nothing to run.
        verdict = "holds"
    if table == CONTRADICTS:
        verdict = MISCOUNTED if claim.our_count else CONTRADICTED
        if answer_to(groups, lambda formula: _rounded(printed(formula))).verdict != "refuted":
            verdict = DIFFERS
    once = any(_measured_once(cell) for cell in cells.values())
    notes = [claim.note, why, *(FOOTNOTES.get(_key(term), "") for term in terms)]
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
    }


def answer_to(groups: Iterable[list[Statement]], number_of: Lookup) -> Judged:
    """Return the verdict on statements of which each group needs one that holds."""
    answers = []
    for group in groups:
        judged = [judge(said, number_of(said.formula)) for said in group]
        answers.append(max(judged, key=lambda one: ORDER.index(one.verdict)))
    return min(answers, key=lambda one: ORDER.index(one.verdict))


def _rounded(number: Estimate | None) -> Estimate | None:
    """Return a printed number with the interval that rounding leaves it."""
    return number and number._replace(low=number.mean - ROUNDING, high=number.mean + ROUNDING)


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
    return exact(formula.of(numbers))


def of_runs(findings: Mapping[str, Findings], formula: Formula) -> Estimate | None:
    """Evaluate a formula from our runs.

    Cells of one dataset are paired by unit. Errors of others are added in quadrature, with the
    degrees of freedom of Welch and Satterthwaite.
    """
    estimates: list[Estimate] = []
    for term in formula.terms:
        number = _fact(term)
        cell = None if number is not None else cell_in(findings, term)
        if cell is not None and (cell["status"] == "quoted" or _measured_once(cell)):
            number = cell["paper"] if cell["status"] == "quoted" else cell["mean"]
        if number is None and cell is None:
            return None
        estimates.append(exact(float(number)) if number is not None else estimate_of(cell or {}))
    varied = [estimate for estimate in estimates if estimate.error]
    places = {term.place for term in formula.terms}
    if len(varied) == len(estimates) and len(places) == 1:
        study, dataset = places.pop().split("/", 1)
        return findings[study].estimate(dataset, formula)
    mean = formula.of(estimate.mean for estimate in estimates)
    if not varied:
        return exact(mean)
    n = min(estimate.n for estimate in varied)
    if formula.is_ratio or not all(estimate.has_interval for estimate in varied):
        return Estimate(mean, n=min(n, FEWEST - 1), unknown="too few seeds")
    variances = [estimate.error**2 for estimate in varied]
    parts = sum(v**2 / one.degrees for v, one in zip(variances, varied))
    return of_mean(mean, n, sqrt(sum(variances)), sum(variances) ** 2 / parts)


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


def _show(groups: Iterable[list[Statement]], numbers: Lookup) -> str:
    return "; ".join(" or ".join(in_words_of(said, numbers) for said in group) for group in groups)


def in_words_of(said: Statement, numbers: Lookup) -> str:
    """Format the number that a statement is about: a difference with its sign."""
    number = numbers(said.formula)
    if number is None or number.low != number.high:
        return in_words(number)
    differs = len(said.formula.terms) > 1 and not said.formula.is_ratio
    return f"{number.mean:+.1f}" if differs else f"{round(number.mean, 2):g}"
