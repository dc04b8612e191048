"""The options of one call of the workflow, read: its scale, registry, and folders of data.

The Snakefile reads it in every process, so importing this must not import torch.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mgm.dag.cluster import Cluster, load_cluster
from mgm.dag.config import Config, parse_config
from mgm.data.index import read_index
from mgm.data.published.derived import pda_digest
from mgm.data.synthetic.params import Synthetic, parse_params
from mgm.errors import UserError
from mgm.results.lock import folder_lock
from mgm.spec import OWN, PUBLISHED
from mgm.study import CONFIG, STUDIES
from mgm.study.runs import indexed, load_study, scale_of
from mgm.study.scales import Dataset, Scale, file_of, load_scale
from mgm.study.suite import make_registry

# Datasets that jobs can prepare from a user's downloads.
PREPARED = [name for name, dataset in PUBLISHED.items() if not dataset.derived_from]


def scale_file(scale: str, study: str = "") -> Path:
    """Return the file of a scale, or of the scale that a study names."""
    return file_of((study and load_study(file_of(study, STUDIES)).scale) or scale, CONFIG)


def _parts(name: str) -> tuple[str, ...]:
    """Return the datasets that a published dataset is made from."""
    return PUBLISHED[name].derived_from if name in PUBLISHED else ()


def _require_known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted({*names} - {*known}):
        raise UserError(
            f"{what}: {unknown[0]}: cannot be given here; choose from {', '.join(known)}"
        )


def _sources(options: Config, cluster: Cluster | None) -> dict[str, str]:
    """Return the user's downloads: {published dataset: folder}."""
    if options.videos is not None:
        if options.sources:
            raise UserError(
                "--config sources: names published datasets, and "
                f"videos={options.videos} replaces them; leave one of the two out"
            )
        return {}
    sources = options.sources
    if sources is None:
        sources = cluster.sources if cluster else {}
    short = {"ucf101": options.ucf101, "hmdb51": options.hmdb51}
    sources = sources | {name: source for name, source in short.items() if source}
    _require_known("sources", sources, PREPARED)
    return sources


def _scale(options: Config, sources: Collection[str], prepared_in: Mapping[str, str]) -> Scale:
    """Return the scale or study that the options name. Its datasets may have no digest yet."""
    if options.study:
        study = load_study(file_of(options.study, STUDIES))
        present = {
            name
            for name, place in study.datasets.items()
            if name in sources or Path(prepared_in.get(name, place.root), "index.json").is_file()
        }
        scale = scale_of(study.without_absent(present), size=options.gpu)
    else:
        fields = options.model_dump(include={"flow_weights", "weights"}, exclude_unset=True)
        scale = load_scale(file_of(options.scale, CONFIG), fields, options.gpu)
    return scale.shortened(options.steps) if options.steps else scale


class Setting:
    """The experiments of one scale or study under one name, and the folders of their data.

    The constructor writes nothing, except the index of a user's own videos.

    Args:
        config: the options of `snakemake --config` (`mgm.dag.config`). Without `cluster`, jobs run
            on this machine.
        index_videos: index new and changed videos of `--config videos=DIR`. If False, use the
            existing index.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Path = Path("results"),
        reports: Path = Path("reports"),
        data: Path = Path("data"),
        index_videos: bool = True,
    ):
        options = parse_config(config)
        self.cluster = load_cluster(options.cluster) if options.cluster is not None else None
        self.yes = options.yes
        self.shards = options.shards or (self.cluster.shards if self.cluster else 1)
        prepared_in = self.cluster.data if self.cluster else {}
        _require_known("cluster: data", prepared_in, PUBLISHED)
        sources = _sources(options, self.cluster)
        scale = _scale(options, sources, prepared_in)
        # The downloads of the published datasets that jobs prepare.
        self.sources = {
            name: source
            for name, source in sources.items()
            if name in scale.datasets and not scale.datasets[name].generate
        }
        for name, source in self.sources.items():
            if not Path(source).exists():
                raise UserError(f"sources: {name}: {source} does not exist; correct the path")
        self.name = options.name or scale.name
        self.results, self.reports = results / self.name, reports / self.name
        self.logs = Path("logs") / self.name
        # Each dataset with the folder of its index.
        self.places: dict[str, Path] = {}
        # Each generated dataset with its generator's parameters.
        self.generated: dict[str, Synthetic] = {}
        # Each derived dataset with the datasets that it is made from.
        self.derived: dict[str, tuple[str, ...]] = {}
        # Run ids, each with the weights that the user gives for a row of a table.
        self.external: dict[str, Path] = {}
        if scale.weights:
            # Imports inside functions keep torch and NumPy out of the DAG's start.
            from mgm.stages.parents import external_run_id

            self.external = dict(
                external_run_id(path, f"weights: {row}", row) for row, path in scale.weights.items()
            )
        changes: dict[str, Any] = {"weights": dict(zip(scale.weights, self.external))}
        if options.videos is None:
            changes["datasets"] = self._filled(scale, data, prepared_in)
        elif self.name == scale.name:
            raise UserError(
                f"--config videos={options.videos}: needs another name than {self.name}, or "
                "its results would mix with that scale's; add name=..."
            )
        else:
            own = self._own(Path(options.videos), data / self.name, index_videos)
            # Some masks of other papers need optical flow, which shards do not contain.
            changes |= {"datasets": {OWN: own}, "other_masks": False}
        self.scale = scale.model_copy(update=changes)
        self.registry = make_registry(self.scale)
        self._require_labels()

    def _own(self, videos: Path, new: Path, index_videos: bool) -> Dataset:
        """Return a user's own videos. Their index is theirs, or in the folder `new`."""
        from mgm.data.folder import index_folder

        prepared = (videos / "index.json").is_file()
        self.places[OWN] = place = videos if prepared else new
        if index_videos and not prepared:
            # Another Snakemake on these results may be reading this index.
            jobs = self.results / "jobs"
            with folder_lock(jobs) if jobs.is_dir() else nullcontext():
                index = index_folder(videos, place)
        elif (place / "index.json").is_file():
            index = read_index(place)
        else:
            raise UserError(
                f"--config videos={videos}: has no index, and a dry run opens no videos; run"
                f" `mgm prepare folder --source {shlex.quote(str(videos))} --out "
                f"{shlex.quote(str(place))}` first"
            )
        return indexed(str(videos), index)

    def _filled(
        self, scale: Scale, data: Path, prepared_in: Mapping[str, str]
    ) -> dict[str, Dataset]:
        """Return a scale's datasets with the digests of those that jobs make."""
        datasets: dict[str, Dataset] = {}
        for name, dataset in scale.datasets.items():
            where = f"scale {scale.name}: datasets.{name}"
            if dataset.generate:
                self.generated[name] = params = parse_params(dataset.generate, f"{where}.generate")
                digest = params.digest
            elif dataset.adapt:
                if unknown := [other for other in dataset.adapt if other not in datasets]:
                    raise UserError(
                        f"{where}.adapt names {unknown[0]}, which is not a dataset above it"
                    )
                self.derived[name] = dataset.adapt
                digest = pda_digest(name, *(datasets[other].digest for other in dataset.adapt))
            else:
                root = prepared_in.get(name, dataset.root)
                self.places[name] = Path(root)
                datasets[name] = dataset.model_copy(update={"root": root})
                if (parts := _parts(name)) and self.sources.keys() >= {*parts}:
                    self.derived[name] = parts
                continue
            self.places[name] = data / f"{dataset.name or name}-{digest}"
            datasets[name] = dataset.model_copy(update={"digest": digest})
        return datasets

    def _require_labels(self) -> None:
        """Refuse runs with more labels per class than their generated dataset has videos.

        Raises:
            UserError: such a run. The error names both fields.
        """
        given = {name: params.train_per_class for name, params in self.generated.items()}
        for spec in self.registry.specs.values():
            wanted, dataset = spec.data.labels_per_class, self.scale.key_of(spec.data)
            if wanted > (held := given.get(dataset, wanted)):
                raise UserError(
                    f"scale {self.scale.name}: {spec.stage} takes data.labels_per_class {wanted}, "
                    f"but datasets.{dataset}.generate.train_per_class is {held}; lower the first "
                    "or raise the second"
                )

    def threads(self, kind: str, here: int) -> int:
        """Return the threads of a rule's jobs: the cluster's `cpus`, or `here` on this machine."""
        return self.cluster.jobs[kind].cpus if self.cluster else here

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    @property
    def built_datasets(self) -> list[str]:
        """Return the datasets that jobs make. Users prepare the others."""
        return list(dict.fromkeys([*self.generated, *self.sources, *self.derived]))

    def preparation(self, name: str) -> list[str]:
        """Return the words after `mgm` that prepare a dataset, without `--out`."""
        if name in self.generated:
            return ["prepare", "synthetic", "--params", str(self.params_file(name))]
        parts = self.derived.get(name) or _parts(name)
        if not parts:
            return ["prepare", name, "--source", self.sources.get(name, "DIR")]
        options = [
            word
            for option, part in zip(("source", "target"), parts)
            for word in (f"--{option}", str(self.places[part]))
        ]
        return ["prepare", name, *options]
