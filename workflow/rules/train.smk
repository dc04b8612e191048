# Every run is one result.json, made by one of a few verbs. A process costs seconds to start, so a scale may put several
# runs into one (`specs_per_job`).
#
# `update` keeps Snakemake from deleting a result before its rule runs again: a run that is done stays done, whatever
# made Snakemake doubt it, since `mgm` checks each result against its spec and leaves it alone if it holds.


for batch in paper.batches():

    rule:
        name:
            batch.rule
        input:
            ancient(paper.inputs(batch)),
        output:
            [update(paper.result(spec.run_id)) for spec in batch.specs],
        log:
            paper.log(batch.rule),
        priority: batch.priority
        threads: paper.cpus(batch.verb, RUN.threads)
        resources:
            **paper.resources(batch.verb),
        params:
            around=paper.around(batch.verb, batch.rule),
            verb=batch.verb,
            specs=[str(paper.spec_file(spec.run_id)) for spec in batch.specs],
            training=(
                paper.training(batch.verb)
                if batch.verb in ("pretrain", "finetune")
                else ""
            ),
            weights=(
                f"--weights {paper.scale.flow_weights}"
                if batch.verb == "measure" and paper.scale.flow_weights
                else ""
            ),
            data=[
                f"--data {dataset}={paper.places[dataset]}"
                for dataset in paper.datasets(batch)
            ],
        shell:
            "{params.around[0]} mgm {params.verb} {params.specs} {params.data} {OPTIONS} {params.training} {params.weights} {params.around[1]}"
