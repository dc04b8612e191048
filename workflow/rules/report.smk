# What is shown. `report`, `tables` and `figures` read whatever results exist and never cause training. A
# table or figure by its file trains what it needs first.


rule report:
    log:
        f"{paper.logs}/report.log",
    localrule: True
    params:
        name=paper.name,
    shell:
        "mgm report {params.name:q} 2>&1 | tee {log:q}"


rule tables:
    log:
        f"{paper.logs}/tables.log",
    localrule: True
    params:
        name=paper.name,
    shell:
        "mgm report {params.name:q} --only tables 2>&1 | tee {log:q}"


rule figures:
    log:
        f"{paper.logs}/figures.log",
    localrule: True
    params:
        name=paper.name,
    shell:
        "mgm report {params.name:q} --only figures 2>&1 | tee {log:q}"


rule table:
    input:
        lambda wildcards: paper.needed_by(wildcards.table),
    output:
        f"{paper.reports}/tables/{{table}}.csv",
    log:
        f"{paper.logs}/{{table}}.log",
    wildcard_constraints:
        table="|".join(SHOWN["table"]) or "-",
    localrule: True
    params:
        name=paper.name,
    shell:
        "mgm report {params.name:q} --only {wildcards.table} 2>&1 | tee {log:q}"


rule figure:
    input:
        lambda wildcards: paper.needed_by(wildcards.figure),
    output:
        f"{paper.reports}/figures/{{figure}}.svg",
    log:
        f"{paper.logs}/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(SHOWN["figure"]) or "-",
    localrule: True
    params:
        name=paper.name,
    shell:
        "mgm report {params.name:q} --only {wildcards.figure} 2>&1 | tee {log:q}"


# A table or figure by its name alone: `snakemake table4e`. The Snakefile removes this file at the end.
rule target:
    input:
        lambda wildcards: (
            f"{paper.reports}/tables/{wildcards.target}.csv"
            if wildcards.target in SHOWN["table"]
            else f"{paper.reports}/figures/{wildcards.target}.svg"
        ),
    output:
        touch("{target}"),
    wildcard_constraints:
        target="|".join(SHOWN["table"] + SHOWN["figure"]),
    localrule: True
