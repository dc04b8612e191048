"""What the project knows of a published dataset: everything else that names datasets is read off this."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgm.datasets.index import Index


@dataclass(frozen=True)
class Published:
    """One dataset. Its file in this package makes it, and `mgm.datasets.published` lists it.

    Attributes:
        name: the verb of `mgm prepare`, and the dataset's name in scales and specs.
        title: its name in prose; `mgm prepare NAME --help` begins with it.
        index: `index(source, out)` writes the index and returns it; with `split=N` where there are several official splits, and as
            `index(source, target, out)` where the dataset is derived from two.
        source: what `--source` must hold.
        train, test, classes: official counts, of split 1. `mgm plan` computes with them.
        lists: where its lists come from: "bring them", or what mgm carries.
        splits: how many official splits there are to choose from.
        derived_from: the datasets whose indices it is made of; `--source`, and `--target` if there are two, are their folders.
        recipe: the dataset whose finetuning recipe, sampling and test views it follows (`mgm.experiments.recipes`); its own if empty.
    """

    name: str
    title: str
    index: "Callable[..., Index]"
    source: str
    train: int
    test: int
    classes: int
    lists: str = "bring them"
    splits: int = 1
    derived_from: tuple[str, ...] = ()
    recipe: str = ""
