# Parts that the rules share: names of targets and datasets, and functions of a rule's job.

# A study's tables and figures are written together.
FILES = () if paper.scale.study else paper.registry.targets()
SHOWN = {kind: [name for name in FILES if name.startswith(kind)] for kind in ("table", "figure")}

# The folders of the datasets that jobs make.
BUILT = {str(paper.places[name]): name for name in paper.built_datasets}

JOBS = f"{paper.results}/jobs"


def dag_job(wildcards):
    return paper.jobs[job_of(wildcards.job)]


after = ancient(lambda wildcards: paper.markers(dag_job(wildcards).after))
wrapper = lambda wildcards: paper.command_wrapper(dag_job(wildcards).name)
words = lambda wildcards: dag_job(wildcards).words
priority = lambda wildcards: dag_job(wildcards).priority
# 0: every core of this machine.
threads = lambda wildcards: dag_job(wildcards).threads or workflow.cores
processes = lambda wildcards, threads: (
    f"--processes {threads}" if dag_job(wildcards).parallel else ""
)


def remove_short_names(dag):
    for job in dag.jobs:
        if job.rule.name == "target" and os.path.exists(job.output[0]):
            os.remove(job.output[0])


def file_of(wildcards):
    with one_line():
        # A wrong name ends here, with the near one.
        paper.registry.runs_of(wildcards.target)
    kind, ending = ("tables", "csv") if wildcards.target in SHOWN["table"] else ("figures", "svg")
    return f"{paper.reports}/{kind}/{wildcards.target}.{ending}"
