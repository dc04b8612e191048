# One rule for each kind of job. Datasets are generated, transcoded from a download in parallel
# parts, or made from others; a user prepares the rest with `mgm prepare`. `flow` computes optical
# flow. `adapt` is domain adaptation: fine-tuning on a source's classes, tested on the target's
# videos. The other rules make the result.json of runs.
#
# Starting a process takes seconds, so a scale may put several runs into a job (`specs_per_job`). A
# job declares only its marker as output, not its results, since finished runs must stay: Snakemake
# deletes the outputs of a failed job, and of every job whose lost dataset is made again.

for kind in "prepare flow pretrain finetune adapt probe measure visualise".split():

    rule:
        name:
            kind
        input:
            after,
        output:
            touch(f"{JOBS}/{{job}}"),
        log:
            f"{paper.logs}/{{job}}.log",
        wildcard_constraints:
            job=rf"{kind}-[A-Za-z0-9._~-]+",
        priority: priority
        threads: threads
        resources:
            **paper.resources(kind),
        params:
            wrapper=wrapper,
            words=words,
            processes=processes,
        shell:
            "{params.wrapper} mgm {params.words:q} {params.processes}"


# Ask for a dataset by its index. Its job makes the index, so this rule runs nothing.
rule dataset:
    input:
        ancient(lambda wildcards: paper.markers([f"prepare-{BUILT[wildcards.place]}"])),
    output:
        "{place}/index.json",
    wildcard_constraints:
        place="|".join(map(re.escape, BUILT)) or "-",
    localrule: True


# Ask for a run by its file. Its job makes the file, so this rule runs nothing.
rule result:
    input:
        ancient(lambda wildcards: paper.markers([paper.made_by[wildcards.run]])),
    output:
        f"{paper.results}/{{run}}/result.json",
    wildcard_constraints:
        run="|".join(paper.made_by),
    localrule: True
