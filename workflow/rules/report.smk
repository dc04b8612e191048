# Tables, figures and the page. `report`, `tables` and `figures` read existing results and never
# train. Asking for one table or figure, by file or name, first trains the runs that it needs.

for kind in ("report", "tables", "figures"):

    rule:
        name:
            kind
        log:
            f"{paper.logs}/{kind}.log",
        localrule: True
        params:
            name=paper.name,
            only="" if kind == "report" else f"--only {kind}",
        shell:
            "mgm report {params.name:q} {params.only} 2>&1 | tee {log:q}"


for kind, ending in (("table", "csv"), ("figure", "svg")):

    rule:
        name:
            kind
        input:
            lambda wildcards: paper.needed_by(wildcards.target),
        output:
            f"{paper.reports}/{kind}s/{{target}}.{ending}",
        log:
            f"{paper.logs}/{{target}}.log",
        wildcard_constraints:
            target="|".join(SHOWN[kind]) or "-",
        localrule: True
        params:
            name=paper.name,
        shell:
            "mgm report {params.name:q} --only {wildcards.target} 2>&1 | tee {log:q}"


# Ask for a table or figure by its name: `snakemake table4e`. The Snakefile removes this file again.
rule target:
    input:
        file_of,
    output:
        touch("{target}"),
    wildcard_constraints:
        target=r"\w+",
    localrule: True
