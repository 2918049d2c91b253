"""A cloud on this machine, for scripts/tpu_pod.sh.

Its `gcloud` makes every worker a folder, in which bash runs the commands for the worker.
"""

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "tpu_pod.sh"
SETTINGS = dict(NAME="lpw", PROJECT="proj", ZONE="us-central2-b", BUCKET="bkt", TYPE="v4-32")

GCLOUD = r"""#!/usr/bin/env bash
set -eu
echo "gcloud $*" >> "$CLOUD/calls"
worker=0 command=""
for word in "$@"; do
  case $word in --worker=*) worker=${word#*=} ;; --command=*) command=${word#*=} ;; esac
done
[[ $worker == all ]] && workers="0 1" || workers=$worker
case "$3 $4" in
  "tpu-vm list") cat "$CLOUD/state" 2>/dev/null || true ;;
  "tpu-vm create") mkdir -p "$CLOUD/0" "$CLOUD/1"; echo "$5 READY" > "$CLOUD/state" ;;
  "tpu-vm delete") rm -r "$CLOUD/0" "$CLOUD/1" "$CLOUD/state" ;;
  "tpu-vm scp") for w in $workers; do cp "$5" "$CLOUD/$w/${6#*:}"; done ;;
  "tpu-vm ssh")
    grep -q READY "$CLOUD/state" || exit 255
    for w in $workers; do (cd "$CLOUD/$w" && HOME=$PWD WORKER=$w bash -c "$command"); done ;;
esac
"""
# What the workers get: a uv that makes a 'python', which keeps its arguments and ends as told.
CURL = r"""#!/usr/bin/env bash
echo 'mkdir -p "$UV_INSTALL_DIR" && cp "$CLOUD/bin/fake_uv" "$UV_INSTALL_DIR/uv"'
"""
UV = r"""#!/usr/bin/env bash
if [[ $1 == venv ]]; then mkdir -p .venv/bin && cp "$CLOUD/bin/fake_python" .venv/bin/python; fi
"""
PYTHON = r"""#!/usr/bin/env bash
[[ $1 == -c ]] && exit
printf '%s\n' "$@" > "$CLOUD/arguments.$WORKER"
trap 'exit 75' TERM
echo x >> "$CLOUD/starts.$WORKER"
if [[ -e $CLOUD/preempt ]]; then echo "lpw PREEMPTED" > "$CLOUD/state"; rm "$CLOUD/preempt"; fi
while [[ -e $CLOUD/hold ]]; do sleep 0.05; done
exit "$(sed -n "$(wc -l < "$CLOUD/starts.$WORKER")p" "$CLOUD/codes.$WORKER")"
"""


def install(folder):
    """Writes gcloud, and what the workers find on their machines, into `folder`/bin."""
    (folder / "bin").mkdir(parents=True)
    programs = {"gcloud": GCLOUD, "curl": CURL, "fake_uv": UV, "fake_python": PYTHON}
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)


def pod(*words, env=None, script=SCRIPT, wait=True, **settings):
    """Runs the script; returns the completed process, or with `wait=False` the running one."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | (env or {})
    process = subprocess.Popen(
        [shutil.which("bash"), str(script), *words],
        env=env | SETTINGS | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def printed(*words, **settings):
    """What the script would run."""
    done = pod("--print", *words, **settings)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["bash", "-n", "-c", done.stdout]).returncode == 0
    return done.stdout
