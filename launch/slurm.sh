#!/usr/bin/env bash
# One facesiam command on every GPU of a SLURM job, one process a GPU.
#
#   sbatch --nodes=4 launch/slurm.sh train --config=RECIPE --workdir=DIR
#
# JAX learns from SLURM which process it is (--distributed). SLURM sends SIGTERM
# to the processes GRACE seconds before the time limit, and when it pre-empts the
# job; they save and end with status 75, and the job is put back into the queue.
# A process that ends badly ends the others. Change the lines of #SBATCH here or
# give other values to sbatch.
#SBATCH --job-name=facesiam
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: sbatch launch/slurm.sh VERB [flags of facesiam VERB]" >&2
  exit 2
fi
: "${SLURM_JOB_ID:?start this with sbatch, or inside salloc}"
# Where facesiam is, and where compiled programs are kept for the next start: a
# place that all nodes see.
FACESIAM="${FACESIAM:-facesiam}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/facesiam_jax/jax}"

verb="$1"
shift
# The script itself must outlive the signal; a trap, unlike an ignored signal, is
# not inherited by the processes.
trap : TERM
srun --kill-on-bad-exit=1 --label "$FACESIAM" "$verb" --distributed "$@"
status=$?

if [[ $status -eq 75 ]]; then
  echo "saved and asked to stop: back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID" || exit 75
fi
exit "$status"
