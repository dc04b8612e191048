"""Formulas over cells: the grammar that predictions and claims share.

MGM                                     a row, in the column of the prediction
MGM [Linear probe]                      a row in another column
table3/ucf14-hmdb7: MGM                 a row of another study and dataset
MGM minus Random tube                   a difference, paired by seed
A minus B minus C plus D, A over B      sums and ratios
MGM minus Random tube above 0           a statement: above, at least or below a number,
                                        within N of 0, level, is N ± TOLERANCE, or is N,
                                        whose tolerance is the rounding of N
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Relation = Literal["above", "at least", "below", "within", "level", "is"]
_STATEMENT = re.compile(
    r"(?s)(.+?) (above|at least|below|within|level|is)"
    r"(?: (-?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?)?"
)
_PART = re.compile(r"(?s)(?:([\w./-]+): )?(.*?)(?: \[(.+)\])?")
_OPERATOR = re.compile(r"\s(minus|plus|over)\s")
# A number in a text, as "{mini: MGM minus Random block}".
QUOTED = re.compile(r"\{([^{}]+)\}")
_SIGNS = {"minus": -1, "plus": 1, "over": 0}


class Term(NamedTuple):
    """A row or a control of a study, or a number.

    Attributes:
        column: by default that of the whole formula.
        place: "STUDY/DATASET"; by default that of the whole formula.
    """

    row: str
    column: str = ""
    place: str = ""

    @property
    def number(self) -> float | None:
        return float(self.row) if re.fullmatch(r"-?\d+(\.\d+)?", self.row) else None


class Formula(NamedTuple):
    """A sum of terms with signs 1 and -1, or a ratio of two, whose second sign is 0."""

    terms: tuple[Term, ...]
    signs: tuple[int, ...]

    @property
    def is_ratio(self) -> bool:
        return 0 in self.signs

    def of(self, values: Iterable[Any]) -> Any:
        """Return the sum or the ratio of a number, or of a Series, per term."""
        total: Any = 0.0
        for value, sign in zip(values, self.signs):
            total = total + sign * value if sign else total / value
        return total


class Statement(NamedTuple):
    """What is said of a formula."""

    formula: Formula
    relation: Relation
    bound: float
    tolerance: float = 0.0


def parse_formula(text: str) -> Formula:
    """Read a formula, such as "A minus B".

    Raises:
        ValueError: it divides more than two terms.
    """
    first, *rest = _OPERATOR.split(text.strip())
    terms, signs = [_term(first)], [1]
    for operator, part in zip(rest[::2], rest[1::2]):
        term = _term(part)
        terms.append(term if term.place else term._replace(place=terms[-1].place))
        signs.append(_SIGNS[operator])
    if 0 in signs and len(signs) > 2:
        raise ValueError(f"{text!r}: `over` divides two terms alone")
    return Formula(tuple(terms), tuple(signs))


def formula_in(quoted: str) -> tuple[str, Formula]:
    """Read "DATASET: A minus B".

    Raises:
        ValueError: it has another form.
    """
    dataset, colon, text = quoted.partition(": ")
    if not colon:
        raise ValueError(f"{{{quoted}}} is not {{DATASET: A minus B}}")
    return dataset, parse_formula(text)


def parse_statement(text: str) -> Statement:
    """Read a statement, such as "MGM minus Random block above 5".

    Raises:
        ValueError: it has another form.
    """
    match = _STATEMENT.fullmatch(text.strip())
    if (
        not match
        or (match[2] == "level") != (match[3] is None)
        or (match[4] is not None and match[2] != "is")
    ):
        raise ValueError(
            f"{text!r} is not a statement; write A minus B, then above, below or within a number, "
            "or level"
        )
    decimals = len((match[3] or "").partition(".")[2])
    tolerance = 0.5 * 10**-decimals if match[4] is None else float(match[4])
    return Statement(parse_formula(match[1]), match[2], float(match[3] or 0), tolerance)  # type: ignore[arg-type]


def _term(text: str) -> Term:
    place, row, column = _PART.fullmatch(text.strip()).groups("")  # type: ignore[union-attr]
    return Term(row, column, place)
