"""What the Snakefile knows: the scale and its registry, where data lies, and which runs share a process. No torch."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from mgm.dag.cluster import Cluster, load_cluster
from mgm.datasets.index import read_index
from mgm.datasets.published import PUBLISHED
from mgm.datasets.synthetic.params import Synthetic
from mgm.errors import UserError
from mgm.experiments.cost import work
from mgm.experiments.registry import Registry
from mgm.experiments.scales import OWN, Dataset, Scale, load_scale, parse_scale
from mgm.runs import files as atomic
from mgm.spec import Finetune, Pretrain, Spec, parents

CONFIG = Path(__file__).parents[2] / "workflow" / "config"
OPTIONS = ("scale", "name", "videos", "flow_weights", "weights", "cluster", "partition", "account", "sources", "shards")
PREPARED = tuple(name for name, dataset in PUBLISHED.items() if not dataset.derived_from)  # from what their users downloaded
DERIVED = {name: dataset.derived_from for name, dataset in PUBLISHED.items() if dataset.derived_from}


@dataclass(frozen=True)
class Batch:
    """Runs that one process computes, one after another."""

    rule: str
    verb: str
    specs: tuple[Spec, ...]
    priority: int = 0  # how long the longest chain is that starts with it, in per mille of the longest of all


class Workflow:
    """The experiments of one scale under one name.

    `config` is Snakemake's: `scale` (a name in workflow/config, or a YAML file), `name` (of the results; default: the scale's),
    `videos` (a folder or CSV of your own videos, in place of the paper's datasets), `flow_weights` and `weights` as in a scale's YAML,
    `sources` (published dataset: the folder it was downloaded to, to be prepared and transcoded here, in `shards` jobs), and
    `cluster`, `partition` and `account` as in `mgm.dag.cluster` where jobs go to Slurm.
    """

    def __init__(
        self, config: Mapping[str, Any], results: Path = Path("results"), reports: Path = Path("reports"), data: Path = Path("data")
    ):
        if unknown := sorted(set(config) - set(OPTIONS)):
            raise UserError(f"--config {unknown[0]}: is not an option; choose from {', '.join(OPTIONS)}")
        chosen = str(config.get("scale", "smoke"))
        given = {option: config[option] for option in ("flow_weights", "weights") if option in config}
        scale = load_scale(Path(chosen) if chosen.endswith((".yaml", ".yml")) else CONFIG / f"{chosen}.yaml", given)
        self.cluster: Cluster | None = None  # none: this machine
        if "cluster" in config:
            self.cluster = load_cluster(*(str(config.get(option, "")) for option in ("cluster", "partition", "account")))
            scale = _placed(scale, self.cluster)
        self.name = str(config.get("name", scale.name))
        self.results, self.reports = results / self.name, reports / self.name
        self.places: dict[str, Path] = {}  # dataset: the folder of its index
        self.generated: dict[str, str] = {}  # dataset: its generator's parameters as JSON
        self.derived: dict[str, tuple[str, ...]] = {}  # dataset: those it is made of
        self.sources = {} if "videos" in config else self._sources(config, scale)
        self.shards = int(config.get("shards", self.cluster.shards if self.cluster else 1))
        self.external = _external(scale)  # run id: the weights of a table's row that a user gives
        scale = scale.model_copy(update={"weights": dict(zip(scale.weights, self.external))})
        if "videos" in config:
            if self.name == scale.name:
                raise UserError(
                    f"--config videos={config['videos']}: needs a name of its own, lest results mix with {self.name}'s; add name=..."
                )
            scale = self._own(scale, Path(str(config["videos"])), data)
        else:
            scale = self._filled(scale, data)
        self.scale = scale
        self.registry = Registry(scale)

    def _own(self, scale: Scale, videos: Path, data: Path) -> Scale:
        from mgm.datasets.folder import index_folder

        place = data / self.name
        index = index_folder(videos, place)
        self.places[OWN] = place
        return scale.model_copy(update={"datasets": {OWN: Dataset(root=str(videos), digest=index.digest)}, "more_seeds": _of_4e(scale)})

    def _filled(self, scale: Scale, data: Path) -> Scale:
        datasets: dict[str, Dataset] = {}
        for name, dataset in scale.datasets.items():
            if dataset.generate:
                params = Synthetic.model_validate(dataset.generate)
                self.generated[name] = params.model_dump_json()
                digest = params.digest
            elif dataset.adapt:
                from mgm.datasets.published.pda import pda_digest

                if unknown := [other for other in dataset.adapt if other not in datasets]:
                    raise UserError(f"scale {scale.name}: datasets.{name}.adapt names {unknown[0]}, which is not a dataset above it")
                self.derived[name] = dataset.adapt
                digest = pda_digest(name, *(datasets[other].digest for other in dataset.adapt))
            else:
                self.places[name] = Path(dataset.root)
                datasets[name] = dataset
                if name in DERIVED and {*DERIVED[name]} <= {*self.sources}:
                    self.derived[name] = DERIVED[name]
                continue
            self.places[name] = data / f"{name}-{digest}"
            datasets[name] = dataset.model_copy(update={"digest": digest})
        return scale.model_copy(update={"datasets": datasets})

    def write(self) -> None:
        """The scale, every spec and every generator's parameters, as files for jobs to read. Unchanged files are left alone."""
        files = {self.results / "scale.json": self.scale.model_dump_json(indent=1)}
        files |= {self.spec_file(run_id): spec.model_dump_json(indent=1) for run_id, spec in self.registry.specs.items()}
        files |= {self.params_file(dataset): params for dataset, params in self.generated.items()}
        for path, text in files.items():
            if not path.exists() or path.read_text() != text + "\n":
                atomic.write(path, text + "\n")
        if self.external:
            from mgm.jobs.init import link

            for run_id, weights in self.external.items():
                link(weights, self.results / run_id)
        for stale in set((self.results / "specs").glob("*.json")) - set(files):
            stale.unlink()

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    def result(self, run_id: str) -> str:
        return str(self.results / run_id / "result.json")

    def index(self, dataset: str) -> str:
        """Of a dataset, or of `NAME/source`, the videos it was transcoded from."""
        name, _, below = dataset.partition("/")
        return str(self.places[name] / below / "index.json")

    @property
    def made_here(self) -> set[str]:
        """Datasets that rules make; the others are a user's to prepare."""
        return {*self.generated, *self.derived, *self.sources}

    def flow_marker(self, dataset: str, method: str) -> str:
        return str(self.places[dataset] / f"flow-{method}.json")

    def flows(self) -> list[tuple[str, str]]:
        """(dataset, method) of the optical flow that some run is guided by."""
        return sorted({flow for spec in self.registry.specs.values() if (flow := _flow(spec))})

    def inputs(self, batch: Batch) -> list[str]:
        """What a batch's rule waits for: its parents' results, datasets made here and flow. Others are there, or `missing` says so."""
        made = {self.index(dataset) for dataset in self.datasets(batch) if dataset in self.made_here}
        flow = {self.flow_marker(*flow) for spec in batch.specs if (flow := _flow(spec))}
        runs = {self.result(parent) for spec in batch.specs for parent in parents(spec) if parent not in self.external}
        return sorted(made | flow | runs)

    def datasets(self, batch: Batch) -> list[str]:
        return sorted({spec.data.dataset for spec in batch.specs})

    @cache  # noqa: B019  a workflow lives as long as its process, and every rule asks
    def batches(self) -> list[Batch]:
        """Every run, in batches of one verb and one generation, so that no batch waits for itself.

        Table 4e, the mask ablation, has batches of its own, and so has Table 1, the longest. In the others runs on one dataset lie side by
        side, and of those table by table: few datasets are decoded twice, and a single target trains little for others; at `specs_per_job`
        1, nothing.
        """
        specs, places = self.registry.specs, list(self.scale.datasets)
        alone = [target for target in ("table4e", "table1") if target in self.registry.targets()]
        home = {spec.run_id: target for target in reversed(alone) for spec in self.registry.runs_of(target)}
        generation: dict[str, int] = {}
        for run_id, spec in specs.items():  # parents come first
            generation[run_id] = 1 + max((generation.get(parent, 0) for parent in parents(spec)), default=-1)
        alike: dict[str, list[Spec]] = {}
        for run_id in sorted(specs, key=lambda run_id: places.index(specs[run_id].data.dataset)):
            group = home.get(run_id, "others")
            alike.setdefault(f"{specs[run_id].verb}_{group}_{generation[run_id]}", []).append(specs[run_id])
        batches = []
        for name, several in alike.items():
            count = -(-len(several) // self.scale.specs_per_job)
            cuts = [len(several) * part // count for part in range(count + 1)]
            batches += [
                Batch(f"{name}_{part}", several[0].verb, tuple(several[start:end]))
                for part, (start, end) in enumerate(pairwise(cuts), start=1)
            ]
        return _prioritised(batches)

    def urgency(self, dataset: str) -> int:
        """Priority of making a dataset: that of what waits for it most."""
        return max((batch.priority for batch in self.batches() if dataset in self.datasets(batch)), default=0)

    def cpus(self, kind: str, here: int = 1) -> int:
        """Cores of each process of a job of this kind (a verb, `prepare` or `flow`): the cluster's, or what works well `here`."""
        return self.cluster.jobs[kind].cpus if self.cluster else here

    def resources(self, kind: str) -> dict[str, Any]:
        """What a rule asks of a cluster; nothing of this machine."""
        return self.cluster.resources(kind) if self.cluster else {}

    def log(self, rule: str) -> str:
        return f"logs/{self.name}/{rule}.log"

    def around(self, kind: str, rule: str) -> tuple[str, str]:
        """What stands before and after a job's command: on a cluster what launches it, here what shows its lines; both keep its log."""
        return (self.cluster.launch(kind, self.log(rule)), "") if self.cluster else ("", f"2>&1 | tee {self.log(rule)}")

    def training(self, verb: str) -> str:
        """Options of the verbs that train."""
        options = f"--checkpoint-s {self.scale.execution.checkpoint_s:g}"
        if not self.cluster:
            return options
        job = self.cluster.jobs[verb]
        return f"{options} --accumulate {job.accumulate}{' --recompute' if job.recompute else ''}"

    def missing(self) -> dict[str, str]:
        """A line for each dataset that is neither there nor made here."""
        return {
            name: f"dataset {name}: {place / 'index.json'} is not there; run `mgm prepare {self.preparation(name)} --out {place}`"
            for name, place in self.places.items()
            if name not in self.made_here and not (place / "index.json").exists()
        }

    def problems(self, rules: Collection[str]) -> list[str]:
        """A line for each thing that would stop these rules: a dataset missing or not as its index says, weights that do not fit, a
        cluster that refuses such jobs."""
        batches = [batch for batch in self.batches() if batch.rule in rules]
        needed = {dataset for batch in batches for dataset in self.datasets(batch)}
        missing = self.missing()
        found = [missing[name] for name in self.places if name in needed & set(missing)]
        checks: list[Callable[[], object]] = [partial(read_index, self.places[name]) for name in needed - set(missing) - self.made_here]
        if self.scale.flow == "raft-small" and self.scale.flow_weights:
            from mgm.video.flow import estimator  # torch, as below

            checks.append(partial(estimator, "raft-small", Path(self.scale.flow_weights)))
        if self.external:
            from mgm.models import build_classifier, load_encoder

            users = {spec.parent: spec for spec in self.registry.specs.values() if isinstance(spec, Finetune)}
            checks += [partial(load_encoder, build_classifier(users[name], 1), path) for name, path in self.external.items()]
        for check in checks:
            try:
                check()
            except UserError as error:
                found.append(str(error))
        if self.cluster:
            kinds = {batch.verb for batch in batches} | {
                kind for kind in ("prepare", "flow") if any(rule.startswith(kind) for rule in rules)
            }
            found += self.cluster.refusals(kinds)
            found += _uneven(self.cluster, batches)
        return found

    def preparation(self, name: str) -> str:
        """What follows `mgm prepare` for a dataset: `NAME --source ...`, with `--target ...` where it is derived from two."""
        parts = self.derived.get(name) or DERIVED.get(name)
        if not parts:
            return f"{name} --source {shlex.quote(self.sources.get(name, 'DIR'))}"
        options = " ".join(f"--{option} {self.places[part]}" for option, part in zip(("source", "target"), parts))
        return f"{name} {options}"

    def _sources(self, config: Mapping[str, Any], scale: Scale) -> dict[str, str]:
        """Where the published datasets were downloaded to, of those that are to be prepared here."""
        given = config.get("sources", self.cluster.sources if self.cluster else {})
        if not isinstance(given, dict):
            raise UserError(f"--config sources={given}: write it as sources='{{k400: DIR, ssv2: DIR}}'")
        if unknown := sorted(set(given) - set(PREPARED)):
            raise UserError(f"sources: {unknown[0]}: cannot be prepared by jobs; choose from {', '.join(PREPARED)}")
        here = {name: str(given[name]) for name in given if name in scale.datasets and not scale.datasets[name].generate}
        for name, source in here.items():
            if not Path(source).exists():
                raise UserError(f"sources: {name}: {source} is not there; correct the path")
        return here


def _prioritised(batches: list[Batch]) -> list[Batch]:
    """The batches with their priorities: what others wait for longest should start first."""
    made_by = {spec.run_id: batch.rule for batch in batches for spec in batch.specs}
    waiting: dict[str, set[str]] = {batch.rule: set() for batch in batches}
    for batch in batches:
        for parent in {parent for spec in batch.specs for parent in parents(spec) if parent in made_by}:
            waiting[made_by[parent]].add(batch.rule)
    own = {batch.rule: sum(map(work, batch.specs)) for batch in batches}

    @cache
    def chain(rule: str) -> float:
        return own[rule] + max(map(chain, waiting[rule]), default=0.0)

    longest = max(map(chain, own))
    return [replace(batch, priority=round(1000 * chain(batch.rule) / longest)) for batch in batches]


def _uneven(cluster: Cluster, batches: list[Batch]) -> list[str]:
    """A line for each verb whose processes cannot share its batch out evenly."""
    found = {}
    for batch in batches:
        for spec in batch.specs:
            if isinstance(spec, Pretrain | Finetune):
                job = cluster.jobs[spec.verb]
                if spec.optim.batch % (job.processes * job.accumulate):
                    found[spec.verb] = (
                        f"{spec.run_id}: a batch of {spec.optim.batch} is not shared out evenly among {job.processes} processes "
                        f"x {job.accumulate} parts; change jobs.{spec.verb} in cluster.yaml"
                    )
    return list(found.values())


def _flow(spec: Spec) -> tuple[str, str] | None:
    """Whose optical flow a run's mask follows, and by which method; None for other runs."""
    guided = isinstance(spec, Pretrain) and spec.mask.guidance != "vectors"
    return (spec.data.dataset, spec.mask.guidance) if guided else None  # type: ignore[union-attr]


def _placed(scale: Scale, cluster: Cluster) -> Scale:
    """The scale, with its datasets where the cluster has them."""
    if unknown := sorted(set(cluster.data) - {*PREPARED, *DERIVED}):
        raise UserError(f"cluster: data.{unknown[0]}: is no published dataset; choose from {', '.join((*PREPARED, *DERIVED))}")
    datasets = {name: dataset.model_copy(update={"root": cluster.data.get(name, dataset.root)}) for name, dataset in scale.datasets.items()}
    return scale.model_copy(update={"datasets": datasets})


def _of_4e(scale: Scale) -> dict[str, tuple[int, ...]]:
    """Own videos have Table 4e alone."""
    return {target: seeds for target, seeds in scale.more_seeds.items() if target == "table4e"}


def _external(scale: Scale) -> dict[str, Path]:
    if not scale.weights:
        return {}
    from mgm.jobs.init import named  # torch, but for those alone who give weights

    return dict(named(path, f"weights: {row}", row) for row, path in scale.weights.items())


def overview(workflow: Workflow) -> str:
    """What the DAG will do and take, said before it starts."""
    specs = workflow.registry.specs
    verbs = Counter(spec.verb for spec in specs.values())
    done = sum(Path(workflow.result(run_id)).exists() for run_id in specs)
    jobs = (
        len(workflow.made_here)
        + len(workflow.flows())
        + sum(not all(Path(workflow.result(s.run_id)).exists() for s in b.specs) for b in workflow.batches())
    )
    return (
        f"{workflow.name}: {len(specs)} runs ({', '.join(f'{count} {verb}' for verb, count in verbs.items())}), {done} of them done; "
        f"at most {jobs + 1} jobs. The whole takes {workflow.scale.takes}.\n"
        f"Stop it whenever you like; called again, it continues. The page will be {workflow.reports / 'index.html'}"
    )


def training_share(workflow: Workflow, started: float, cores: int) -> str:
    """What of the cores' time since `started` (in seconds since 1970) went into training steps, loading included; empty without any."""
    paths = [workflow.results / run_id / "log.jsonl" for run_id in workflow.registry.specs]
    lines = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines() if line.endswith("}")]
    wall, steps = time.time() - started, sum(line.get("seconds", 0.0) for line in lines if line["time"] >= started)
    if not steps:
        return ""
    minutes, seconds = divmod(round(wall), 60)
    return f"{workflow.name}: {minutes} min {seconds:02d} s; training steps took {steps / (cores * wall):.0%} of {cores} cores' time"


def registry_of(results: Path) -> Registry:
    """The registry that the workflow left in a results folder, so that reports need neither the workflow nor the data.

    Raises:
        UserError: nothing ran there, or its scale cannot be read.
    """
    path = results / "scale.json"
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `snakemake --cores all` first, or correct the name {results.name}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); repeat your snakemake command with -n, which writes it anew") from None
    return Registry(parse_scale(fields, path))


if __name__ == "__main__":  # `make reproduce` says it first
    print(overview(Workflow({})))
