# The paper as a DAG: prepare -> pretrain -> finetune and probe -> visualise -> tables, figures, page.
#
#   snakemake --cores all                                               everything at smoke scale
#   snakemake --cores all --config scale=smoke name=mine videos=DIR     the mask ablation on your own videos
#   snakemake --cores all table4e                                       what one table needs, and the table
#   snakemake --cores all --until pretrain                              pretraining alone; so with any rule
#   snakemake --cores 1 report                                          the page from what exists; never trains
#   snakemake --profile slurm                                           the paper, on a Slurm cluster
#
# Stop it whenever you like, by Ctrl-C or otherwise: called again, it continues. Which runs there are is decided in mgm/experiments/, what
# a scale changes in workflow/config/. profiles/default/config.yaml is read beside any other profile.

import logging
import sys
import time

from mgm.dag.checks import missing, problems
from mgm.dag.study import Workflow, ended_early, training_share
from mgm.errors import UserError

try:
    paper = Workflow(config)
    if workflow.is_main_process:
        paper.write()
except UserError as error:
    sys.exit(f"mgm: {error}")  # one line; a traceback would hide it

STARTED = time.time()
if "all" in map(str, workflow.output_settings.quiet or ()):
    errors = logging.StreamHandler()  # `--quiet all` would be quiet about them too
    errors.setLevel(logging.ERROR)
    logger.addHandler(errors)


rule all:
    input:
        paper.markers_of("all"),
    log:
        f"{paper.logs}/all.log",
    localrule: True
    conda:
        "environment.yml"
    params:
        name=paper.name,
    shell:
        "(mgm report {params.name:q} && mgm sync {params.name:q}) 2>&1 | tee {log:q}"


report: "workflow/report.rst"


include: "workflow/rules/data.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/report.smk"


for line in missing(paper).values():
    logger.warning(line)


onstart:
    wanted = {
        getattr(job.wildcards, "job", "") for job in workflow.dag.needrun_jobs()
    }
    try:
        if wanted - {""}:
            paper.lock()
        if lines := problems(paper, wanted):
            sys.exit("\n".join(f"mgm: {line}" for line in lines))
    except UserError as error:
        sys.exit(f"mgm: {error}")


onsuccess:
    if cores := workflow.resource_settings.cores:  # none on a cluster
        print(training_share(paper, STARTED, cores), file=sys.stderr)


onerror:
    print(ended_early(paper, STARTED), file=sys.stderr)
