# The page of existing results. It never trains.
rule report:
    log:
        f"{paper.logs}/report.log",
    localrule: True
    shell:
        f"mgm report {paper.name} 2>&1 | tee {{log:q}}"


# A table or figure by its name, with the runs that it needs: `snakemake table4e`.
for target in paper.targets:

    rule:
        name:
            target
        input:
            paper.markers_of(target),
        log:
            f"{paper.logs}/{target}.log",
        localrule: True
        shell:
            f"mgm report {paper.name} --only {target} 2>&1 | tee {{log:q}}"
