#!/usr/bin/env bash
# run.sh LOG COMMAND...: run a job's command under Slurm. If the time limit or a preemption stopped
# training, it has left a checkpoint, and the file MGM_STOPPED or status 138 or 143 (see
# docs/run-the-paper.md). The file is needed since torchrun's status is 1 for any status of its processes.
# The job then goes back into the queue under its number, so Snakemake sees it wait, not fail.
log=$1 most=100
shift
export MGM_STOPPED=$PWD/$log.stopped
rm -f "$MGM_STOPPED"
# The command gets these signals too and stops; then this script goes on.
trap : TERM USR1
"$@" >> "$log" 2>&1
status=$?
if ((status == 138 || status == 143)) || [[ $status != 0 && -e $MGM_STOPPED ]]; then
    restarts=$(scontrol show job "$SLURM_JOB_ID" | grep -oP 'Restarts=\K\d+')
    if ((restarts < most)) && scontrol requeue "$SLURM_JOB_ID"; then
        echo "job $SLURM_JOB_ID: requeued, time $((restarts + 1)) of at most $most" >> "$log"
    else
        echo "job $SLURM_JOB_ID: stopped $((restarts + 1)) times and not requeued; set more hours" \
            "for such jobs in cluster.yaml" >> "$log"
    fi
fi
rm -f "$MGM_STOPPED"
exit "$status"
