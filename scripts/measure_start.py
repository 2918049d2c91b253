"""Measures how soon the README's first command speaks, takes its first step, and ends.

python scripts/measure_start.py [OTHER_CLONE ...] --rounds 2 --output results/benchmarks/start.json

Clones are measured in turn, this one last. `cold` keeps no compiled program from before, `kept`
those of the cold run. Seconds are of the wall clock and of the CPU, all threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
# The program as it is; once its progress bar is there, the first step (dispatched) is told.
PROGRAM = """
import os, sys, threading, time
def watch():
    while not hasattr(sys.modules.get("lpw_jax.display.progress_bar"), "TrainProgress"):
        time.sleep(0.005)
    bar = sys.modules["lpw_jax.display.progress_bar"].TrainProgress
    update = bar.update
    def told(self, *args, **options):
        print("FIRST STEP", time.process_time(), flush=True)
        bar.update = update
        if os.environ["END"]:
            os._exit(0)
        return update(self, *args, **options)
    bar.update = told
threading.Thread(target=watch, daemon=True).start()
from lpw_jax import main
sys.exit(main.main(sys.argv[1:]))
"""


def run(clone: Path, cache: str, *, whole: bool) -> dict[str, float]:
    """One run, to its first step or its end."""
    environment = os.environ | {
        "PYTHONPATH": str(clone),
        "XDG_CACHE_HOME": cache,
        "PYTHONUNBUFFERED": "1",
        "END": "" if whole else "yes",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PROGRAM, "--config", "configs/digits_bn.py"]
        command += ["--workdir", folder]
        before, start, found = os.times(), time.monotonic(), {}
        process = subprocess.Popen(
            command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            now = time.monotonic() - start
            found.setdefault("first_line", now)
            if line.startswith("FIRST STEP"):
                found |= {"first_step": now, "first_step_cpu": float(line.split()[2])}
        if process.wait():
            raise SystemExit(f"{clone}: the run failed")
        if whole:
            after = os.times()
            cpu = sum(after[2:4]) - sum(before[2:4])  # of children
            found |= {"whole": time.monotonic() - start, "whole_cpu": cpu}
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("others", nargs="*", type=Path, metavar="OTHER_CLONE")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "benchmarks/start.json")
    args = parser.parse_args()
    measured = []
    for number in range(1, args.rounds + 1):
        for clone in (*args.others, HERE):
            name = "this" if clone == HERE else clone.name
            with tempfile.TemporaryDirectory() as cache:
                cold = run(clone, cache, whole=number == 1)
                kept = run(clone, cache, whole=False)
            load = round(os.getloadavg()[0], 1)
            measured.append({"clone": name, "cold": cold, "kept": kept, "load": load})
            print(json.dumps(measured[-1]), flush=True)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps({"runs": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
