"""Messages of the workflow: what it will do, what would stop a job, and where it stopped."""

import os
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mgm.dag.workflow import Workflow
from mgm.data.index import read_index, require_labels, require_vectors
from mgm.errors import UserError
from mgm.results.result import lacks_weights
from mgm.spec import CODEC, MASKS, Finetune, Pretrain, Spec, parents

SCRATCH = 1 << 20  # bytes


def require_scratch() -> None:
    """Check that Snakemake, which would not say why it ends, can write to TMPDIR.

    Raises:
        OSError: it cannot. The error names the place.
    """
    place = os.environ.get("TMPDIR") or "/tmp"
    try:
        with TemporaryFile(dir=place) as file:
            file.write(bytes(SCRATCH))
            file.flush()
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), place) from None


def overview(workflow: Workflow, names: Collection[str]) -> str:
    """Return a summary of these jobs of the DAG."""
    specs = workflow.plan.specs
    to_do = Counter(spec.stage for name in names for spec in workflow.jobs[name].specs)
    stages = ", ".join(f"{count} {stage}" for stage, count in to_do.items())
    done = sum((workflow.results / run_id / "result.json").exists() for run_id in specs)
    cost = workflow.expected_cost
    return (
        f"{workflow.name}: {len(names)} jobs with {to_do.total()} runs"
        f"{f' ({stages})' if stages else ''}; {done} of all {len(specs)} runs are done."
        f"{f' All of it takes {cost}.' if cost else ''}\n"
        "You can stop it at any time; the same command continues."
        f" The page will be {workflow.reports / 'index.html'}"
    )


def summarise(workflow: Workflow, dag: Any) -> None:
    """Print what a dry run found; nothing if it ended before it had a DAG."""
    if dag:
        # After a dry run, Snakemake takes no job as needed any more.
        names = _names(dag.jobs) - {*workflow.done}
        print(overview(workflow, names), *missing(workflow, names).values(), sep="\n")


def wanted(dag: Any) -> set[str]:
    """Return the names of the jobs that Snakemake's DAG will run."""
    return _names(dag.needrun_jobs())


def _names(jobs: Iterable[Any]) -> set[str]:
    names = (getattr(job.wildcards, "job", "") for job in jobs)
    return {name for name in names if name}


def ended_early(workflow: Workflow, names: Iterable[str], started: float) -> str:
    """Return a message on the jobs that are not done, with the logs of those that began.

    Args:
        started: seconds since 1970. A log that is older is of an earlier call.
    """
    jobs = [name for name in names if not workflow.is_done(name)]
    logs = [workflow.logs / f"{name}.log" for name in jobs]
    begun = [str(log) for log in logs if log.exists() and log.stat().st_mtime >= started]
    see = f"; see {', '.join(begun)}" if begun else ""
    return f"mgm: {workflow.name}: {len(jobs)} jobs are not done{see}. The same command continues."


def missing(workflow: Workflow, names: Collection[str]) -> dict[str, str]:
    """Return an error line for each dataset of these jobs that is absent and that no job makes."""
    lines = {}
    read = {workflow.key_of(spec.data) for spec in _specs(workflow, names)}
    read |= {part for name in read for part in workflow.built.get(name, ())}
    for name, place in workflow.places.items():
        if name in read - {*workflow.built} and not (place / "index.json").exists():
            command = shlex.join(["mgm", *workflow.preparation[name]])
            lines[name] = f"dataset {name}: {place / 'index.json'} is missing; run `{command}`"
    return lines


def _specs(workflow: Workflow, names: Collection[str]) -> list[Spec]:
    return [spec for name, job in workflow.jobs.items() if name in names for spec in job.specs]


def problems(workflow: Workflow, names: Collection[str]) -> list[str]:
    """Return an error line for each thing that would stop these jobs."""
    specs, key_of = _specs(workflow, names), workflow.key_of
    lines = list(missing(workflow, names).values())
    checks: list[partial[Any]] = [
        partial(_check_index, workflow.places[name], [s for s in specs if key_of(s.data) == name])
        for name in {key_of(spec.data) for spec in specs}
        if (workflow.places[name] / "index.json").exists()
    ]
    for check in checks:
        try:
            check()
        except UserError as error:
            lines.append(str(error))
    for spec in specs:
        for parent in set(parents(spec)) - {spec.run_id for spec in specs}:
            if lacks_weights(workflow.results / parent):
                lines.append(
                    f"{workflow.results / parent}: has no weights, which {spec.run_id} starts "
                    "from; delete this folder to train it again"
                )
    return [*lines, *_cluster_problems(workflow, names)]


def _check_index(place: Path, specs: Sequence[Spec]) -> None:
    index = read_index(place)
    for spec in specs:
        require_labels(index, spec)
    masks = [spec.mask for spec in specs if isinstance(spec, Pretrain)]
    if led := [mask.name for mask in masks if MASKS[mask.name].guided and mask.guidance in CODEC]:
        require_vectors(index.train, led[0])


def _cluster_problems(workflow: Workflow, names: Collection[str]) -> list[str]:
    """Return an error line if there is no Slurm, and for batches that processes cannot share."""
    if not workflow.cluster:
        return []
    lines = {}
    if not shutil.which("sbatch"):
        lines[""] = "sbatch is not found: this machine has no Slurm; run it on a login node"
    for name in names:
        rule = workflow.jobs[name].rule
        asked = workflow.cluster.jobs[rule]
        for spec in workflow.jobs[name].specs:
            if isinstance(spec, Pretrain | Finetune) and (
                spec.optim.batch % (asked.processes * asked.accumulate)
            ):
                lines[rule] = (
                    f"{spec.run_id}: a batch of {spec.optim.batch} is not divisible by "
                    f"{asked.processes} processes x {asked.accumulate} micro-batches; change "
                    f"jobs.{rule} in cluster.yaml"
                )
    return list(lines.values())
