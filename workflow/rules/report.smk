# What is shown. `report` reads whatever results exist and never causes training; a table's or figure's own target
# trains what it needs first.


rule report:
    localrule: True
    shell:
        "mgm report {NAME}"


for target in TARGETS:

    rule:
        name:
            target
        input:
            [paper.result(spec.run_id) for spec in paper.registry.runs_of(target)],
        localrule: True
        params:
            target=target,
        shell:
            "mgm report {NAME} --only {params.target}"
