# One of these rules makes the result.json of each run. Starting a process takes seconds, so a scale
# may put several runs into a job (`specs_per_job`). A job declares only its marker as output, not
# its results: Snakemake deletes the outputs of a failed job, and finished runs must stay.


rule pretrain:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("pretrain"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("pretrain"),
    params:
        wrapper=wrapper,
        words=words,
    shell:
        "{params.wrapper} mgm pretrain {params.words:q}"


rule finetune:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("finetune"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("finetune"),
    params:
        wrapper=wrapper,
        words=words,
    shell:
        "{params.wrapper} mgm finetune {params.words:q}"


# Domain adaptation: fine-tuning on the source's classes, tested on the target's videos.
use rule finetune as adapt with:
    output:
        touch(f"{JOBS}/{{job}}"),
    wildcard_constraints:
        job=names_of("adapt"),
    resources:
        **paper.resources("adapt"),


rule probe:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("probe"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("probe"),
    params:
        wrapper=wrapper,
        words=words,
    shell:
        "{params.wrapper} mgm probe {params.words:q}"


rule measure:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("measure"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("measure"),
    params:
        wrapper=wrapper,
        words=words,
    shell:
        "{params.wrapper} mgm measure {params.words:q}"


rule visualise:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("visualise"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("visualise"),
    params:
        wrapper=wrapper,
        words=words,
    shell:
        "{params.wrapper} mgm visualise {params.words:q}"


# Ask for a run by its file. Its job makes the file, so this rule runs nothing.
rule result:
    input:
        ancient(lambda wildcards: paper.markers([paper.made_by[wildcards.run]])),
    output:
        f"{paper.results}/{{run}}/result.json",
    wildcard_constraints:
        run="|".join(paper.made_by),
    localrule: True
