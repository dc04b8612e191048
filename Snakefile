# The paper as a DAG: prepare -> pretrain -> finetune and probe -> visualise -> tables, figures, page.
#
#   snakemake --cores all                                               everything at smoke scale
#   snakemake --cores all --config scale=smoke name=mine videos=DIR     the mask ablation on your own videos
#   snakemake --cores all table4e                                       what one table needs, and the table
#   snakemake --cores 1 report                                          the page from what exists; never trains
#   snakemake --profile slurm                                           the paper, on a Slurm cluster
#
# Which runs there are is decided in mgm/experiments/registry.py, what they train with in mgm/experiments/recipes.py,
# and what a scale changes in workflow/config/.

import sys
import time

from mgm.errors import UserError
from mgm.dag.study import Workflow, training_share

try:
    paper = Workflow(config)
    paper.write()
except UserError as error:
    sys.exit(f"mgm: {error}")  # one line; a traceback would hide it

STARTED = time.time()
NAME = paper.name
RUN = paper.scale.execution
OPTIONS = f"--out {paper.results} --threads {RUN.threads} --workers {RUN.workers} --cache-mb {RUN.cache_mb}"
TARGETS = [target for target in paper.registry.targets() if target != "all"]


rule all:
    input:
        [paper.result(run_id) for run_id in paper.registry.specs],
    localrule: True
    shell:
        "mgm report {NAME} && mgm sync {NAME}"


report: "workflow/report.rst"


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


for line in paper.missing().values():
    logger.warning(line)


onstart:
    wanted = {job.rule.name for job in workflow.dag.needrun_jobs()}
    if lines := paper.problems(wanted):
        sys.exit("\n".join(f"mgm: {line}" for line in lines))


onsuccess:
    if cores := workflow.resource_settings.cores:  # none on a cluster
        print(training_share(paper, STARTED, cores), file=sys.stderr)
