# Generated datasets are drawn here. A user's own videos are indexed before the DAG is built (mgm.workflow),
# and published datasets are prepared by hand, with `mgm prepare`.


for dataset in paper.generated:

    rule:
        name:
            f"prepare_{dataset}"
        output:
            paper.index(dataset),
        params:
            params=paper.params_file(dataset),
            out=paper.places[dataset],
        threads: 2
        log:
            f"logs/{NAME}/prepare_{dataset}.log",
        shell:
            "mgm prepare synthetic --params {params.params} --out {params.out} --processes {threads} 2>&1 | tee {log}"
