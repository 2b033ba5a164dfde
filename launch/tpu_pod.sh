#!/usr/bin/env bash
# One facesiam command on every host of a Cloud TPU slice.
#
#   TPU_NAME=my-slice ZONE=us-west4-a launch/tpu_pod.sh \
#     train --config=RECIPE --workdir=/shared/RUN
#   TPU_NAME=my-slice ZONE=us-west4-a launch/tpu_pod.sh stop
#
# Each host runs the command, and runs it again as long as it ends with status
# 75 (saved and asked to stop). `stop` sends SIGTERM to all hosts, waits GRACE
# seconds and kills what is left. JAX learns from the TPU which host it is
# (--distributed). facesiam must be installed on the hosts:
#
#   gcloud compute tpus tpu-vm ssh my-slice --zone=... --worker=all \
#     --command="pip install 'facesiam_jax[tpu] @ ...'"
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: launch/tpu_pod.sh VERB [flags of facesiam VERB], or stop" >&2
  exit 2
fi
: "${TPU_NAME:?name the slice: TPU_NAME=...}"
: "${ZONE:?name its zone: ZONE=...}"
GRACE="${GRACE:-120}"
FACESIAM="${FACESIAM:-facesiam}"
# On the hosts; a disk that they share serves all of them.
CACHE="${JAX_COMPILATION_CACHE_DIR:-/tmp/facesiam_jax_cache}"
PID_FILE="${PID_FILE:-/tmp/facesiam_jax.pid}"

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all \
    --command="$1"
}

# What follows `settings` runs on the hosts, where its variables are set.
settings="$(printf 'FACESIAM=%q GRACE=%q PID_FILE=%q CACHE=%q\n' \
  "$FACESIAM" "$GRACE" "$PID_FILE" "$CACHE")"

if [[ $1 == stop ]]; then
  # shellcheck disable=SC2016
  on_all_hosts "$settings"'
    [[ -f $PID_FILE ]] || exit 0
    read -r pid < "$PID_FILE"
    rm -f "$PID_FILE"
    kill -TERM "$pid" 2>/dev/null || exit 0
    for ((i = 0; i < GRACE; i++)); do
      kill -0 "$pid" 2>/dev/null || exit 0
      sleep 1
    done
    kill -KILL "$pid" 2>/dev/null || true'
  exit
fi

verb="$1"
shift
words="$(printf '%q ' "$verb" --distributed "$@")"
# shellcheck disable=SC2016
on_all_hosts "$settings words=($words)"'
  export JAX_COMPILATION_CACHE_DIR="$CACHE"
  while :; do
    "$FACESIAM" "${words[@]}" &
    echo "$!" > "$PID_FILE"
    status=0
    wait "$!" || status=$?
    # `stop` takes the file away, so that what it stops stays stopped.
    if [[ $status -ne 75 || ! -f $PID_FILE ]]; then
      rm -f "$PID_FILE"
      exit "$status"
    fi
    echo "saved and asked to stop: going on" >&2
  done'
