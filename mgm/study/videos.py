"""The datasets that studies use at a scale: their digests, and how many videos they have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mgm.data.index import read_index
from mgm.data.published.derived import pda_digest
from mgm.data.synthetic.params import parse_params
from mgm.errors import UserError, nearest
from mgm.spec import PUBLISHED, Published
from mgm.study.scales import Dataset, Scale
from mgm.study.schema import Place, Study

# The dataset of a scale whose drawn videos a study changes.
DRAWN = "ssv2"


def datasets_of(
    studies: Sequence[Study], scale: Scale, known: Mapping[str, Dataset] = MappingProxyType({})
) -> dict[str, Dataset]:
    """Return the datasets that studies use, by key, with the digests that specs have.

    Args:
        known: prepared datasets of a plan by name, whose folders may be gone.

    Raises:
        UserError: a prepared dataset has no index, and the study does not give its digest.
    """
    used = {place.use for study in studies for place in study.datasets.values()}
    used |= {part for name in used & scale.datasets.keys() for part in scale.datasets[name].adapt}
    datasets = dict[str, Dataset]()
    for name, dataset in scale.datasets.items():
        if name in used:
            datasets[name] = _with_digest(name, dataset, datasets, f"scale {scale.name}")
    own = dict[str, Dataset]()
    for study in studies:
        for name, place in study.datasets.items():
            for key, dataset in _own(study, name, place, scale, known):
                if key in own or key in used:
                    raise UserError(
                        f"study {study.study}: datasets: {key} is the name of two; rename one"
                    )
                own[key] = dataset
    return datasets | own


def _with_digest(name: str, dataset: Dataset, above: Mapping[str, Dataset], where: str) -> Dataset:
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
    study: Study, name: str, place: Place, scale: Scale, known: Mapping[str, Dataset]
) -> list[tuple[str, Dataset]]:
    """Return the key and the dataset of each draw of a study's own place."""
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
    if not (drawn := scale.datasets[DRAWN].generate if DRAWN in scale.datasets else {}):
        raise UserError(
            f"{where}: scale {study.scale or 'none'} generates no {DRAWN}; name a scale that does"
        )
    datasets = []
    for draw in place.draws or study.draws:
        fields = drawn | place.generate | {"seed": draw}
        digest = parse_params(fields, where).digest
        datasets.append((f"{name}-{draw}", Dataset(generate=fields, name=DRAWN, digest=digest)))
    return datasets


def _prepared(name: str, place: Place, known: Dataset | None) -> Dataset:
    """Return a prepared dataset. Without its folder, it must be known.

    The published lists of a published dataset stand for a digest.
    """
    root = Path(place.root)
    if name in PUBLISHED:
        return Dataset(root=place.root)
    same = {"root": place.root, "recipe": place.recipe}
    if place.digest:
        known = Dataset(digest=place.digest, grouped=place.grouped, root=place.root)
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
    return known or Dataset(digest=index.digest, grouped=index.grouped, **same)


def size_of(datasets: Mapping[str, Dataset], name: str) -> Published:
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
