"""What the Snakefile knows: the scale and its registry, where data lies, and which runs share a process. No torch."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgm.datasets.params import Synthetic
from mgm.errors import UserError
from mgm.experiments.registry import Registry
from mgm.experiments.scales import OWN, Dataset, Scale, load_scale, parse_scale
from mgm.report import atomic
from mgm.spec import Spec, parents

CONFIG = Path(__file__).parents[1] / "workflow" / "config"


@dataclass(frozen=True)
class Batch:
    """Runs that one process computes, one after another."""

    rule: str
    verb: str
    specs: tuple[Spec, ...]


class Workflow:
    """The experiments of one scale under one name.

    `config` is Snakemake's: `scale` (a name in workflow/config, or a YAML file), `name` (of the results; default: the scale's),
    `videos` (a folder or CSV of your own videos, in place of the paper's datasets).
    """

    def __init__(
        self, config: Mapping[str, Any], results: Path = Path("results"), reports: Path = Path("reports"), data: Path = Path("data")
    ):
        if unknown := sorted(set(config) - {"scale", "name", "videos"}):
            raise UserError(f"--config {unknown[0]}: is not an option; choose from scale, name, videos")
        chosen = str(config.get("scale", "smoke"))
        scale = load_scale(Path(chosen) if chosen.endswith((".yaml", ".yml")) else CONFIG / f"{chosen}.yaml")
        self.name = str(config.get("name", scale.name))
        self.results, self.reports = results / self.name, reports / self.name
        self.places: dict[str, Path] = {}  # dataset: the folder of its index
        self.generated: dict[str, str] = {}  # dataset: its generator's parameters as JSON
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
        return scale.model_copy(update={"datasets": {OWN: Dataset(root=str(videos), digest=index.digest)}})

    def _filled(self, scale: Scale, data: Path) -> Scale:
        datasets = {}
        for name, dataset in scale.datasets.items():
            if dataset.generate:
                params = Synthetic.model_validate(dataset.generate)
                self.places[name] = data / f"{name}-{params.digest}"
                self.generated[name] = params.model_dump_json()
                dataset = dataset.model_copy(update={"digest": params.digest})
            else:
                self.places[name] = Path(dataset.root)
            datasets[name] = dataset
        return scale.model_copy(update={"datasets": datasets})

    def write(self) -> None:
        """The scale, every spec and every generator's parameters, as files for jobs to read. Unchanged files are left alone."""
        files = {self.results / "scale.json": self.scale.model_dump_json(indent=1)}
        files |= {self.spec_file(run_id): spec.model_dump_json(indent=1) for run_id, spec in self.registry.specs.items()}
        files |= {self.params_file(dataset): params for dataset, params in self.generated.items()}
        for path, text in files.items():
            if not path.exists() or path.read_text() != text + "\n":
                atomic.write(path, text + "\n")
        for stale in set((self.results / "specs").glob("*.json")) - set(files):
            stale.unlink()

    def spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def params_file(self, dataset: str) -> Path:
        return self.results / "datasets" / f"{dataset}.json"

    def result(self, run_id: str) -> str:
        return str(self.results / run_id / "result.json")

    def index(self, dataset: str) -> str:
        return str(self.places[dataset] / "index.json")

    def inputs(self, batch: Batch) -> list[str]:
        """What a batch's rule waits for: its parents' results, and datasets that are drawn here. Others are there, or `missing` says so."""
        drawn = {self.index(dataset) for dataset in self.datasets(batch) if dataset in self.generated}
        return sorted(drawn | {self.result(parent) for spec in batch.specs for parent in parents(spec)})

    def datasets(self, batch: Batch) -> list[str]:
        return sorted({spec.data.dataset for spec in batch.specs})

    def batches(self) -> list[Batch]:
        """Every run, in batches of one verb and one target, so that a single target trains nothing for another."""
        home: dict[str, str] = {}  # of a run: the first table or figure that needs it
        for target in self.registry.targets():
            if target != "all":
                for spec in self.registry.runs_of(target):
                    home.setdefault(spec.run_id, target)
        alike: dict[str, list[Spec]] = {}
        for run_id, spec in self.registry.specs.items():
            alike.setdefault(f"{spec.verb}_{home[run_id]}", []).append(spec)
        size = self.scale.specs_per_job
        return [
            Batch(f"{name}_{start // size + 1}", specs[0].verb, tuple(specs[start : start + size]))
            for name, specs in alike.items()
            for start in range(0, len(specs), size)
        ]

    def missing(self) -> list[str]:
        """A line for each dataset that is neither there nor drawn by us."""
        return [
            f"dataset {name}: {place / 'index.json'} is not there; run `mgm prepare {name} --source DIR --out {place}`"
            for name, place in self.places.items()
            if name not in self.generated and not (place / "index.json").exists()
        ]


def overview(workflow: Workflow) -> str:
    """What the DAG will do and take, said before it starts."""
    specs = workflow.registry.specs
    verbs = Counter(spec.verb for spec in specs.values())
    done = sum(Path(workflow.result(run_id)).exists() for run_id in specs)
    jobs = len(workflow.generated) + sum(not all(Path(workflow.result(s.run_id)).exists() for s in b.specs) for b in workflow.batches())
    return (
        f"{workflow.name}: {len(specs)} runs ({', '.join(f'{count} {verb}' for verb, count in verbs.items())}), {done} of them done; "
        f"at most {jobs + 1} jobs. The whole takes {workflow.scale.takes}.\n"
        f"Stop it whenever you like; called again, it continues. The page will be {workflow.reports / 'index.html'}"
    )


def registry_of(results: Path) -> Registry:
    """The registry that the workflow left in a results folder, so that reports need neither the workflow nor the data.

    Raises:
        UserError: nothing ran there.
    """
    path = results / "scale.json"
    if not path.exists():
        raise UserError(f"{path}: no such file; run `snakemake --cores all` first, or correct the name {results.name}")
    return Registry(parse_scale(json.loads(path.read_text()), path))


if __name__ == "__main__":  # `make reproduce` says it first
    print(overview(Workflow({})))
