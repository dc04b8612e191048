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
        priority: paper.urgency(dataset)
        threads: 1  # two would wait for each other, with a core idle
        params:
            params=paper.params_file(dataset),
            out=paper.places[dataset],
        shell:
            "mgm prepare synthetic --params {params.params} --out {params.out} --processes {threads} 2>&1 | tee {log}"


# Domain adaptation trains on one set and tests on another: an index over both.
for task, (source, target) in paper.adapted.items():

    rule:
        name:
            f"prepare_{task}"
        input:
            ancient([paper.index(source), paper.index(target)]),
        output:
            paper.index(task),
        log:
            f"logs/{NAME}/prepare_{task}.log",
        priority: paper.urgency(task)
        params:
            task=task,
            source=paper.places[source],
            target=paper.places[target],
            out=paper.places[task],
        shell:
            "mgm prepare pda --task {params.task} --source {params.source} --target {params.target} --out {params.out} 2>&1 | tee {log}"


# Optical flow lies beside the videos; the marker is written when it is whole.
for dataset, method in paper.flows():

    rule:
        name:
            f"flow_{dataset}"
        input:
            ancient([paper.index(dataset)] if dataset in paper.made_here else []),
        output:
            paper.flow_marker(dataset, method),
        log:
            f"logs/{NAME}/flow_{dataset}.log",
        priority: paper.urgency(dataset)
        threads: 1  # two would wait for each other, with a core idle
        params:
            place=paper.places[dataset],
            method=method,
            weights=(
                f"--weights {paper.scale.flow_weights}"
                if paper.scale.flow_weights
                else ""
            ),
        shell:
            "mgm flow {params.place} --method {params.method} {params.weights} --processes {threads} 2>&1 | tee {log}"
