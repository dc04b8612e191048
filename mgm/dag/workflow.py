"""The runs of a scale or a study as Snakemake's rules need them: inputs, commands and targets.

The Snakefile builds a `Workflow` in every process, so importing this must not import torch.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from mgm.console import show
from mgm.drawn.params import parse_params
from mgm.errors import UserError, nearest, valid
from mgm.files import locked, write_text
from mgm.results.frame import freeze
from mgm.spec import FLOWS, PUBLISHED, FrozenModel, Pretrain, Spec, parents
from mgm.study import CONFIG, STUDIES
from mgm.study.expand import expand, with_parents
from mgm.study.scales import ScaleDataset, file_of, load_scale, of_paper
from mgm.study.schema import load_study

# Datasets that `mgm prepare` reads from a download.
DOWNLOADS = [name for name, dataset in PUBLISHED.items() if not dataset.derived_from]
SMI_S = 20  # seconds that nvidia-smi may take


class DagOptions(FrozenModel):
    """Options of `snakemake --config`. All may be left out."""

    # smoke, mini, paper, or a YAML file. Default: smoke, and with the profile slurm paper.
    scale: str = ""
    # A study of studies/, or a YAML file, in place of the paper's experiments.
    study: str = ""
    # Set by the profile slurm: jobs start through its launch.sh.
    slurm: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.scale and self.study:
            raise ValueError("a study has a scale of its own; leave out scale or study")
        return self


class Workflow:
    """The runs of one scale or study, their datasets, and the commands that make both.

    Attributes:
        specs: every run by its id, parents before children.
        places: the folder of each dataset, by key.
        sources: folders of downloads by published dataset, as `--config ucf101=DIR` names them.
        batches: the runs that each run's job makes, by the id of the first.
    """

    def __init__(self, config: Mapping[str, Any], data: str = "data"):
        self.sources = {name: str(config[name]) for name in DOWNLOADS if name in config}
        own = {name: value for name, value in config.items() if name not in self.sources}
        names = ", ".join([*DagOptions.model_fields, *DOWNLOADS])
        with valid("--config ", f"the options are {names}"):
            self.options = options = DagOptions.model_validate(own)
        if options.study:
            study = load_study(file_of(options.study, STUDIES))
            self.scale = load_scale(file_of(study.scale, CONFIG))
            self.studies, self.name = [study], study.study
            self.cost = study.expected_cost
            self.execution = study.execution or self.scale.execution
            most = study.specs_per_job or self.scale.specs_per_job
        else:
            name = options.scale or ("paper" if options.slurm else "smoke")
            self.scale = load_scale(file_of(name, CONFIG))
            self.studies, self.name = of_paper(self.scale), self.scale.name
            self.cost, self.execution = self.scale.expected_cost, self.scale.execution
            most = self.scale.specs_per_job
        self.results, self.logs = Path("results", self.name), Path("logs", self.name)
        self.expansion = expand(self.studies, self.scale)
        self.specs, self.datasets = self.expansion.specs, self.expansion.datasets
        self.places = {key: _place(key, one, data) for key, one in self.datasets.items()}
        self.keys = {str(place): key for key, place in self.places.items()}
        self._key_of = {(one.name or key, one.digest): key for key, one in self.datasets.items()}
        for name in self.sources:
            if name not in self.datasets:
                raise UserError(f"--config {name}: {self.name} does not use this dataset")
        # A Slurm job per run: jobs wait in the queue, not for each other.
        self.batches = self._batches(1 if options.slurm else most)
        self._first = {one: first for first, batch in self.batches.items() for one in batch}

    def _batches(self, most: int) -> dict[str, list[str]]:
        """Return batches of up to `most` runs of one stage.

        The runs of a batch have the same depth in the DAG, so none depends on another, and the same
        tables and figures need them: a table makes no run of others.
        """
        targets_of = dict.fromkeys(self.specs, "")
        for target, run_ids in self.expansion.targets.items():
            for spec in with_parents(self.specs, run_ids):
                targets_of[spec.run_id] += f" {target}"
        depths, groups = dict[str, int](), dict[tuple[Any, ...], list[str]]()
        for run_id, spec in self.specs.items():
            depths[run_id] = 1 + max((depths[parent] for parent in parents(spec)), default=-1)
            key = depths[run_id], spec.stage, targets_of[run_id]
            groups.setdefault(key, []).append(run_id)
        batches = dict[str, list[str]]()
        for group in groups.values():
            count = -(-len(group) // most)
            for start, end in pairwise(len(group) * part // count for part in range(count + 1)):
                batches[group[start]] = group[start:end]
        return batches

    def key(self, spec: Spec) -> str:
        """Return the key of a run's dataset."""
        return self._key_of[spec.data.dataset, spec.data.digest]

    def makes(self, run_id: str) -> list[Spec]:
        """Return the runs that a run's job makes: its batch if it is the first, else itself.

        Raises:
            UserError: there is no such run.
        """
        if run_id not in self.specs:
            raise UserError(f"{self.name}: has no run {run_id}; {nearest(run_id, self.specs)}")
        return [self.specs[one] for one in self.batches.get(run_id, [run_id])]

    def needs(self, run_id: str) -> list[str]:
        """Return the input files of a run's job."""
        specs = self.makes(run_id)
        files = set() if run_id in self.batches else {self.result(self._first[run_id])}
        for spec in specs:
            files.add(str(self.places[self.key(spec)] / "index.json"))
            files.update(map(self.result, parents(spec)))
            if isinstance(spec, Pretrain) and spec.mask.guidance in FLOWS:
                files.add(str(self.places[self.key(spec)] / f"tracks-{spec.mask.guidance}.json"))
        return sorted(files)

    @property
    def batched(self) -> str:
        """A regular expression of the runs that are not the first of their batch."""
        others = (re.escape(run_id) for run_id in self.specs if run_id not in self.batches)
        return "|".join(others) or "(?!)"

    def result(self, run_id: str) -> str:
        return str(self.results / run_id / "result.json")

    @property
    def targets(self) -> dict[str, list[str]]:
        """The results of each study, table and figure, by name. "all" has every one."""
        targets = self.expansion.targets
        return {name: [*map(self.result, run_ids)] for name, run_ids in targets.items()}

    def run(self, run_id: str) -> str:
        """Return the command of a run's job."""
        specs = self.makes(run_id)
        words = ["mgm", "run", *(str(self._spec_file(spec.run_id)) for spec in specs)]
        for key in dict.fromkeys(map(self.key, specs)):
            words += ["--data", f"{self.datasets[key].name or key}={self.places[key]}"]
        words += ["--out", str(self.results)]
        return shlex.join([*words, *self.execution.words()])

    def made_from(self, place: str) -> list[str]:
        """Return the indices that a dataset is made from."""
        key = self.keys[place]
        return [str(self.places[part] / "index.json") for part in self._parts(key)]

    def _parts(self, key: str) -> list[str]:
        """Return the datasets that a dataset is made from, if they are of this workflow."""
        dataset, published = self.datasets[key], PUBLISHED.get(key)
        parts = dataset.adapt or (published.derived_from if published and dataset.root else ())
        return [part for part in parts if part in self.datasets]

    def prepare(self, place: str, processes: int = 0) -> str:
        """Return the command that makes a dataset."""
        key = self.keys[place]
        dataset, parts = self.datasets[key], self._parts(key)
        if dataset.generate:
            words = ["drawn", "--params", str(self._params_file(key))]
        elif parts:
            folders = (str(self.places[part]) for part in parts)
            words = [dataset.name or key, *sum(zip(("--source", "--target"), folders), ())]
        elif key in PUBLISHED:
            words = [key, "--source", self.sources.get(key, "DIR")]
        else:
            words = ["folder", "--source", "DIR"]
        if processes and not parts:
            words += ["--processes", str(processes)]
        return shlex.join(["mgm", "prepare", *words, "--out", place])

    def start(self, places: Iterable[str]) -> None:
        """Freeze the study, and write the files that jobs read. Call it before the first job.

        Args:
            places: the datasets that jobs make.

        Raises:
            UserError: a dataset is missing that no job can make.
        """
        for place in places:
            command = self.prepare(place)
            if "--source DIR" in command:
                raise UserError(f"{place}/index.json: is missing; run `{command}`")
        with locked(self.results / "start.lock", f"{self.name}: the start"):
            file = self.options.study or self.options.scale
            own = file if file.endswith((".yaml", ".yml")) else ""
            freeze(self.results, self.studies, self.scale, self.expansion, own)
            files = {
                self._spec_file(run_id): spec.model_dump_json(indent=1)
                for run_id, spec in self.specs.items()
            }
            for key, dataset in self.datasets.items():
                if dataset.generate:
                    drawn = parse_params(dataset.generate, key).model_dump_json(indent=1)
                    files[self._params_file(key)] = drawn
            for path, text in files.items():
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    write_text(path, text)
        cost = f" All of it takes {self.cost}." if self.cost else ""
        show(f"{self.name}: you can stop at any time; the same command continues.{cost}")

    def _spec_file(self, run_id: str) -> Path:
        return self.results / "specs" / f"{run_id}.json"

    def _params_file(self, key: str) -> Path:
        return self.results / "datasets" / f"{key}.json"


def _place(key: str, dataset: ScaleDataset, data: str) -> Path:
    """Return the folder of a dataset."""
    if dataset.root:
        return Path(dataset.root)
    return Path(data, f"{dataset.name or key}-{dataset.digest}")


def visible_gpus() -> list[str]:
    """Return the GPUs that runs on this machine may use, as CUDA_VISIBLE_DEVICES names them.

    The rule is CUDA's: names count up to the first that is none, such as -1, and a name that is
    given twice leaves no GPU.
    """
    listed = _count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [*map(str, range(listed))]
    names = list[str]()
    for name in map(str.strip, visible.split(",")):
        number = re.match(r"\d+", name)
        if not number and not name.startswith(("GPU-", "MIG-")):
            break
        if number and listed and int(number[0]) >= listed:
            break
        names.append(number[0] if number else name)
    return names if len({*names}) == len(names) else []


def _count() -> int:
    """Return how many NVIDIA GPUs nvidia-smi lists; 0 without it."""
    try:
        smi = subprocess.Popen(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True)
    except OSError:
        return 0
    try:
        return sum(
            line.startswith("GPU ") for line in smi.communicate(timeout=SMI_S)[0].split("\n")
        )
    except subprocess.TimeoutExpired:
        # It may hang in the driver, where no signal ends it, so do not wait for its end.
        smi.kill()
        show(f"mgm: nvidia-smi does not answer in {SMI_S} s; runs start without GPUs of their own")
        return 0
