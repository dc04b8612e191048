# Datasets (generated, transcoded from a download in parallel parts, or made from others), and
# optical flow. A user prepares other published datasets with `mgm prepare`.


rule prepare:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("prepare"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("prepare"),
    params:
        wrapper=wrapper,
        words=words,
        processes=processes,
    shell:
        "{params.wrapper} mgm prepare {params.words:q} {params.processes}"


rule flow:
    input:
        after,
    output:
        touch(f"{JOBS}/{{job}}"),
    log:
        f"{paper.logs}/{{job}}.log",
    wildcard_constraints:
        job=names_of("flow"),
    priority: priority
    threads: threads
    resources:
        **paper.resources("flow"),
    params:
        wrapper=wrapper,
        words=words,
        processes=processes,
    shell:
        "{params.wrapper} mgm flow {params.words:q} {params.processes}"


# Ask for a dataset by its index. Its job makes the index, so this rule runs nothing.
rule dataset:
    input:
        ancient(lambda wildcards: paper.markers([f"prepare-{BUILT[wildcards.place]}"])),
    output:
        "{place}/index.json",
    wildcard_constraints:
        place="|".join(map(re.escape, BUILT)) or "-",
    localrule: True
