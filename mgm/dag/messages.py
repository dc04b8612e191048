"""Messages of the workflow: what it will do, what would stop a job, and where it stopped."""

import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mgm.dag.cluster import Cluster
from mgm.dag.jobs import DagJob
from mgm.dag.study import Workflow, job_of
from mgm.data.index import read_index, require_labels, require_vectors
from mgm.data.opening import files_below
from mgm.data.published.listed import SUFFIXES
from mgm.errors import UserError
from mgm.spec import CODEC, MASKS, PUBLISHED, Finetune, Pretrain, Spec


def overview(workflow: Workflow) -> str:
    """Return a summary of the DAG, which is printed before it starts."""
    specs = workflow.registry.specs
    stages = Counter(spec.stage for spec in specs.values())
    done = sum((workflow.results / run_id / "result.json").exists() for run_id in specs)
    jobs = len(workflow.jobs) - len(workflow.done)
    cost = workflow.scale.expected_cost
    takes = f"All of it takes {cost}." if cost else ""
    if workflow.scale.own_videos:
        takes = (
            f"With generated videos it takes {cost}. For yours, lines say how long it takes once "
            "each stage has a finished run."
        )
    return (
        f"{workflow.name}: {len(specs)} runs"
        f" ({', '.join(f'{count} {stage}' for stage, count in stages.items())}), {done} of them "
        f"done; at most {jobs + 1} jobs. {takes}\n"
        "You can stop it at any time; the same command continues."
        f" The page will be {workflow.reports / 'index.html'}"
    )


def wanted(dag: Any) -> set[str]:
    """Return the names of the jobs that Snakemake's DAG will run."""
    markers = (getattr(job.wildcards, "job", "") for job in dag.needrun_jobs())
    return {job_of(marker) for marker in markers if marker}


def ended_early(workflow: Workflow, names: Iterable[str], started: float) -> str:
    """Return a message on the jobs that are not done, with the logs of those that began.

    Args:
        started: seconds since 1970. A log that is older is of an earlier call.
    """
    jobs = [name for name in names if not workflow.is_done(name)]
    logs = [workflow.logs / f"{name}.log" for name in jobs]
    begun = [str(log) for log in logs if log.exists() and log.stat().st_mtime >= started]
    left = f"{len(jobs)} jobs are not done" if jobs else "stopped after the last job"
    reason = f"; see {', '.join(begun)}" if begun else ""
    return f"mgm: {workflow.name}: {left}{reason}. The same command continues."


def order(workflow: Workflow) -> list[str]:
    """Return the jobs that are not done, in the order in which they start one at a time."""
    left = {name: job for name, job in workflow.jobs.items() if name not in workflow.done}
    names = list[str]()
    while left:
        ready = (job for job in left.values() if not left.keys() & {*job.after})
        names.append(max(ready, key=lambda job: job.priority).name)
        del left[names[-1]]
    return names


def missing(workflow: Workflow) -> dict[str, str]:
    """Return an error line for each dataset that is absent and that no job makes."""
    lines = {}
    for name, place in workflow.places.items():
        if name not in workflow.built_datasets and not (place / "index.json").exists():
            command = f"mgm {shlex.join([*workflow.preparation(name), '--out', str(place)])}"
            lines[name] = f"dataset {name}: {place / 'index.json'} is missing; run `{command}`"
    return lines


def dry_run(workflow: Workflow) -> str:
    """Return the end of a dry run: the overview, and the datasets that are missing.

    At a scale for one GPU, the jobs come first, since Snakemake's list is not in their order.
    """
    listed = ["the jobs, in the order in which they run:", *order(workflow)]
    lines = [overview(workflow), *missing(workflow).values()]
    return "\n".join([*(listed if workflow.scale.memory_gb else []), *lines])


def problems(workflow: Workflow, names: Collection[str]) -> list[str]:
    """Return an error line for each thing that would stop these jobs.

    A dataset may be missing, differ from its index, have too few videos for the labels that a run
    takes, or lack the motion vectors that a mask follows. Weights may not fit.
    """
    jobs = [job for name, job in workflow.jobs.items() if name in names]
    specs = [spec for job in jobs for spec in job.specs]
    key_of = workflow.scale.key_of
    needed = {key_of(spec.data) for spec in specs}
    absent = missing(workflow)
    lines = [line for name, line in absent.items() if name in needed]
    checks: list[Callable[[], object]] = [
        partial(_check_index, place, [spec for spec in specs if key_of(spec.data) == name])
        for name, place in workflow.places.items()
        if name in needed and (place / "index.json").exists()
    ]
    if workflow.scale.flow == "raft-small" and workflow.scale.flow_weights:
        # This imports torch, as the import below does.
        from mgm.video.optical_flow import estimator

        checks.append(partial(estimator, "raft-small", Path(workflow.scale.flow_weights)))
    if workflow.external:
        from mgm.models import build_classifier, load_encoder

        users = {
            spec.parent: spec
            for spec in workflow.registry.specs.values()
            if isinstance(spec, Finetune)
        }
        checks += [
            partial(load_encoder, build_classifier(users[name], 1), path)
            for name, path in workflow.external.items()
        ]
    for check in checks:
        try:
            check()
        except UserError as error:
            lines.append(str(error))
    if workflow.scale.memory_gb and not (workflow.cluster or workflow.yes):
        lines += gpu_problems(workflow, specs)
        lines += archive_problems(workflow, needed)
    if workflow.cluster:
        if not shutil.which("sbatch"):
            lines.append(
                "sbatch is not found, so this machine has no Slurm; run this on a login node of "
                "the cluster, or `snakemake --cores all` here"
            )
        lines += check_divisible(workflow.cluster, jobs)
    return lines


def _check_index(place: Path, specs: Sequence[Spec]) -> None:
    index = read_index(place)
    require_labels(index, max((spec.data.labels_per_class for spec in specs), default=0))
    for spec in specs:
        if (
            isinstance(spec, Pretrain)
            and MASKS[spec.mask.name].guided
            and spec.mask.guidance in CODEC
        ):
            require_vectors(index.train, spec.mask.name)


def check_divisible(cluster: Cluster, jobs: Iterable[DagJob]) -> list[str]:
    """Return an error line for each rule with a batch that its processes cannot share evenly."""
    lines = {}
    for job in jobs:
        asked = cluster.jobs[job.rule]
        for spec in job.specs:
            if isinstance(spec, Pretrain | Finetune) and (
                spec.optim.batch % (asked.processes * asked.accumulate)
            ):
                lines[job.rule] = (
                    f"{spec.run_id}: a batch of {spec.optim.batch} is not divisible by "
                    f"{asked.processes} processes x {asked.accumulate} micro-batches; change "
                    f"jobs.{job.rule} in cluster.yaml"
                )
    return list(lines.values())


def archive_problems(workflow: Workflow, datasets: Collection[str]) -> list[str]:
    """Return an error line for each dataset that lacks videos, at a scale for one GPU."""
    lines = []
    for name, source in workflow.sources.items():
        official = sum(PUBLISHED[name].official)
        if name not in datasets or (workflow.places[name] / "index.json").exists():
            continue
        names, _ = files_below(Path(source))
        count = sum(file.lower().endswith(SUFFIXES) for file in names)
        if count < official:
            lines.append(
                f"{name}={source}: contains {count:,} videos, and {name} has {official:,}; unpack "
                "its archive again, or add yes=true to --config to go on without the others"
            )
    return lines


def gpu_problems(workflow: Workflow, specs: Collection[Spec]) -> list[str]:
    """Return an error line for each thing that this machine's GPU lacks, at a scale for one GPU."""
    if not any(isinstance(spec, Pretrain | Finetune) for spec in specs):
        return []
    import torch

    name, wanted = workflow.scale.name, workflow.scale.memory_gb
    if not torch.cuda.is_available():
        return [
            f"scale {name}: is for a GPU, and this machine has none; add yes=true to --config to "
            "run anyway"
        ]
    lines = []
    free = torch.cuda.get_device_properties(0).total_memory / 1e9
    if free < wanted:
        lines.append(
            f"scale {name}: {torch.cuda.get_device_name()} has {free:.0f} GB, and this size takes "
            f"{wanted:g}; choose a smaller size with gpu=, or add yes=true"
        )
    trained = (spec for spec in specs if isinstance(spec, Pretrain | Finetune))
    wants = any(spec.optim.precision == "bf16" for spec in trained)
    if wants and not torch.cuda.is_bf16_supported(including_emulation=False):
        lines.append(
            f"scale {name}: {torch.cuda.get_device_name()} has no bf16; "
            "set optim.precision to float32 in a scale of your own, or add yes=true"
        )
    return lines
