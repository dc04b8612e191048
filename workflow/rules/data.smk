# Datasets: drawn, transcoded from a download in shards, or made of others; and optical flow beside the videos. A user's own videos are
# indexed before the DAG is built (mgm.dag.study); other published datasets are prepared by hand, with `mgm prepare`.

for verb in ("prepare", "flow"):

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
            processes=lambda wildcards, threads: (
                f"--processes {threads}" if paper.jobs[wildcards.job].parallel else ""
            ),
        shell:
            "{params.wrapper} mgm {params.verb} {params.words:q} {params.processes}"


for dataset in paper.built_datasets:

    rule:
        name:
            f"dataset_{dataset}"
        input:
            paper.markers([f"prepare-{dataset}"]),
        localrule: True
