# Tables, figures and the page. `report`, `tables` and `figures` read existing results and never
# train. Asking for one table or figure, by file or name, first trains the runs that it needs.


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


# Ask for a table or figure by its name: `snakemake table4e`. The Snakefile removes this file again.
rule target:
    input:
        file_of,
    output:
        touch("{target}"),
    wildcard_constraints:
        target=r"\w+",
    localrule: True
