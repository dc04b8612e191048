"""The table of published datasets, and the names of datasets for readers.

To add a published dataset, write mgm/data/published/NAME.py with a function `index_NAME(source,
out)`, and add an entry here. A hyphen in the dataset's name is an underscore in those of the file
and the function.

A dataset that is not in the table is generated, or the user's own.
"""

from dataclasses import dataclass

from mgm.spec.values import Data

GENERATED = "generated videos"  # the note of a generated set's index begins with this


@dataclass(frozen=True)
class Published:
    """A published dataset. All lists of dataset names derive from these entries.

    Attributes:
        name: in scales, in specs and in the command `mgm prepare NAME`.
        title: its name in tables and figures.
        source: what `--source` must hold.
        train, test, classes: official counts of split 1. `mgm plan` computes with them.
        about: its name in prose. `mgm prepare NAME --help` begins with it. Empty: the title.
        later: official counts of split 2 and on.
        derived_from: the datasets whose indices it is made of. `--source` is the folder of the
            first, `--target` that of the second.
        recipe: the dataset whose fine-tuning recipe, sampling and test views it follows
            (`mgm.study.recipes`). Empty: its own.
        file: the module of its function, in `mgm.data.published`. Empty: the dataset's name.
        grouped: whether several training videos come from one source.
    """

    name: str
    title: str
    source: str
    train: int
    test: int
    classes: int
    about: str = ""
    later: tuple[tuple[int, int], ...] = ()
    derived_from: tuple[str, ...] = ()
    recipe: str = ""
    file: str = ""
    grouped: bool = False

    @property
    def official(self) -> tuple[int, int]:
        """Return how many training and test videos the published lists name."""
        return self.train, self.test

    @property
    def splits(self) -> tuple[tuple[int, int], ...]:
        """Return the official counts of each split."""
        return self.official, *self.later


_DATASETS = (
    Published(
        "ssv2",
        "SSv2",
        "the videos in any folder, and labels/*.json or *.json",
        # Counts: its authors' lists; the test split is their validation split.
        train=168_913,
        test=24_777,
        classes=174,
        about="Something-Something v2 in its official layout",
        file="json_lists",
    ),
    Published(
        "k400",
        "K400",
        "the videos in any folders, and annotations/*.csv or *.csv",
        # Counts: the paper (240K) and VideoMAE (20K of validation); YouTube has fewer now.
        train=240_000,
        test=20_000,
        classes=400,
        about="Kinetics-400: the clips that are still available, with a list of the others",
    ),
    Published(
        "mini-k200",
        "Mini-K200",
        "K400's index",
        # Counts: the lists of s9xie/mini-kinetics-200, with K400's classes.
        train=80_000,
        test=5_000,
        classes=400,
        about="the part of Kinetics-400 that is Mini-K200",
        derived_from=("k400",),
        recipe="k400",
        file="derived",
    ),
    Published(
        "ucf101",
        "UCF101",
        "UCF-101 (or its class folders) and, if you like, ucfTrainTestlist",
        # Counts: its authors' split 1.
        train=9_537,
        test=3_783,
        classes=101,
        about="UCF101 in its official layout",
        later=((9_586, 3_734), (9_624, 3_696)),
        file="text_lists",
        grouped=True,
    ),
    Published(
        "hmdb51",
        "HMDB51",
        "the class folders and, if you like, testTrainMulti_7030_splits",
        # Counts: its authors' split 1.
        train=3_570,
        test=1_530,
        classes=51,
        about="HMDB51 in its official layout",
        later=((3_570, 1_530), (3_570, 1_530)),
        file="text_lists",
        grouped=True,
    ),
    Published(
        "diving48",
        "Diving48",
        "rgb and, if you like, the three lists Diving48_*.json",
        # Counts: version 2 of its authors' lists.
        train=15_027,
        test=1_970,
        classes=48,
        about="Diving48 with version 2 of its labels",
        file="json_lists",
        grouped=True,
    ),
    Published(
        "ucf14-hmdb7",
        "UCF14 → HMDB7",
        "UCF101's index",
        # Counts: the published lists of partial domain adaptation.
        train=1_324,
        test=210,
        classes=14,
        about="14 classes of UCF101 to train on, and the 7 of HMDB51 that they share to test on",
        derived_from=("ucf101", "hmdb51"),
        # The paper has no recipe for domain adaptation, so this is the recipe of the source.
        recipe="ucf101",
        file="derived",
        grouped=True,
    ),
    Published(
        "hmdb14-ucf7",
        "HMDB14 → UCF7",
        "HMDB51's index",
        # Counts: the published lists of partial domain adaptation.
        train=980,
        test=266,
        classes=14,
        about="14 classes of HMDB51 to train on, and the 7 of UCF101 that they share to test on",
        derived_from=("hmdb51", "ucf101"),
        recipe="hmdb51",
        file="derived",
        grouped=True,
    ),
)
PUBLISHED = {dataset.name: dataset for dataset in _DATASETS}


def title_of(dataset: str) -> str:
    """Return the name in tables of a dataset that is not generated."""
    return PUBLISHED[dataset].title if dataset in PUBLISHED else dataset


def data_name(data: Data, note: str = "") -> str:
    """Return a dataset's name for readers. Generated data is marked.

    Args:
        note: the note of the run's index, as its result has it. Empty: unknown.
    """
    published = data.dataset in PUBLISHED
    # In a spec, a published set has no digest, and a set that is generated in its place has one.
    generated = note.startswith(GENERATED) if note else published and data.digest
    title = title_of(data.dataset)
    if not generated:
        return title
    return f"{title} stand-in (generated)" if published else f"{title} (generated)"
