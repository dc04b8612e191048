"""The papers' claims, checked by the papers' own tables.

`claims.yaml` has the claims. Their formulas are those of predictions, over cells of many studies.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path

import pandas as pd
from pydantic import Field

from mgm.reading import read_yaml
from mgm.report.judge import Judged, judge
from mgm.results.statistics import Estimate, exact
from mgm.spec import PUBLISHED, FrozenModel
from mgm.spec.compute import official_multiply_adds
from mgm.study import recipes
from mgm.study.formula import Formula, Statement, Term, parse_statement
from mgm.study.quoted import FOOTNOTES, Key, Quote, reported

DASH = "\N{EN DASH}"
# From the worst answer to the best.
ORDER = ("refuted", "not run", "open", "holds")
CONTRADICTED = "contradicted by published numbers"
MISCOUNTED = "contradicted by our count of operations"
DIFFERS = "differs from published numbers"
AGREES = "agrees with published numbers"
SILENT = "has no published number"
# Points. A table number that is nearer to the claimed one differs only by rounding.
ROUNDING = 0.1


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


def judge_claims(quoted: Mapping[Key, Quote] | None = None) -> pd.DataFrame:
    """Judge every claim by the published tables, in the order of the text.

    Returns:
        A row per claim. `quoted` is its numbers in words.
    """
    quoted = reported() if quoted is None else quoted
    return pd.DataFrame([_judge(claim, quoted) for claim in read_claims()])


def _judge(claim: Claim, quoted: Mapping[Key, Quote]) -> dict[str, str]:
    groups, printed = claim.groups, partial(of_paper, quoted)
    statements = [said for group in groups for said in group]
    known = all(printed(said.formula) is not None for said in statements)
    verdict = SILENT
    if known and not claim.text_only:
        verdict = MISCOUNTED if claim.our_count else CONTRADICTED
        if answer_to(groups, lambda formula: _rounded(printed(formula))).verdict != "refuted":
            verdict = DIFFERS
        if answer_to(groups, printed).verdict == "holds":
            verdict = AGREES
    terms = [term for said in statements for term in said.formula.terms if _fact(term) is None]
    notes = [claim.note, *(FOOTNOTES.get(_key(term), "") for term in terms)]
    return {
        "claim": claim.says,
        "source": claim.source,
        "quoted": _show(groups, printed) if known else DASH,
        "verdict": verdict,
        "id": claim.id,
        "note": "; ".join(dict.fromkeys(filter(None, notes))),
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


def _show(groups: Iterable[list[Statement]], printed: Lookup) -> str:
    return "; ".join(" or ".join(in_words_of(said, printed) for said in group) for group in groups)


def in_words_of(said: Statement, printed: Lookup) -> str:
    """Format the number that a statement is about: a difference with its sign."""
    number = printed(said.formula)
    assert number is not None
    differs = len(said.formula.terms) > 1 and not said.formula.is_ratio
    return f"{number.mean:+.1f}" if differs else f"{round(number.mean, 2):g}"
