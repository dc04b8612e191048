# Every run is a result.json, made by one of these verbs. A process costs seconds to start, so a scale may put several runs into one
# (`specs_per_job`). A job declares its marker alone, not its results: Snakemake deletes what a failed job declares, and a run that is
# done stays done.

for verb in ("pretrain", "finetune", "probe", "measure", "visualise"):

    rule:
        name:
            verb
        input:
            ancient(lambda wildcards: paper.markers(paper.jobs[wildcards.job].after)),
        output:
            touch(f"{paper.results}/jobs/{{job}}"),
        log:
            f"{paper.logs}/{{job}}.log",
        wildcard_constraints:
            job=rf"{verb}-[A-Za-z0-9._-]+",
        priority: lambda wildcards: paper.jobs[wildcards.job].priority
        threads: lambda wildcards: paper.jobs[wildcards.job].threads or workflow.cores
        resources:
            **paper.resources(verb),
        params:
            wrapper=lambda wildcards: paper.command_wrapper(wildcards.job),
            verb=verb,
            words=lambda wildcards: paper.jobs[wildcards.job].words,
        shell:
            "{params.wrapper} mgm {params.verb} {params.words:q}"
