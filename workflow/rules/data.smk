# Generated datasets are drawn here. A user's own videos are indexed before the DAG is built (mgm.workflow),
# and published datasets are prepared by hand, with `mgm prepare`.


for dataset in paper.generated:

    rule:
        name:
            f"prepare_{dataset}"
        output:
            paper.index(dataset),
        log:
            f"logs/{NAME}/prepare_{dataset}.log",
        threads: 2
        params:
            params=paper.params_file(dataset),
            out=paper.places[dataset],
        shell:
            "mgm prepare synthetic --params {params.params} --out {params.out} --processes {threads} 2>&1 | tee {log}"
