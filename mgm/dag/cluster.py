"""What jobs ask of a Slurm cluster.

The values lie in workflow/profiles/slurm/cluster.yaml and in a user's file over it.
"""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mgm.dag import WORKFLOW
from mgm.errors import UserError, valid
from mgm.reading import deep_merge, read_yaml
from mgm.spec import FrozenModel, RunOptions

PROFILE = WORKFLOW / "profiles" / "slurm"
USUAL = "cluster.yaml"  # of a user, where Snakemake runs; it need not exist
TORCHRUN = (  # on the first node, where Snakemake's shell fills in its name
    """bash -c 'trap "" TERM USR1; exec torchrun "$@"' torchrun """
    "--signals-to-handle=SIGINT --rdzv-backend=c10d "
    "--rdzv-endpoint=$(hostname):$((10000 + SLURM_JOB_ID % 20000)) --rdzv-id=$SLURM_JOB_ID"
)
# before the time limit, for a last checkpoint; Slurm sends it up to a minute early, too early for a
# job of minutes
WARNING_S = 120


class JobResources(RunOptions):
    """Resources that one job asks for, and options in place of the scale's.

    `gpus` are of a node, each with a process (none: one process); `cpus` and `mem_gb` are of a
    process.
    """

    nodes: int = Field(ge=1)
    gpus: int = Field(ge=0)
    cpus: int = Field(ge=1)
    mem_gb: float = Field(gt=0)
    hours: float = Field(gt=0)

    @property
    def processes(self) -> int:
        """On all nodes."""
        return self.nodes * max(self.gpus, 1)

    @property
    def layout(self) -> list[str]:
        """Options of sbatch and srun: one task on each node, which starts the node's processes."""
        gres = [f"--gres=gpu:{self.gpus}"] if self.gpus else []
        cpus = self.cpus * max(self.gpus, 1)
        return [
            f"--nodes={self.nodes}",
            f"--ntasks={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={cpus}",
            *gres,
        ]


SlurmName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.,+:@-]{0,254})?$")]
# Options of sbatch that the executor takes as resources of their own.
RESOURCES = ("constraint", "qos", "clusters")
# Options that the executor or other fields of the cluster file set. The executor refuses some of
# them, but only when a job is submitted.
SET_HERE = {
    *("--wrap", "--output", "-o", "--array", "-a", "--job-name", "-J", "--parsable"),
    *("--test-only", "--help", "-h", "--usage", "--version", "-V", "--signal", "--chdir", "-D"),
    *("--partition", "-p", "--account", "-A", "--nodes", "-N", "--ntasks", "-n", "--time", "-t"),
    *("--cpus-per-task", "-c", "--mem", "--ntasks-per-node", "--requeue", "--no-requeue"),
    *("--error", "-e", "--export", "--comment", "--workdir", "--mem-per-cpu", "--gres", "--gpus"),
    *("--ntasks-per-gpu", "--cpus-per-gpu"),
}


def _as_options(text: str) -> str:
    """Return further options of sbatch, each quoted so that a shell takes it as it is."""
    if not text.isprintable():
        raise ValueError("holds a character that cannot be printed")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"is no list of options ({error})") from None
    before = "="
    for word in words:
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise ValueError(f"{word!r} is no option of sbatch; write --NAME=VALUE")
        name, equals, _ = word.partition("=")
        if word[:2] in ("-C", "-M", "-q") or (name[2:] in RESOURCES and not equals):
            raise ValueError(f"{word}: write it as --NAME=VALUE, such as --constraint=h100")
        if name in SET_HERE or (word[:1] == "-" != word[1:2] and word[:2] in SET_HERE):
            raise ValueError(f"{word} is set by mgm or Snakemake, or by another field; remove it")
        before = word
    return shlex.join(words)


class Cluster(FrozenModel):
    """Say where jobs go, what each kind asks for, and where the datasets lie."""

    partition: SlurmName = ""
    account: SlurmName = ""
    sbatch: Annotated[str, AfterValidator(_as_options)] = ""
    data: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    shards: int = Field(1, ge=1)
    jobs: dict[str, JobResources]

    def resources(self, kind: str) -> dict[str, Any]:
        """A rule's `resources:`, as Snakemake's Slurm executor reads them."""
        job = self.jobs[kind]
        extra = [f"--signal=TERM@{WARNING_S}"] if 3600 * job.hours > 5 * WARNING_S else []
        asked: dict[str, Any] = {}
        for word in shlex.split(self.sbatch):
            name, _, value = word.removeprefix("--").partition("=")
            if name in RESOURCES:
                asked[name] = value
            else:
                extra.append(word)
        asked |= {
            "nodes": job.nodes,
            "mem_mb": round(1000 * job.mem_gb * max(job.gpus, 1)),
            "runtime": max(round(60 * job.hours), 1),
            "slurm_extra": shlex.join(extra),
        }
        asked |= {"slurm_partition": self.partition} if self.partition else {}
        asked |= {"slurm_account": self.account} if self.account else {}
        # 0: tasks are counted by node.
        asked |= {"gres": f"gpu:{job.gpus}", "tasks_per_gpu": 0} if job.gpus else {}
        asked |= (
            {"tasks": job.nodes, "mpi": "srun", "cpus_per_task": job.cpus * max(job.gpus, 1)}
            if job.processes > 1
            else {}
        )
        return asked

    def command_wrapper(self, kind: str, log: str) -> str:
        """Return the shell code before a job's command.

        `run.sh`, and for a job of several processes `srun`, which starts one torchrun on each node.

        Snakemake's shell must outlive a SIGTERM that all of a job's processes get, or nothing would
        be left to requeue it. So must torchrun, which would give a step and its checkpoint 30 s;
        the processes it starts handle the signal themselves.
        """
        job = self.jobs[kind]
        srun = (
            f"srun {' '.join(job.layout)} --kill-on-bad-exit=1 {TORCHRUN}"
            if job.processes > 1
            else ""
        )
        srun += (
            f" --nnodes={job.nodes} --nproc-per-node={max(job.gpus, 1)} --no-python"
            if job.processes > 1
            else ""
        )
        return f"trap : TERM USR1; {shlex.quote(str(PROFILE / 'run.sh'))} {shlex.quote(log)} {srun}"

    def submit_errors(self, kinds: set[str]) -> list[str]:
        """Return a line for each kind of job that the cluster refuses.

        Slurm itself is asked (`sbatch --test-only`), and nothing is submitted.
        """
        if not shutil.which("sbatch"):
            return [
                "no Slurm on this machine (sbatch is not found); run it where jobs are submitted, "
                "or `snakemake --cores all` here"
            ]
        found = []
        for kind in sorted(kinds):
            asked = self.resources(kind)
            words = ["sbatch", "--test-only", *self.jobs[kind].layout]
            words += [
                f"--mem={asked['mem_mb']}",
                f"--time={asked['runtime']}",
                *shlex.split(self.sbatch),
            ]
            words += [f"--partition={self.partition}"] if self.partition else []
            words += [f"--account={self.account}"] if self.account else []
            done = subprocess.run(
                [*words, "--wrap", "true"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = (
                    done.stderr.strip()
                    .splitlines()[-1]
                    .removeprefix("allocation failure: ")
                    .removeprefix("sbatch: error: ")
                )
                found.append(
                    f"Slurm refuses {kind} jobs: {reason} ({' '.join(words[2:])}); correct {USUAL}"
                )
        return found


def load_cluster(given: str, partition: str = "", account: str = "") -> Cluster:
    """The profile's values, under those of a user's file, under those of the command line.

    Raises:
        UserError: the file is not there, or has a field that is unknown or invalid.
    """
    file = Path(given)
    if given != USUAL and not file.exists():
        raise UserError(
            f"--config cluster={given}: no such file; copy {PROFILE.name}/cluster.yaml there, or "
            "leave it out"
        )
    own = read_yaml(file) if file.exists() else {}
    fields = deep_merge(read_yaml(PROFILE / "cluster.yaml"), own)
    fields |= {
        name: value for name, value in (("partition", partition), ("account", account)) if value
    }
    if isinstance(jobs := fields.get("jobs"), dict) and "finetune" in jobs:
        # Domain adaptation is finetuning, so it asks for the same unless the file says otherwise.
        adapt, finetune = jobs.get("adapt", {}), jobs["finetune"]
        both = isinstance(adapt, dict) and isinstance(finetune, dict)
        fields["jobs"] = jobs | {"adapt": deep_merge(finetune, adapt) if both else adapt}
    with valid(f"{given}: ", "the profile's cluster.yaml shows what there is"):
        return Cluster.model_validate(fields)
