"""The claims of the two papers' texts that numbers can decide:

read from `paper.yaml`, and the words that its formulas use.
"""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from mgm.paper import recipes
from mgm.paper.cost import official_multiply_adds
from mgm.report.claims.claim import FORMS, Claim, LinearCombination, cell, computed


def ssv2(method: str, epochs: int | str) -> LinearCombination:
    return cell("1", f"{method}, SSv2, {epochs}", "SSv2")


def k400(method: str, epochs: int | str) -> LinearCombination:
    return cell("1", f"{method}, K400, {epochs}", "K400")


def gflops(method: str, epochs: int | str) -> LinearCombination:
    """GFLOPs of a view; Table 1 prints them once a line, beside SSv2."""
    return cell("1", f"{method}, SSv2, {epochs}", "GFLOPs")


def mask(row: str) -> LinearCombination:
    return cell("4e", row, "SSv2")


def masks(*rows: str) -> list[LinearCombination]:
    return [mask(row) for row in rows]


def gain(table: str, column: str, method: str = "MGM", than: str = "VideoMAE") -> LinearCombination:
    return cell(table, method, column) - cell(table, than, column)


def gains(table: str, method: str = "MGM", than: str = "VideoMAE") -> list[LinearCombination]:
    """Gain in each column of Table 2."""
    return [gain(table, column, method, than) for column in ("UCF", "HMDB", "Diving48")]


def wider(method: str, epochs: int) -> LinearCombination:
    """How much more MGM gains over a method on SSv2 than on K400."""
    return (ssv2("MGM", epochs) - ssv2(method, epochs)) - (
        k400("MGM", epochs) - k400(method, epochs)
    )


def fewer_epochs(ours: int, theirs: int) -> LinearCombination:
    return computed(100 * (1 - ours / theirs), "% fewer epochs")


def compute(name: str, epochs: int) -> float:
    """Multiply-adds a video of pretraining takes in the official code, which embeds hidden tubelets
    before it drops them.
    """
    return epochs * official_multiply_adds(recipes.pretrain("ssv2", name, epochs))


def read_claims() -> tuple[Claim, ...]:
    """Read the claims of `paper.yaml`.

    Raises:
        jinja2.TemplateError: a formula that is none, or uses an unknown word.
    """
    environment = Environment(undefined=StrictUndefined)
    fields = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
    words: dict[str, Any] = {
        one.__name__: one
        for one in (
            *FORMS,
            ssv2,
            k400,
            gflops,
            mask,
            masks,
            gain,
            gains,
            wider,
            fewer_epochs,
            compute,
        )
    }
    words["frames"] = recipes.PRETRAIN_CLIPS["k400"].frames

    def value(formula: str) -> Any:
        return environment.compile_expression(formula, undefined_to_none=False)(words)

    for name, formula in fields["names"].items():
        words[name] = value(formula)
    return tuple(
        Claim(**(one | {"conditions": tuple(map(value, one["conditions"]))}), source=source)
        for source, several in fields["sections"].items()
        for one in several
    )


CLAIMS = read_claims()
