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
            f"logs/{NAME}/{batch.rule}.log",
        priority: batch.priority
        threads: RUN.threads
        params:
            verb=batch.verb,
            specs=[str(paper.spec_file(spec.run_id)) for spec in batch.specs],
            checkpoints=(
                f"--checkpoint-s {RUN.checkpoint_s:g}"
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
            "mgm {params.verb} {params.specs} {params.data} {OPTIONS} {params.checkpoints} {params.weights} 2>&1 | tee {log}"
