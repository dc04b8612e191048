"""The table of published datasets, and the names of datasets for readers.

To add a published dataset, add an entry here and a function to `mgm.data.published.READERS`. A
dataset that is not in the table is generated, or the user's own.
"""

from dataclasses import dataclass

GENERATED = "generated videos"  # the note of a generated set's index begins with this
# The task of two prepared sets whose classes are shared by name.
SHARED = "shared"


@dataclass(frozen=True)
class Published:
    """A published dataset.

    Attributes:
        name: in scales, in specs and in the command `mgm prepare NAME`.
        title: its name in tables and figures.
        train, test, classes: official counts of split 1. `mgm plan` computes with them.
        derived_from: the prepared datasets that it is made of. `--source` is the folder of the
            first, `--target` that of the second.
        recipe: the dataset whose fine-tuning recipe, sampling and test views it follows
            (`mgm.study.recipes`). Empty: its own.
    """

    name: str
    title: str
    train: int
    test: int
    classes: int
    derived_from: tuple[str, ...] = ()
    recipe: str = ""


# Counts are those of the authors' lists, with these exceptions. ssv2 and k400: the test split is
# the validation split. k400: the paper (240K) and VideoMAE (20K); YouTube has fewer now. diving48:
# version 2. mini-k200: the lists of s9xie/mini-kinetics-200, with K400's classes. The last two: the
# lists of partial domain adaptation. The paper has no recipe for them, so they follow their source.
PUBLISHED = {
    dataset.name: dataset
    for dataset in (
        Published("ssv2", "SSv2", 168_913, 24_777, 174),
        Published("k400", "K400", 240_000, 20_000, 400),
        Published("mini-k200", "Mini-K200", 80_000, 5_000, 400, ("k400",), "k400"),
        Published("ucf101", "UCF101", 9_537, 3_783, 101),
        Published("hmdb51", "HMDB51", 3_570, 1_530, 51),
        Published("diving48", "Diving48", 15_027, 1_970, 48),
        Published("ucf14-hmdb7", "UCF14 → HMDB7", 1_324, 210, 14, ("ucf101", "hmdb51"), "ucf101"),
        Published("hmdb14-ucf7", "HMDB14 → UCF7", 980, 266, 14, ("hmdb51", "ucf101"), "hmdb51"),
    )
}


def title_of(dataset: str) -> str:
    """Return the name in tables of a dataset that is not generated."""
    return PUBLISHED[dataset].title if dataset in PUBLISHED else dataset
