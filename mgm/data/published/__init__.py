"""The published datasets.

To add one, write mgm/data/published/NAME.py with a function `index_NAME(source, out)`, and add an
entry here. A hyphen in the dataset's name is an underscore in those of the file and the function.
Importing this module does not import those files.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgm.data.index import Index


@dataclass(frozen=True)
class Published:
    """A published dataset. All lists of dataset names derive from these entries.

    Attributes:
        name: in scales, in specs and in the command `mgm prepare NAME`.
        title: its name in prose. `mgm prepare NAME --help` begins with it.
        source: what `--source` must hold.
        train, test, classes: official counts of split 1. `mgm plan` computes with them.
        splits: number of official splits.
        derived_from: the datasets whose indices it is made of. `--source` is the folder of the
            first, `--target` that of the second.
        recipe: the dataset whose fine-tuning recipe, sampling and test views it follows
            (`mgm.paper.recipes`). Empty: its own, or SSv2's.
        file: the module of its function. Empty: the dataset's name.
        grouped: whether several training videos come from one source.
    """

    name: str
    title: str
    source: str
    train: int
    test: int
    classes: int
    splits: int = 1
    derived_from: tuple[str, ...] = ()
    recipe: str = ""
    file: str = ""
    grouped: bool = False

    @property
    def official(self) -> tuple[int, int]:
        """Return how many training and test videos the published lists name."""
        return self.train, self.test

    def index(self, *folders: Any, **options: Any) -> "Index":
        """Write the index and return it.

        The arguments are (source, out), or (source, target, out) if the dataset is derived from
        two. With several official splits there is the option `split=N`.
        """
        name = self.name.replace("-", "_")
        return getattr(import_module(f"{__name__}.{self.file or name}"), f"index_{name}")(
            *folders, **options
        )


_DATASETS = (
    Published(
        "ssv2",
        "Something-Something v2 in its official layout",
        "the videos in any folder, and labels/*.json or *.json",
        train=168_913,
        test=24_777,
        # Source: its authors' page. Our test split is the validation split.
        classes=174,
        file="json_lists",
    ),
    Published(
        "k400",
        "Kinetics-400: the clips that are still available, with a list of the others",
        "the videos in any folders, and annotations/*.csv or *.csv",
        train=240_000,
        test=20_000,
        # Sources: the paper (240K) and VideoMAE (20K of validation). YouTube has fewer now.
        classes=400,
    ),
    Published(
        "mini-k200",
        "the part of Kinetics-400 that is Mini-K200",
        "K400's index",
        train=80_000,
        test=5_000,
        # Source: the lists of s9xie/mini-kinetics-200. The classes are K400's.
        classes=400,
        derived_from=("k400",),
        recipe="k400",
        file="derived",
    ),
    Published(
        "ucf101",
        "UCF101 in its official layout",
        "UCF-101 (or its class folders) and, if you like, ucfTrainTestlist",
        train=9_537,
        test=3_783,
        classes=101,
        splits=3,
        file="text_lists",
        grouped=True,
    ),
    Published(
        "hmdb51",
        "HMDB51 in its official layout",
        "the class folders and, if you like, testTrainMulti_7030_splits",
        train=3_570,
        test=1_530,
        classes=51,
        splits=3,
        file="text_lists",
        grouped=True,
    ),
    Published(
        "diving48",
        "Diving48 with version 2 of its labels",
        "rgb and, if you like, the three lists Diving48_*.json",
        train=15_027,
        test=1_970,
        classes=48,
        file="json_lists",
        grouped=True,
    ),
    Published(
        "ucf14-hmdb7",
        "14 classes of UCF101 to train on, and the 7 of HMDB51 that they share to test on",
        "UCF101's index",
        train=1_324,
        test=210,
        classes=14,
        derived_from=("ucf101", "hmdb51"),
        recipe="ucf101",
        # The paper has no recipe for domain adaptation, so this is the recipe of the source.
        file="derived",
        grouped=True,
    ),
    Published(
        "hmdb14-ucf7",
        "14 classes of HMDB51 to train on, and the 7 of UCF101 that they share to test on",
        "HMDB51's index",
        train=980,
        test=266,
        classes=14,
        derived_from=("hmdb51", "ucf101"),
        recipe="hmdb51",
        file="derived",
        grouped=True,
    ),
)
PUBLISHED = {dataset.name: dataset for dataset in _DATASETS}
