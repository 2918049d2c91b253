"""Kills a training again and again, and checks that it always ends as if nothing had happened.

    python scripts/soak_kill.py --kills 50 --seed 0 --output results/soak/kill.json

A tiny run on digits is made once undisturbed. Then the same command is started in another folder,
ended at a random moment and started again, until it ends by itself; its weights, predictions,
results and epochs must be those of the first, bit for bit. Half of the ends are SIGKILL, the others
SIGHUP and SIGUSR1, which must save (before the program listens, while Python starts, they kill; the
report says "heard": false); a third of the starts have full or closed outputs. Half of the
moments are anywhere in what remains of the run, half are aimed: into the writing of a checkpoint,
into the re-estimation of statistics, the writing of the final weights, the evaluation. This goes on
in new folders until there were enough kills. Exit code 1 if any run ended otherwise.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("NPROC", "16")  # before JAX starts
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import survival  # noqa: E402

# Of the kills of one run, some of these in this order; those of a phase that is over are left out.
AIMS = (
    *("anywhere", "checkpoint") * 3,
    *("anywhere", "re-estimation", "checkpoint", "anywhere", "weights", "anywhere", "evaluation"),
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1)
MUTE = 1 / 3  # of the starts, whose outputs are full and closed
OUTSIDE = (
    "loading",
    "evaluation",
)  # phases with moments in which Python alone runs, and hears nothing
SHARE = 0.5  # of these moments that a run is killed at
TRAINING = ("tied", "late", "SWA", "re-estimation")
PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
INSIDE = 0.05  # seconds after the first sign of a write within which it is hit


class Soak:
    """The undisturbed run, and those that are killed and compared with it.

    Args:
      folder: for all runs; empty.
      seed: of the moments.
      devices: number of fake CPU devices; 0 for the devices that are there.

    Attributes:
      reference: workdir of the undisturbed run.
      seconds: how long it was in each phase.
    """

    def __init__(self, folder: Path, *, seed: int, devices: int):
        self._folder, self._devices, self._random = folder, devices, random.Random(seed)
        self._start("compiled").wait()  # fills the cache, so that later starts are alike
        undisturbed = self._start("undisturbed")
        self.reference, self.seconds = undisturbed.workdir, Counter()
        before = time.monotonic()
        while undisturbed.process.poll() is None:
            time.sleep(0.005)
            now = time.monotonic()
            self.seconds[undisturbed.phase()] += now - before
            before = now
        if undisturbed.process.returncode:
            sys.exit(f"the undisturbed run failed: {undisturbed.errors}")
        self._newest = undisturbed.newest()

    def one_run(self, name: str, kills: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Kills a run at most `kills` times; returns each kill, and how the run ended."""
        mute = self._random.random() < MUTE
        found, program = [], self._start(name, is_mute=mute)
        for aim in [aim for aim in AIMS if self._random.random() < SHARE]:
            trained = (program.workdir / "results.json").exists()
            if len(found) == kills or (trained and aim not in ("anywhere", "evaluation")):
                continue
            self._wait_for_moment(program, aim, trained)
            phase, sent = program.phase(), self._random.choice(SIGNALS)
            code = program.end(sent)
            is_unheard = code == -sent and (sent == signal.SIGKILL or phase in OUTSIDE)
            if not is_unheard and (code != 75 or sent == signal.SIGKILL):
                break  # it was quicker, or has failed
            found.append(
                {
                    "run": name,
                    "aim": aim,
                    "phase": phase,
                    "signal": signal.Signals(sent).name,
                    "heard": not is_unheard,
                    "mute": mute,
                    "in_checkpoint_write": program.writes_checkpoint(),
                    "resumed_from": program.resumed_from(),
                }
            )
            inside = ", inside a checkpoint write" * found[-1]["in_checkpoint_write"]
            unheard = ", unheard" * (is_unheard and sent != signal.SIGKILL)
            how = f"{signal.Signals(sent).name}{unheard}{', mute' * mute}"
            print(f"{name}: {how} in {phase}{inside} (aim: {aim})", flush=True)
            mute = self._random.random() < MUTE
            program = self._start(name, is_mute=mute)
        if program.wait():
            different = [f"exit code {program.process.returncode}: {program.errors[-500:]}"]
        else:
            different = survival.differences(program.workdir, self.reference)
        outcome = {"run": name, "restarts": len(found), "equal": not different}
        print(f"{name}: {len(found)} restarts, {different or 'equal'}", flush=True)
        return found, outcome | {"different": different}

    def _start(self, name: str, **options: Any) -> survival.Program:
        cache = self._folder / "cache"
        return survival.Program(self._folder / name, devices=self._devices, cache=cache, **options)

    def _wait_for_moment(self, program: survival.Program, aim: str, trained: bool) -> None:
        """Waits until the program is to be killed, or has ended."""
        done = program.newest() / self._newest

        def reached(phase: str) -> bool:
            return program.wait_for(lambda: program.phase() in (phase, "evaluation"))

        if aim == "anywhere":
            phases = ("loading", "evaluation") if trained else ("loading", "weights", "evaluation")
            seconds = sum(self.seconds[phase] for phase in phases)
            seconds += (1 - done) * sum(self.seconds[phase] for phase in TRAINING)
            # A little more than it should take, so that some runs end by themselves.
            self._sleep(program, 1.15 * seconds)
        elif aim == "checkpoint":
            number = self._newest * self._random.uniform(done, (done + 1) / 2)
            program.wait_for(lambda: program.newest() >= number)
            program.wait_for(lambda: program.writes_checkpoint() or program.phase() == "evaluation")
            self._sleep(program, INSIDE)
        elif reached(aim):
            self._sleep(program, INSIDE if aim == "weights" else self.seconds[aim])

    def _sleep(self, program: survival.Program, most: float) -> None:
        """Waits for a random time, or less if the program ends."""
        end = time.monotonic() + self._random.uniform(0, most)
        program.wait_for(lambda: time.monotonic() >= end)


def main() -> int:
    """Runs the soak and writes its report; returns 1 if a run ended otherwise than undisturbed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--output", type=Path, help="JSON file for the report (default: none)")
    parser.add_argument(
        "--devices", type=int, default=1, help="fake CPU devices; 0 = real ones (default: 1)"
    )
    args = parser.parse_args()
    kills, runs = [], []
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), seed=args.seed, devices=args.devices)
        while len(kills) < args.kills:
            found, outcome = soak.one_run(f"run{len(runs)}", args.kills - len(kills))
            kills += found
            runs.append(outcome)
        report = {
            "kills": len(kills),
            "runs": len(runs),
            "runs_equal": sum(run["equal"] for run in runs),
            "kills_in_phase": dict(Counter(kill["phase"] for kill in kills)),
            "kills_by_signal": dict(Counter(kill["signal"] for kill in kills)),
            "kills_unheard": sum(
                not kill["heard"] for kill in kills if kill["signal"] != "SIGKILL"
            ),
            "kills_with_mute_outputs": sum(kill["mute"] for kill in kills),
            "kills_in_checkpoint_write": sum(kill["in_checkpoint_write"] for kill in kills),
            "seed": args.seed,
            "devices": args.devices,
            "flags": ["--config configs/digits_bn.py", *survival.FLAGS],
            "undisturbed_seconds": {k: round(v, 2) for k, v in soak.seconds.items()},
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "outcomes": runs,
            "moments": kills,
        }
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{len(kills)} kills, {report['runs_equal']} of {len(runs)} runs as undisturbed")
    return int(report["runs_equal"] < len(runs))


if __name__ == "__main__":
    sys.exit(main())
