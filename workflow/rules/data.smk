# Generated datasets are drawn here. A user's own videos are indexed before the DAG is built (mgm.workflow),
# and published datasets are prepared by hand, with `mgm prepare`.


for dataset in paper.generated:

    rule:
        name:
            f"prepare_{dataset}"
        output:
            paper.index(dataset),
        log:
            paper.log(f"prepare_{dataset}"),
        priority: paper.urgency(dataset)
        threads: paper.cpus("prepare")  # here 1: two would wait for each other, with a core idle
        resources:
            **paper.resources("prepare"),
        params:
            around=paper.around("prepare", f"prepare_{dataset}"),
            params=paper.params_file(dataset),
            out=paper.places[dataset],
        shell:
            "{params.around[0]} mgm prepare synthetic --params {params.params} --out {params.out} --processes {threads} {params.around[1]}"


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
            paper.log(f"prepare_{task}"),
        priority: paper.urgency(task)
        threads: 1
        resources:
            **paper.resources("prepare"),
        params:
            around=paper.around("prepare", f"prepare_{task}"),
            task=task,
            source=paper.places[source],
            target=paper.places[target],
            out=paper.places[task],
        shell:
            "{params.around[0]} mgm prepare pda --task {params.task} --source {params.source} --target {params.target} --out {params.out} {params.around[1]}"


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
            paper.log(f"flow_{dataset}"),
        priority: paper.urgency(dataset)
        threads: paper.cpus("flow")  # here 1: two would wait for each other, with a core idle
        resources:
            **paper.resources("flow"),
        params:
            around=paper.around("flow", f"flow_{dataset}"),
            place=paper.places[dataset],
            method=method,
            weights=(
                f"--weights {paper.scale.flow_weights}"
                if paper.scale.flow_weights
                else ""
            ),
        shell:
            "{params.around[0]} mgm flow {params.place} --method {params.method} {params.weights} --processes {threads} {params.around[1]}"
