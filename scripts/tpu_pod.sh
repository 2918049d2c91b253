#!/usr/bin/env bash
# One run on a Cloud TPU, of one host or many: `tpu_pod.sh --help` explains,
# `tpu_pod.sh --print SUBCOMMAND` shows the commands.
# shellcheck disable=SC2016  # the commands for the workers expand there
set -euo pipefail

usage() {
  cat <<'END'
usage: scripts/tpu_pod.sh [--print] SUBCOMMAND

  create       make the TPU, and the bucket if there is none
  install      put this commit with Python and JAX on every worker
  run          --config=FILE [FLAG...]: start lpw_jax.main with these flags on every worker and
               wait; ends with the run's exit code (75: preempted). Ctrl-C or a lost connection
               stops nothing: the same command waits again
  resume-loop  --config=FILE [FLAG...]: run, and after a preemption again, on a new TPU if the
               old one is gone
  log          the last lines of worker 0
  stop         save a checkpoint and end with exit code 75; `run` goes on from there
  collect      copy the work folder and every worker's log to DEST
  delete       remove the TPU; the bucket stays

--print (or DRY_RUN=1) prints the commands and runs none of them. Settings, in the environment:
  NAME      the TPU's name (and that of its place in the queue)  (required)
  PROJECT   Google Cloud project                                 (required)
  ZONE      for example us-central2-b                            (required)
  BUCKET    name of a bucket, without gs://                      (required)
  TYPE      accelerator type, for example v4-32, v5litepod-16    (to make a TPU)
  VERSION   runtime image                                        (default: Google's for TYPE)
  QUEUED=1  wait in the queue for capacity
  SPOT=1    cheaper, can be preempted at any time
  WORKDIR   the run's folder                                     (default: gs://BUCKET/runs/NAME)
  DATA_DIR  tensorflow-datasets folder                           (default: gs://BUCKET/tfds)
  DEST      where `collect` copies to                            (default: runs/NAME)
  POLL      seconds between looks at the workers                 (default: 30)
END
}

die() {
  echo "tpu_pod.sh: error: $*" >&2
  exit 2
}

# quoted WORD...: one line of shell that stands for exactly these words.
quoted() {
  local word line="" mark="'" escaped="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//$mark/$escaped}'"
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

# step COMMAND...: shows the command, and runs it unless it is only to be printed.
step() {
  if ((DRY_RUN)); then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

note() {
  if ((DRY_RUN)); then echo "# $*"; else echo "tpu_pod.sh: $*" >&2; fi
}

# on WORKER COMMAND [FLAG...]: runs a line of bash on one worker, or on 'all'.
on() {
  step gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker="$1" --command="$2" "${@:3}"
}

# state_of GCLOUD_LIST...: the state of the listed thing called NAME; nothing if there is none.
state_of() {
  "$@" | awk -v name="$NAME" '$1 == name { print $2 }'
}

create() {
  [[ -n $TYPE ]] || die "create needs TYPE, for example TYPE=v4-32"
  note "the bucket, unless there is one"
  if ((DRY_RUN)) || ! gcloud storage buckets describe "gs://$BUCKET" >/dev/null 2>&1; then
    step gcloud storage buckets create "gs://$BUCKET" --project="$PROJECT" \
      --location="${ZONE%-*}" --uniform-bucket-level-access
    local role
    for role in roles/storage.objectAdmin roles/storage.legacyBucketReader; do
      step bash -c "gcloud storage buckets add-iam-policy-binding gs://$BUCKET --role=$role \
--member=serviceAccount:\$(gcloud projects describe $PROJECT \
--format='value(projectNumber)')-compute@developer.gserviceaccount.com"
    done
  fi
  local what=("$NAME" "${WHERE[@]}" --accelerator-type="$TYPE")
  ((SPOT)) && what+=(--spot)
  if ((!QUEUED)); then
    step gcloud compute tpus tpu-vm create "${what[@]}" --version="$VERSION"
    return
  fi
  local ask=(gcloud compute tpus queued-resources create "${what[@]}" --node-id="$NAME"
    --runtime-version="$VERSION")
  if ((DRY_RUN)); then
    step "${ask[@]}"
    note "every $POLL s, until the state is ACTIVE"
    step "${LIST_REQUESTS[@]}"
    return
  fi
  local state
  while :; do
    state=$(state_of "${LIST_REQUESTS[@]}")
    case $state in
      ACTIVE) return ;;
      "") step "${ask[@]}" ;;
      SUSPENDED) delete ;;
      FAILED) die "the queue refused $NAME: see 'gcloud compute tpus queued-resources describe" \
        "$NAME --zone=$ZONE --project=$PROJECT', then 'tpu_pod.sh delete'" ;;
      *) note "$NAME is in the queue: $state" && sleep "$POLL" ;;
    esac
  done
}

# The images of Ubuntu 22.04 have Python 3.10, so uv brings another; it needs no root and no apt.
install() {
  local root bundle="${TMPDIR:-/tmp}/lpw_jax-$NAME.bundle"
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  if ((!DRY_RUN)) && [[ -n $(git -C "$root" status --porcelain --untracked-files=no) ]]; then
    die "install uploads a commit: commit or stash the changes in $root first"
  fi
  step git -C "$root" bundle create --quiet "$bundle" HEAD
  step gcloud compute tpus tpu-vm scp "$bundle" "$NAME:lpw_jax.bundle" "${WHERE[@]}" --worker=all
  on all 'set -euo pipefail
mkdir -p lpw_jax_run
exec 9> lpw_jax_run/lock
flock -n 9 || { echo "a run is going on; tpu_pod.sh stop ends it" >&2; exit 1; }
rm -rf lpw_jax
git -c advice.detachedHead=false clone --quiet lpw_jax.bundle lpw_jax
curl -LsSf https://astral.sh/uv/install.sh |
  env UV_INSTALL_DIR="$HOME/.local/bin" UV_NO_MODIFY_PATH=1 sh
cd lpw_jax
~/.local/bin/uv venv --quiet --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable ".[tpu,gcs]"
.venv/bin/python -c "import lpw_jax.train"'
}

# On each worker the run holds a lock that dies with it, and leaves its exit code in a file.
# It reaches gs:// by gcsfs; TensorFlow, where it is installed, would otherwise be preferred.
run() {
  [[ ${1-} == --config=* ]] || die "run needs --config=FILE first"
  local program watch report
  program=$(quoted .venv/bin/python -m lpw_jax.main "$1" --workdir "$WORKDIR" \
    --config.data.dir="$DATA_DIR" --distributed "${@:2}")
  if ! on all "set -eu
test -x lpw_jax/.venv/bin/python || { echo 'tpu_pod.sh install has not been run' >&2; exit 2; }
mkdir -p lpw_jax_run
cd lpw_jax_run
exec 9> lock
flock -n 9 || { echo 'already running'; exit; }
rm -f exit_code
nohup setsid bash -c $(quoted "echo \$\$ > pid
trap : TERM
cd ../lpw_jax
EPATH_USE_TF=false $program
echo \$? > ../lpw_jax_run/exit_code") >> run.log 2>&1 < /dev/null &"; then
    is_gone || die "the run could not be started"
    CODE=75 && return
  fi
  watch=(gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker=all
    --command='cd lpw_jax_run
flock -n lock true || { echo lpw_jax: running; exit; }
echo "lpw_jax: ended $(cat exit_code || echo lost)"')
  note "every $POLL s, until no worker is running"
  if ((DRY_RUN)); then step "${watch[@]}" && return; fi
  while :; do
    sleep "$POLL"
    if ! report=$("${watch[@]}" 2>/dev/null); then
      note "not every worker answers"
      if is_gone; then CODE=75 && return; fi
    elif ! grep -q "lpw_jax: running" <<<"$report"; then
      break
    fi
  done
  CODE=$(overall "$(sed -n 's/.*lpw_jax: ended //p' <<<"$report")")
  ((CODE == 0 || CODE == 2 || CODE == 130)) || ! is_gone || CODE=75
  note "ended with exit code $CODE; the workers: $(sed -n 's/.*ended //p' <<<"$report" | xargs)"
}

# overall CODES: 2 and 130 are the user's; one preempted worker takes the others down with it.
overall() {
  local code
  for code in 2 130; do
    if grep -qx "$code" <<<"$1"; then echo "$code" && return; fi
  done
  if grep -qxE "75|lost" <<<"$1"; then echo 75; else sort -n <<<"$1" | tail -n 1; fi
}

# Whether the TPU is preempted or not there at all; false also if that cannot be found out.
is_gone() {
  local state
  state=$(state_of "${LIST_TPUS[@]}") || return 1
  [[ -z $state || $state == PREEMPTED || $state == TERMINATED ]] && note "$NAME is gone"
}

resume_loop() {
  while :; do
    ensure
    run "$@"
    if ((DRY_RUN)); then
      note "after exit code 75, or if the TPU is gone: all of this again"
      return
    fi
    ((CODE == 75)) || return 0
    note "preempted: on from the last checkpoint"
  done
}

# A TPU that is READY and installed: the one there is, or a new one.
ensure() {
  local state
  if ((DRY_RUN)); then
    step "${LIST_TPUS[@]}"
    note "if $NAME is not listed, or is PREEMPTED or TERMINATED:"
    delete
    create
    install
    note "as soon as $NAME is READY:"
    return
  fi
  while :; do
    state=$(state_of "${LIST_TPUS[@]}") || state=unknown
    case $state in
      READY) return ;;
      PREEMPTED | TERMINATED) delete ;;
      "")
        if ((QUEUED)) && [[ $(state_of "${LIST_REQUESTS[@]}") == ACTIVE ]]; then delete; fi
        create
        install
        ;;
      STOPPED) die "$NAME is stopped: 'gcloud compute tpus tpu-vm start $NAME ${WHERE[*]}'" ;;
      *) note "$NAME is $state" && sleep "$POLL" ;;
    esac
  done
}

collect() {
  step mkdir -p "$DEST/logs"
  step gcloud storage rsync --recursive "$WORKDIR" "$DEST"
  on all 'cat lpw_jax_run/run.log' --output-directory="$DEST/logs" || note "no worker logs"
}

delete() {
  if ((QUEUED)); then
    step gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force
  else
    step gcloud compute tpus tpu-vm delete "$NAME" "${WHERE[@]}"
  fi
}

: "${NAME:=}" "${PROJECT:=}" "${ZONE:=}" "${BUCKET:=}" "${TYPE:=}" "${VERSION:=}" "${WORKDIR:=}"
: "${DATA_DIR:=}" "${DEST:=}" "${POLL:=30}" "${QUEUED:=0}" "${SPOT:=0}" "${DRY_RUN:=0}"
CODE=0
case ${1-} in
  -h | --help) usage && exit ;;
  --print) DRY_RUN=1 && shift ;;
esac
(($#)) || { usage >&2 && exit 2; }
SUBCOMMAND=$1 && shift
[[ $# == 0 || $SUBCOMMAND == run || $SUBCOMMAND == resume-loop ]] ||
  die "$SUBCOMMAND takes no arguments, but got $1 (--help lists the settings)"
for setting in NAME PROJECT ZONE BUCKET; do
  [[ -n ${!setting} ]] || die "$setting is not set: export $setting=... (--help explains)"
done
for setting in QUEUED SPOT DRY_RUN; do
  [[ ${!setting} == [01] ]] || die "$setting = ${!setting}: must be 0 or 1"
done
[[ $BUCKET != */* ]] || die "BUCKET = $BUCKET: must be a bucket's name, without gs:// and folders"
case $TYPE in
  v6e-*) : "${VERSION:=v2-alpha-tpuv6e}" ;;
  v5p-*) : "${VERSION:=v2-alpha-tpuv5}" ;;
  v5litepod-*) : "${VERSION:=v2-alpha-tpuv5-lite}" ;;
  *) : "${VERSION:=tpu-ubuntu2204-base}" ;;
esac
: "${WORKDIR:=gs://$BUCKET/runs/$NAME}" "${DATA_DIR:=gs://$BUCKET/tfds}" "${DEST:=runs/$NAME}"
WHERE=(--zone="$ZONE" --project="$PROJECT" --quiet)
LIST_TPUS=(gcloud compute tpus tpu-vm list "${WHERE[@]}" --format='value(name.basename(),state)')
LIST_REQUESTS=(gcloud compute tpus queued-resources list "${WHERE[@]}"
  --format='value(name.basename(),state.state)')

if ((!DRY_RUN)) && ! command -v gcloud >/dev/null; then
  die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
fi
case $SUBCOMMAND in
  create | install | delete) "$SUBCOMMAND" ;;
  run) run "$@" ;;
  collect) collect ;;
  resume-loop) resume_loop "$@" ;;
  log) on 0 'tail -n 20 lpw_jax_run/run.log' ;;
  stop) on all 'cd lpw_jax_run && { flock -n lock true || kill -TERM -- "-$(cat pid)"; }' ;;
  *) die "unknown subcommand $SUBCOMMAND (--help lists them)" ;;
esac
exit "$CODE"
