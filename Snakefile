# The paper as a DAG: prepare, flow -> pretrain -> finetune, probe, measure, sample -> report.
#
#   snakemake --cores all                                 everything at smoke scale
#   snakemake --cores all table4e                         one table, figure or study, and its runs
#   snakemake --cores all results/smoke/RUN/result.json   one run, and the runs it starts from
#   snakemake --cores all --until pretrain                up to a stage
#   snakemake --cores 1 report                            the page of existing runs; never trains
#   snakemake --cores all --config study=NAME             a study: of studies/, or a file of yours
#   snakemake --profile slurm table4e                     at the paper's scale, on a Slurm cluster
#   snakemake --cores all table4e --quiet all             --quiet takes the words after it
#
# Stop it at any time; the same command continues. studies/ has the studies, workflow/config/ their
# sizes, and mgm/dag/workflow.py the inputs and commands of each job.
#
# A job makes a batch of runs, since starting Python takes longer than some toy runs. Its output is
# a mark, which `mgm run` writes when each of its runs has ended, finished or failed. So a failed run
# holds up its own children alone, and the page's job names it at the end. Each call has marks of its
# own, for the batches that lack a run: the next call makes what is missing, and -n, --summary or a
# second call change nothing.

import atexit
import logging
import secrets
import shlex
import signal
import subprocess

from mgm.console import show
from mgm.dag.workflow import Workflow
from mgm.device import visible_gpus
from mgm.errors import one_line
from mgm.spec import STAGES
from mgm.study import WORKFLOW

# Rules call the mgm of this Python.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
# A container's user may have no name, which Snakemake asks for.
os.environ.setdefault("USER", str(os.getuid()))

if workflow.is_main_process:
    # Jobs of Slurm read this file too, and have the marks of their call.
    os.environ["MGM_CALL"] = secrets.token_hex(4)
with one_line():
    plan = Workflow(config, os.environ["MGM_CALL"])

# Start a job on all nodes that Slurm gave it, or here with a GPU of its own.
if plan.options.slurm:
    WORDS = "{resources.nodes} {resources.gpus} {resources.cpus_per_task}"
    LAUNCH = f"bash {shlex.quote(f'{workflow.basedir}/slurm/launch.sh')} {WORDS}"
else:
    LAUNCH = f"bash {shlex.quote(str(WORKFLOW / 'gpu.sh'))}"
# Write a job's output to its log, and show it.
LOG = "exec > >(tee -i {log:q}) 2>&1;"


def end(number, frame):
    """End at once on Ctrl-C."""
    os._exit(130)


def stop(number, frame):
    """Stop on Ctrl-C without an error per job that it ends. A second Ctrl-C ends at once."""
    signal.signal(signal.SIGINT, end)
    messages = logging.getLogger("snakemake.logging")
    messages.addFilter(lambda record: record.levelno < logging.ERROR)
    raise KeyboardInterrupt


def ended():
    """Say after a dry run what it makes, or which targets there are if one is unknown."""
    if settings := workflow.dag_settings:
        if said := plan.unknown(settings.targets) or workflow.dryrun * plan.about(settings.targets):
            show(said)


if workflow.is_main_process:
    atexit.register(ended)
    # Until the first job. Programs that are started in the background ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    # One run per GPU. `--resources gpus=2` leaves GPUs to others.
    if not plan.options.slurm:
        gpus = visible_gpus()
        os.environ["MGM_GPUS"] = ",".join(gpus)
        if gpus and "gpus" not in workflow.global_resources:
            workflow.register_resource("gpus", len(gpus))


wildcard_constraints:
    place="|".join(map(re.escape, plan.keys)),
    run="|".join(map(re.escape, plan.specs)),


localrules:
    report,
    result,


# Everything, studies, tables and figures by name, each with what it shows.
for target, page in plan.pages.items():

    rule:
        name:
            target
        input:
            plan.suite.files,
            lambda wildcards, target=target: plan.shows(target),
        output:
            page,
            # Jobs of Slurm make no page, and look at no other runs.
            [*map(touch, plan.whole(target) if workflow.is_main_process else ())],
        log:
            f"{plan.logs}/{target}.log",
        localrule: True
        params:
            only="" if target == "all" else f"--only {target}",
        shell:
            f"{LOG} mgm report {plan.name} --whole {{params.only}}"


# The page of the runs that exist.
rule report:
    log:
        f"{plan.logs}/report.log",
    shell:
        f"{LOG} mgm report {plan.name}"


# Draw a dataset, or read a download.
rule prepare:
    input:
        ancient(lambda wildcards: plan.made_from(wildcards.place)),
    output:
        # Another study may make it meanwhile, so it is not deleted before the job.
        update("{place}/index.json"),
    log:
        f"{plan.logs}/prepare/{{place}}.log",
    threads: lambda wildcards: workflow.cores
    params:
        command=lambda wildcards, threads: plan.prepare(wildcards.place, threads),
    shell:
        f"{LOG} exec {{params.command}}"


# Compute optical flow, which guides some masks.
rule flow:
    input:
        ancient("{place}/index.json"),
    output:
        update("{place}/tracks-{method}.json"),
    log:
        f"{plan.logs}/flow/{{place}}-{{method}}.log",
    threads: lambda wildcards: workflow.cores
    shell:
        f"{LOG} exec mgm track {{wildcards.place:q}} --method {{wildcards.method}} --processes {{threads}}"


# A rule per stage, so that --until and a profile's resources name it.
for stage in STAGES:

    rule:
        name:
            stage
        input:
            lambda wildcards: plan.needs(wildcards.batch),
        output:
            plan.mark("{batch}"),
        log:
            f"{plan.logs}/{{batch}}.log",
        wildcard_constraints:
            batch=f"{stage}-[^/]+",
        threads: plan.execution.threads
        resources:
            gpus=1,
        params:
            # A signal for the shell is one for mgm.
            exec=lambda wildcards: "exec" if wildcards.batch in plan.batches else "",
            command=lambda wildcards: plan.run(wildcards.batch),
        shell:
            f"{LOG} {{params.exec}} {LAUNCH} {{params.command}}"


# One run by its result, as a batch of its own.
rule result:
    input:
        lambda wildcards: plan.mark(wildcards.run) if wildcards.run in plan.lacks else [],
    output:
        update(plan.result("{run}")),
    log:
        f"{plan.logs}/result/{{run}}.log",
    shell:
        f"{LOG} test -e {{output:q}}"


# Freeze the study before its first run.
onstart:
    with one_line():
        # A report alone writes nothing to the results.
        if to_do := [job for job in workflow.dag.needrun_jobs() if job.output]:
            if (gpus := os.environ.get("MGM_GPUS")) is not None:
                show(f"device: GPU {gpus}" if gpus else "device: CPU; no GPU is visible")
            plan.start(job.wildcards.place for job in to_do if job.rule.name == "prepare")
    if signal.getsignal(signal.SIGINT) == end:
        signal.signal(signal.SIGINT, stop)


# Copy the runs to MLflow, after a stop in the background: the prompt waits for nothing.
onsuccess:
    subprocess.run(["mgm", "sync", plan.name], check=False)


onerror:
    print(f"{plan.name}: stopped; the same command continues", file=sys.stderr)
    with open(f"{plan.logs}/sync.log", "w") as said:
        subprocess.Popen(
            ["mgm", "sync", plan.name], stdout=said, stderr=said, start_new_session=True
        )
