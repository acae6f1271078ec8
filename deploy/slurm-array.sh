#!/usr/bin/env bash
# A folder of images, restored by the tasks of a Slurm array, one GPU each:
#
#   sbatch --array=0-7 deploy/slurm-array.sh -i in/ -o out/ --model DIR --task sr8
#
# All arguments go to `posteriori restore`. Input, output and model lie on a file system that all nodes see.
#
# The arithmetic. Task I of an array of N does shard I/N: the images whose name has a hash that leaves I when it is
# divided by N. Each image has one shard, whoever runs it and whatever else is in the folder, so no task waits for
# another and none of the work is done twice. N must stay what it was, or images change hands: Slurm's own count is that
# of the tasks submitted now. To run tasks 3 and 5 of 8 again, say how many there are:
#
#   SHARDS=8 sbatch --array=3,5 deploy/slurm-array.sh -i in/ -o out/ --model DIR --task sr8
#
# The same command goes on where a task was: what is in OUT is skipped, and OUT/.posteriori has a journal for each shard.
#
#SBATCH --job-name=posteriori
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=posteriori-%A_%a.log
# Two minutes before its time is over the program is told: it finishes what is being computed, and exits with 130.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -uo pipefail

index=${SLURM_ARRAY_TASK_ID:?is not set: submit this with sbatch --array=0-7, or give --shard I/N to posteriori yourself}
first=${SLURM_ARRAY_TASK_MIN:-0}
shards=${SHARDS:-${SLURM_ARRAY_TASK_COUNT:?is not set: say how many shards there are by SHARDS=N}}
if [[ -z ${SHARDS:-} && ($first -ne 0 || ${SLURM_ARRAY_TASK_MAX:-$((shards - 1))} -ne $((shards - 1))) ]]; then
  echo "the array is not 0-$((shards - 1)), so this may be a part of one: say how many shards there are by SHARDS=N" >&2
  exit 2
fi

srun posteriori restore "$@" --shard "$index/$shards"
code=$?

# 0: done. 3: some images failed, which they would again. 130: out of time, so back to the queue. The rest is for people.
if [[ $code -eq 130 ]]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$index"
fi
exit "$code"
