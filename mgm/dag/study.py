"""The workflow of one scale or study: its jobs, their markers, and the files that they read.

The Snakefile builds it in every process, so importing it must not import torch.
"""

import shlex
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from typing import Any

from mgm.dag.jobs import (
    dataset_jobs,
    in_order,
    run_job,
    runs_of_jobs,
    weights_jobs,
)
from mgm.dag.setting import Setting
from mgm.results import atomic
from mgm.results.archive import unpack
from mgm.results.lock import folder_lock, wait_for_flock
from mgm.study import WORKFLOW


def job_of(marker: str) -> str:
    """Return the name of a marker's job."""
    return marker.partition("~")[0]


class Workflow(Setting):
    """The jobs of one scale or study, with their markers, files and lock.

    The constructor takes the arguments of `Setting`.
    """

    def __init__(self, *options: Any, **more: Any):
        super().__init__(*options, **more)
        # Holds the lock for as long as this object lives.
        self._locked: ExitStack | None = None
        groups = runs_of_jobs(self.registry)
        self.made_by = {spec.run_id: name for name, specs in groups.items() for spec in specs}
        # Finished runs whose weights are computed again, each with its job.
        self.rebuilt = weights_jobs(self.registry, self.results)
        makers = {
            run_id: [name, *filter(None, [self.rebuilt.get(run_id)])]
            for run_id, name in self.made_by.items()
        }
        jobs = dataset_jobs(self)
        for run_id, name in reversed(self.rebuilt.items()):
            again = run_job(self, name, [self.registry.specs[run_id]], makers)
            path = self.results / run_id / "weights.safetensors"
            jobs.append(replace(again, words=(*again.words, "--rebuild"), makes=(path,)))
        jobs += [run_job(self, name, specs, makers) for name, specs in groups.items()]
        rank = {run_id: place for place, run_id in enumerate(self.registry.specs)}
        self.jobs = in_order(jobs, rank)
        self.done = {name for name in self.jobs if self.is_done(name)}
        self._markers = {name: self._free_marker(name) for name in self.jobs.keys() - self.done}

    def start(self) -> None:
        """Write the files that jobs read: the scale, the specs and the generators' parameters.

        Call it once before the first job, under the lock. Unchanged files are left alone.
        """
        unpack(self.results)
        files = {self.results / "scale.json": self.scale.model_dump_json(indent=1)}
        files |= {
            self.spec_file(run_id): spec.model_dump_json(indent=1)
            for run_id, spec in self.registry.specs.items()
        }
        files |= {
            self.params_file(dataset): params.model_dump_json()
            for dataset, params in self.generated.items()
        }
        for path, text in files.items():
            if not path.exists() or path.read_text() != text + "\n":
                atomic.write(path, text + "\n")
        if self.external:
            # This imports torch.
            from mgm.stages.parents import link

            for run_id, weights in self.external.items():
                link(weights, self.results / run_id)
        for stale in {*(self.results / "specs").glob("*.json")} - files.keys():
            stale.unlink()
        for marker in (self.results / "jobs").glob("*-*"):
            if job_of(marker.name) not in self.done:
                marker.unlink()

    def is_done(self, name: str) -> bool:
        """Return whether a job is done: its files exist, or its marker if it makes no files."""
        job = self.jobs[name]
        existing = (path.is_file() for path in job.makes)
        return all(existing) if job.makes else (self.results / "jobs" / name).exists()

    def lock(self) -> None:
        """Lock these results for this Snakemake until its process ends.

        Jobs of a killed Snakemake hold `jobs.lock` (workflow/here.sh) until they have written a
        checkpoint. This waits for them.

        Raises:
            UserError: another Snakemake works on these results.
        """
        if self._locked:
            return
        self._locked = ExitStack()
        (self.results / "jobs").mkdir(parents=True, exist_ok=True)
        self._locked.enter_context(folder_lock(self.results / "jobs"))
        with (self.results / "jobs.lock").open("w") as file:
            wait_for_flock(
                file,
                f"{self.name}: waiting until the jobs of a killed Snakemake have written "
                "checkpoints",
            )

    def markers(self, names: Iterable[str]) -> list[str]:
        """Return the markers of the jobs in `names` that are not done.

        The marker is a job's only declared output, since Snakemake deletes the declared outputs of
        a failed job.
        """
        return [self._markers[name] for name in names if name not in self.done]

    def _free_marker(self, name: str) -> str:
        """Return the marker that a job will write: JOB, or JOB~2, JOB~3, ... if JOB exists.

        If a user deletes results, their marker still exists. The job must then write another one.
        """
        folder = self.results / "jobs"
        names = (name if part == 1 else f"{name}~{part}" for part in count(1))
        return str(folder / next(name for name in names if not (folder / name).exists()))

    def needed_by(self, target: str) -> list[str]:
        """Return the inputs of a table or figure: existing results, and markers of the others."""
        runs = self.registry.runs_of(target)
        files = (self.results / spec.run_id / "result.json" for spec in runs)
        return [*self.markers_of(target), *(str(path) for path in files if path.is_file())]

    def markers_of(self, target: str) -> list[str]:
        """Return the markers of the jobs that make a table's or figure's runs."""
        runs = self.registry.runs_of(target)
        return self.markers(dict.fromkeys(self.made_by[spec.run_id] for spec in runs))

    def command_wrapper(self, name: str) -> str:
        """Return the shell code before a job's command.

        On a cluster it starts the job's processes. On this machine it makes the job end when
        Snakemake ends: `exec` makes Snakemake the parent of the job.
        """
        log = str(self.logs / f"{name}.log")
        if self.cluster:
            return self.cluster.command_wrapper(self.jobs[name].rule, log)
        return "exec " + shlex.join(
            [str(WORKFLOW / "here.sh"), log, str(self.results / "jobs.lock")]
        )

    def resources(self, rule: str) -> dict[str, Any]:
        """Return the resources that a rule requests from the cluster; none on this machine."""
        return self.cluster.resources(rule) if self.cluster else {}
