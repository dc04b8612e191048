# A rule for each kind of job. A job declares only its marker as output, since Snakemake deletes the
# outputs of a failed job, and finished runs must stay. `prepare` generates or indexes a dataset,
# `flow` computes optical flow, and the others make the result.json of runs: of one, or of several,
# since starting a process takes seconds (`specs_per_job` of a scale).


rule prepare:
    input:
        ancient(lambda wildcards: paper.markers(paper.jobs[wildcards.job].after)),
    output:
        touch(f"{paper.results}/jobs/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job="prepare-.+",
    priority: lambda wildcards: paper.jobs[wildcards.job].priority
    # 0: every core of this machine.
    threads: lambda wildcards: paper.jobs[wildcards.job].threads or workflow.cores
    resources:
        **paper.resources("prepare"),
    params:
        command=lambda wildcards, threads: paper.command(wildcards.job, threads),
    shell:
        "{params.command}"


use rule prepare as flow with:
    wildcard_constraints:
        job="flow-.+",
    resources:
        **paper.resources("flow"),


use rule prepare as pretrain with:
    wildcard_constraints:
        job="pretrain-.+",
    resources:
        **paper.resources("pretrain"),


use rule prepare as finetune with:
    wildcard_constraints:
        job="finetune-.+",
    resources:
        **paper.resources("finetune"),


use rule prepare as probe with:
    wildcard_constraints:
        job="probe-.+",
    resources:
        **paper.resources("probe"),


use rule prepare as measure with:
    wildcard_constraints:
        job="measure-.+",
    resources:
        **paper.resources("measure"),


use rule prepare as visualise with:
    wildcard_constraints:
        job="visualise-.+",
    resources:
        **paper.resources("visualise"),


# A run, by its file. Its job makes the file, so this rule runs nothing.
rule result:
    input:
        ancient(lambda wildcards: paper.markers([paper.made_by[wildcards.run]])),
    output:
        f"{paper.results}/{{run}}/result.json",
    wildcard_constraints:
        run="|".join(paper.made_by),
    localrule: True
