"""What would stop a job, found before the first one starts."""

import shlex
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from mgm.dag.cluster import Cluster
from mgm.dag.jobs import DagJob
from mgm.dag.study import Workflow
from mgm.data.index import read_index, require_vectors
from mgm.errors import UserError
from mgm.masking import MASKS
from mgm.spec import CODEC, Finetune, Pretrain, Spec


def missing(workflow: Workflow) -> dict[str, str]:
    """A line for each dataset that is neither there nor made here."""
    found = {}
    for name, place in workflow.places.items():
        if name not in workflow.built_datasets and not (place / "index.json").exists():
            command = (
                f"mgm prepare {shlex.join([*workflow.preparation(name), '--out', str(place)])}"
            )
            found[name] = f"dataset {name}: {place / 'index.json'} is not there; run `{command}`"
    return found


def problems(workflow: Workflow, names: Collection[str]) -> list[str]:
    """A line for each thing that would stop these jobs: a dataset missing, not as its index says,
    or without the motion vectors that a mask follows; weights that do not fit; a cluster that
    refuses such jobs."""
    jobs = [job for name, job in workflow.jobs.items() if name in names]
    specs = [spec for job in jobs for spec in job.specs]
    needed = {spec.data.dataset for spec in specs}
    absent = missing(workflow)
    found = [line for name, line in absent.items() if name in needed]
    checks: list[Callable[[], object]] = [
        partial(
            _check_index,
            workflow.places[name],
            [spec for spec in specs if spec.data.dataset == name],
        )
        for name in workflow.places
        if name in needed - absent.keys() and (workflow.places[name] / "index.json").exists()
    ]
    if workflow.scale.flow == "raft-small" and workflow.scale.flow_weights:
        from mgm.video.optical_flow import estimator  # torch, as below

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
            found.append(str(error))
    if workflow.scale.grid and not workflow.cluster:
        found += gpu_problems(workflow, specs)
    if workflow.cluster:
        found += workflow.cluster.submit_errors({job.rule for job in jobs})
        found += check_divisible(workflow.cluster, jobs)
    return found


def _check_index(place: Path, specs: Iterable[Spec]) -> None:
    videos = read_index(place).train
    for spec in specs:
        if (
            isinstance(spec, Pretrain)
            and MASKS[spec.mask.name].guided
            and spec.mask.guidance in CODEC
        ):
            require_vectors(videos, spec.mask.name)


def check_divisible(cluster: Cluster, jobs: Iterable[DagJob]) -> list[str]:
    """Return a line for each rule whose processes cannot share its batch evenly."""
    found = {}
    for job, spec in [(one, spec) for one in jobs for spec in one.specs]:
        asked = cluster.jobs[job.rule]
        if isinstance(spec, Pretrain | Finetune) and (
            spec.optim.batch % (asked.processes * asked.accumulate)
        ):
            found[job.rule] = (
                f"{spec.run_id}: a batch of {spec.optim.batch} is not shared out evenly among {asked.processes} processes "
                f"x {asked.accumulate} parts; change jobs.{job.rule} in cluster.yaml"
            )
    return list(found.values())


def gpu_problems(workflow: Workflow, specs: Collection[Spec]) -> list[str]:
    """Return a line for each thing that this machine's GPU lacks for a scale of one GPU."""
    if workflow.yes or not workflow.scale.memory_gb:
        return []
    if not any(isinstance(spec, Pretrain | Finetune) for spec in specs):
        return []
    import torch

    name, wanted = workflow.scale.name, workflow.scale.memory_gb
    if not torch.cuda.is_available():
        from mgm.paper.plan import cpu_hours

        return [
            f"scale {name}: there is no GPU here, and a core would take about "
            f"{cpu_hours(workflow.registry):,.0f} hours; add yes=true to --config to run it so"
        ]
    found = []
    free = torch.cuda.get_device_properties(0).total_memory / 1e9
    if free < wanted:
        found.append(
            f"scale {name}: {torch.cuda.get_device_name()} has {free:.0f} GB and this size takes "
            f"{wanted:g}; choose a smaller gpu= size, or add yes=true"
        )
    trained = (spec for spec in specs if isinstance(spec, Pretrain | Finetune))
    wants = any(spec.optim.precision == "bf16" for spec in trained)
    if wants and not torch.cuda.is_bf16_supported(including_emulation=False):
        found.append(
            f"scale {name}: {torch.cuda.get_device_name()} has no bf16; "
            "set optim.precision to float32 in a scale of your own, or add yes=true"
        )
    return found
