"""The videos of a study's datasets at a scale: drawn, of two other datasets, or in a folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mgm.data.index import read_about
from mgm.data.published import task_digest
from mgm.drawn.params import parse_params
from mgm.errors import UserError, nearest
from mgm.spec import PUBLISHED, SHARED, title_of
from mgm.study.scales import Scale
from mgm.study.schema import SEED, Study


class Videos(NamedTuple):
    """The videos of runs. They have one of `generate`, `adapt` and `root`.

    Attributes:
        key: tells them from the other videos of these studies.
        name: in specs.
        recipe: the dataset whose recipe their runs have (`mgm.study.recipes`).
        generate: parameters of a drawn dataset (`mgm.drawn`).
        adapt: the keys of the source and the target of partial domain adaptation.
        root: a folder that `mgm prepare` wrote.
        digest: empty for a published set that is not prepared yet.
    """

    key: str
    name: str
    recipe: str
    generate: Mapping[str, Any] = {}
    adapt: tuple[str, ...] = ()
    root: str = ""
    digest: str = ""

    @property
    def place(self) -> Path:
        """The folder of their index. Drawn videos have one that other studies share."""
        return Path(self.root or f"data/{self.name}-{self.digest}")


def videos_like(study: Study, name: str) -> str:
    """Return the dataset whose videos or models have the seeds of a dataset."""
    key = study.datasets[name].videos_of or name
    place = study.datasets[key]
    # One test of all models, which have the seeds.
    one_test = place.root and not place.seeded and place.pretrained_on
    return place.pretrained_on if one_test else key


def seeds_of(study: Study, scale: Scale, name: str) -> tuple[int, ...]:
    """Return the dataset seeds of a dataset. Empty: its videos have none."""
    own, place = study.datasets[name], study.datasets[videos_like(study, name)]
    source = scale.datasets.get(place.use)
    drawn = source and not source.root and scale.dataset_seeds
    if not place.seeded and not drawn:
        return ()
    seeds = own.dataset_seeds or place.dataset_seeds
    return seeds or study.dataset_seeds or scale.dataset_seeds


def videos_of(
    study: Study,
    scale: Scale,
    name: str,
    seed: int | None,
    known: dict[str, Videos],
    of_scale: bool = False,
) -> Videos:
    """Return the videos of a dataset, and add them to those `known` by key.

    Args:
        seed: the dataset seed; None if its videos have none.
        of_scale: whether the name is of a dataset of the scale, not of the study.
    """
    datasets = scale.datasets if of_scale else study.datasets
    own = datasets[name]
    seed = None if seed is None else seed + own.shift
    name = own.videos_of or name
    place = datasets[name]
    if place.use:
        if place.use not in scale.datasets:
            raise UserError(
                f"study {study.study}: scale {scale.name} has no dataset {place.use}; "
                f"{nearest(place.use, scale.datasets)}"
            )
        return videos_of(study, scale, place.use, seed, known, of_scale=True)
    key = name if seed is None else f"{name}-{seed}"
    if place.root:
        root = os.path.expanduser(place.root.replace(SEED, str(seed)))
        # Datasets of the same folders share their runs.
        key = Path(root).name if place.seeded else name
        made = Videos(key, key, place.recipe or key, root=root)
    elif place.adapt:
        source, target = (
            videos_of(study, scale, part, seed, known, of_scale) for part in place.adapt
        )
        task, recipe = name if of_scale else SHARED, place.recipe or source.recipe
        made = Videos(key, task, recipe, adapt=(source.key, target.key))
    else:
        drawn = [key for key, one in scale.datasets.items() if one.generate]
        if not drawn:
            raise UserError(f"scale {scale.name}: draws no videos; name one that does")
        like = name if of_scale else drawn[0]
        fields = {**(scale.datasets[like].generate or {}), **(place.generate or {})}
        generate = fields if seed is None else fields | {"seed": seed}
        made = Videos(key, like, scale.datasets[like].recipe or like, generate)
    if key not in known:
        known[key] = made._replace(digest=_digest(made, name, known))
    elif known[key]._replace(digest="") != made:
        raise UserError(
            f"study {study.study}: two datasets are called {key}, of other videos or with another "
            "recipe; rename one"
        )
    return known[key]


def _digest(videos: Videos, name: str, known: Mapping[str, Videos]) -> str:
    """Return the digest of the videos of a named dataset, which the specs of their runs have."""
    if videos.adapt:
        return task_digest(videos.name, *(known[part].digest for part in videos.adapt))
    if not videos.root:
        return parse_params(videos.generate, f"datasets.{name}.generate").digest
    # Runs on a published set can be planned before it is prepared.
    if videos.key in PUBLISHED and not Path(videos.root, "index.json").is_file():
        return ""
    return read_about(Path(videos.root)).digest


def unit_of(study: Study, scale: Scale, name: str) -> str:
    """Return what an interval over the dataset seeds of a dataset is over."""
    place = study.datasets[name]
    while other := place.videos_of or (place.adapt and place.adapt[0]):
        place = study.datasets[other]
    if place.root:
        return "folds"
    like = scale.datasets.get(place.use)
    drawn = ((like and like.generate) or {}) | (place.generate or {})
    return "worlds" if drawn.get("kind") == "world" else "datasets"


def title_in(study: Study, scale: Scale, name: str) -> str:
    """Return the name of a dataset for readers. Stand-ins are marked."""
    place = study.datasets[name]
    if place.title or not place.use:
        return place.title or name
    title = title_of(place.use)
    if place.pretrained_on:
        title += f" after {title_of(study.datasets[place.pretrained_on].use)}"
    return title + " stand-in (generated)" * (not scale.datasets[place.use].root)
