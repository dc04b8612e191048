"""Mini-K200 (Xie et al., 2018): the part of an index of K400 whose YouTube ids the published lists
name.

An id is read off a file's name, ID_START_END.ext. Videos of K400's training split are looked up
among the 80,000 training ids, those of its test split among the 5,000 validation ids. Classes and
labels stay K400's: pretraining, which Mini-K200 is for (Table 4d), uses none.
"""

import os
import re
from pathlib import Path

from mgm.data.index import SPLITS, Index, listed_counts, new_index, read_index
from mgm.data.published.listed import carried, write_found
from mgm.errors import UserError

_NAME = re.compile(r"(.{11})_\d+_\d+\.\w+")


def index_mini_k200(source: Path, out: Path) -> Index:
    """The index of Mini-K200's videos among those of the index in folder `source`, written to
    folder `out`. Files stay where they are.

    Ids without a video go to OUT/missing.txt, as train/ID or test/ID, and are counted in the
    index's note.

    Raises:
        UserError: no index, file names that hold no id, or no training video.
    """
    whole, ids = read_index(source), carried_ids()
    id_of = {
        video.path: match[1]
        for video in whole.videos
        if (match := _NAME.fullmatch(os.path.basename(video.path)))
    }
    if not id_of:
        raise UserError(
            f"{source / 'index.csv'}: no file of {len(whole.videos):,} is named ID_START_END.ext as K400's are; check --source"
        )
    videos = [video for video in whole.videos if id_of.get(video.path) in ids[video.split]]
    here = {
        split: {id_of[video.path] for video in videos if video.split == split} for split in SPLITS
    }
    if not here["train"]:
        raise UserError(
            f"{source / 'index.csv'}: has 0 of the {len(ids['train']):,} training videos of Mini-K200; give --source the index of K400"
        )
    counts = listed_counts(
        {split: len(ids[split]) for split in SPLITS}, {split: len(here[split]) for split in SPLITS}
    )
    note = f"Mini-K200, with K400's classes: {counts}"
    index = new_index(whole.root, whole.classes, videos, (), note)
    return write_found(
        index,
        [f"{split}/{name}" for split in SPLITS for name in sorted(ids[split] - here[split])],
        out,
    )


def carried_ids() -> dict[str, frozenset[str]]:
    """The published YouTube ids of each split, from the copy carried here."""
    return {split: frozenset(carried(f"mini_k200_{split}.txt.xz").split()) for split in SPLITS}
