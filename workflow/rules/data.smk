# Generated datasets are drawn here. A user's own videos are indexed before the DAG is built (mgm.dag.study),
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


# A published dataset whose download is given under `sources`: its index, copies of its videos in shards, and the index of the copies.
for dataset in paper.sources:

    rule:
        name:
            f"prepare_{dataset}_sources"
        output:
            paper.index(f"{dataset}/source"),
        log:
            paper.log(f"prepare_{dataset}_sources"),
        threads: 1
        resources:
            **paper.resources("prepare"),
        params:
            around=paper.around("prepare", f"prepare_{dataset}_sources"),
            what=paper.preparation(dataset),
            out=paper.places[dataset] / "source",
        shell:
            "{params.around[0]} mgm prepare {params.what} --out {params.out} {params.around[1]}"

    for shard in range(1, paper.shards + 1):

        rule:
            name:
                f"prepare_{dataset}_{shard}"
            input:
                ancient(paper.index(f"{dataset}/source")),
            output:
                touch(paper.places[dataset] / "shards" / f"{shard}-of-{paper.shards}"),
            log:
                paper.log(f"prepare_{dataset}_{shard}"),
            threads: paper.cpus("prepare", workflow.cores)
            resources:
                **paper.resources("prepare"),
            params:
                around=paper.around("prepare", f"prepare_{dataset}_{shard}"),
                what=paper.preparation(dataset),
                out=paper.places[dataset],
                shard=f"{shard}/{paper.shards}",
            shell:
                "{params.around[0]} mgm prepare {params.what} --out {params.out} --transcode --shard {params.shard} --processes {threads} {params.around[1]}"

    rule:
        name:
            f"prepare_{dataset}"
        input:
            [
                paper.places[dataset] / "shards" / f"{shard}-of-{paper.shards}"
                for shard in range(1, paper.shards + 1)
            ],
        output:
            paper.index(dataset),
        log:
            paper.log(f"prepare_{dataset}"),
        priority: paper.urgency(dataset)
        threads: 1
        resources:
            **paper.resources("prepare"),
        params:
            around=paper.around("prepare", f"prepare_{dataset}"),
            what=paper.preparation(dataset),
            out=paper.places[dataset],
        shell:
            "{params.around[0]} mgm prepare {params.what} --out {params.out} --transcode --processes {threads} {params.around[1]}"


# Datasets that are indices over others: a part of one, or for domain adaptation the training split of one and the test split of another.
for dataset, parts in paper.derived.items():

    rule:
        name:
            f"prepare_{dataset}"
        input:
            ancient([paper.index(part) for part in parts]),
        output:
            paper.index(dataset),
        log:
            paper.log(f"prepare_{dataset}"),
        priority: paper.urgency(dataset)
        threads: 1
        resources:
            **paper.resources("prepare"),
        params:
            around=paper.around("prepare", f"prepare_{dataset}"),
            what=paper.preparation(dataset),
            out=paper.places[dataset],
        shell:
            "{params.around[0]} mgm prepare {params.what} --out {params.out} {params.around[1]}"


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
