# What is shown. `report`, `tables` and `figures` read whatever results exist and never cause training; a table's or figure's own target,
# such as table4e, trains what it needs first.

SHOWN = {
    "report": ("", []),
    "tables": ("--only tables", []),
    "figures": ("--only figures", []),
}
SHOWN |= {
    target: (f"--only {target}", paper.markers_of(target))
    for target in paper.registry.targets()
    if target != "all"
}

for target, (only, markers) in SHOWN.items():

    rule:
        name:
            target
        input:
            markers,
        log:
            f"{paper.logs}/{target}.log",
        localrule: True
        params:
            name=paper.name,
            only=only,
        shell:
            "mgm report {params.name:q} {params.only} 2>&1 | tee {log:q}"
