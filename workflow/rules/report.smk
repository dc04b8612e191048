# What is shown. `report`, `tables` and `figures` read whatever results exist and never cause training; a table's or
# figure's own target trains what it needs first.


rule report:
    localrule: True
    shell:
        "mgm report {NAME}"


for group in ("tables", "figures"):

    rule:
        name:
            group
        localrule: True
        params:
            group=group,
        shell:
            "mgm report {NAME} --only {params.group}"


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
