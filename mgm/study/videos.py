"""The datasets that studies use at a scale: their digests, and how many videos they have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mgm.data.index import read_index
from mgm.data.published.derived import pda_digest
from mgm.data.synthetic.params import parse_params
from mgm.errors import UserError, nearest
from mgm.spec import PUBLISHED, Published
from mgm.study.scales import Scale, ScaleDataset
from mgm.study.schema import Dataset, Study


def datasets_of(
    studies: Sequence[Study], scale: Scale, known: Mapping[str, ScaleDataset] = MappingProxyType({})
) -> dict[str, ScaleDataset]:
    """Return the datasets that studies use, by key, with the digests that specs have.

    Args:
        known: prepared datasets of a plan by name, whose folders may be gone.

    Raises:
        UserError: a prepared dataset has no index, and the study does not give its digest.
    """
    used = {place.use for study in studies for place in study.datasets.values()}
    used |= {part for name in used & scale.datasets.keys() for part in scale.datasets[name].adapt}
    datasets = dict[str, ScaleDataset]()
    for name, dataset in scale.datasets.items():
        if name in used:
            datasets[name] = _with_digest(name, dataset, datasets, f"scale {scale.name}")
    own = dict[str, ScaleDataset]()
    for study in studies:
        for name, place in study.datasets.items():
            for key, dataset in _own(study, name, place, scale, known):
                if key in own or key in used:
                    raise UserError(
                        f"study {study.study}: datasets: {key} is the name of two; rename one"
                    )
                own[key] = dataset
    return datasets | own


def _with_digest(
    name: str, dataset: ScaleDataset, above: Mapping[str, ScaleDataset], where: str
) -> ScaleDataset:
    """Return a scale's dataset with its digest; a published one has none."""
    digest = dataset.digest
    if dataset.generate:
        digest = parse_params(dataset.generate, f"{where}: datasets.{name}.generate").digest
    elif dataset.adapt:
        if missing := {*dataset.adapt} - above.keys():
            raise UserError(
                f"{where}: datasets.{name}.adapt: {min(missing)} is not a dataset above it"
            )
        digest = pda_digest(name, *(above[part].digest for part in dataset.adapt))
    return dataset.model_copy(update={"digest": digest})


def _own(
    study: Study, name: str, place: Dataset, scale: Scale, known: Mapping[str, ScaleDataset]
) -> list[tuple[str, ScaleDataset]]:
    """Return the key and the dataset of each dataset seed of a study's own place."""
    where = f"study {study.study}: datasets.{name}"
    if place.videos_of:
        return []
    if place.use:
        if place.use not in scale.datasets:
            raise UserError(
                f"{where}.use: scale {study.scale or 'none'} has no {place.use}; "
                f"{nearest(place.use, scale.datasets)}"
            )
        return []
    if place.generate is None:
        return [(name, _prepared(name, place, known.get(name)))]
    # The first generated dataset of the scale has the parameters that this one changes.
    generated = [(like, one.generate) for like, one in scale.datasets.items() if one.generate]
    if not generated:
        raise UserError(
            f"{where}: scale {study.scale or 'none'} generates no videos; name a scale that does"
        )
    like, parameters = generated[0]
    datasets = []
    for dataset_seed in place.dataset_seeds or study.dataset_seeds:
        fields = parameters | place.generate | {"seed": dataset_seed}
        digest = parse_params(fields, where).digest
        datasets.append(
            (f"{name}-{dataset_seed}", ScaleDataset(generate=fields, name=like, digest=digest))
        )
    return datasets


def _prepared(name: str, place: Dataset, known: ScaleDataset | None) -> ScaleDataset:
    """Return a prepared dataset. Without its folder, it must be known.

    The published lists of a published dataset stand for a digest.
    """
    root = Path(place.root)
    if name in PUBLISHED:
        return ScaleDataset(root=place.root)
    same = {"root": place.root, "recipe": place.recipe}
    if place.digest:
        known = ScaleDataset(digest=place.digest, grouped=place.grouped, root=place.root)
    known = known and known.model_copy(update=same)
    if known and not (root / "index.json").is_file():
        return known
    index = read_index(root)
    if place.digest and place.digest != index.digest:
        raise UserError(
            f"{root}: its digest is {index.digest}, and the study has {place.digest}; prepare the "
            "study's videos, or leave the digest out and give the study another name"
        )
    # Of a known dataset, the same runs follow with and without the folder.
    return known or ScaleDataset(digest=index.digest, grouped=index.grouped, **same)


def size_of(datasets: Mapping[str, ScaleDataset], name: str) -> Published:
    """Return the numbers of videos and classes of a dataset.

    They come from the published counts, the generator's parameters or the index of a prepared
    folder. A dataset made of two others counts as the first.
    """
    dataset = datasets[name]
    if dataset.adapt:
        return size_of(datasets, dataset.adapt[0])
    if name in PUBLISHED and not dataset.generate:
        return PUBLISHED[name]
    if dataset.generate:
        drawn = parse_params(dataset.generate, f"datasets.{name}")
        classes = drawn.classes
        train, test = classes * drawn.train_per_class, classes * drawn.test_per_class
    else:
        index = read_index(Path(dataset.root))
        train, test, classes = len(index.train), len(index.test), len(index.classes)
    return Published(name, name, "", train, test, classes)
