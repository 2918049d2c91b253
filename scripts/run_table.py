"""The commands of a whole table of results: every training, the deep ensemble, the comparison.

    python scripts/run_table.py cifar10 --seeds 5           prints them, in order
    python scripts/run_table.py cifar10 --seeds 5 --run     runs them, one after the other

What is finished is only shown again and what was interrupted goes on, so the same line continues a
table. Flags --config.FIELD=VALUE go to every training, but none turns one method into another:
base SGD stays without a release whatever --config.late_phase.release_epoch says.

A Slurm array, a task for each training; the same line again continues those that were interrupted:

    TABLE="scripts/run_table.py cifar10 --seeds 5 --runs /network/runs"
    sbatch --array=0-$(($(python $TABLE --count) - 1)) --gpus=1 --signal=TERM@300 --wrap \\
        "srun python $TABLE --config.data.dir=/network/tfds --run --index \\$SLURM_ARRAY_TASK_ID"

Afterwards, without --index, all are found finished, and the last commands are run. With --pod the
trainings are commands of scripts/tpu_pod.sh, whose settings are variables of the environment.

Exit codes: 0 done, 75 asked to end and saved, 130 Ctrl-C, otherwise that of the first failure.
"""

import argparse
import dataclasses
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lpw_jax import config as config_lib
from lpw_jax import signals, streams
from lpw_jax.errors import INTERRUPTED, PREEMPTED, ConfigError

ROOT = Path(__file__).resolve().parent.parent
COPY = "runs"  # of the runs in a bucket
PYTHON = (sys.executable, "-m")


@dataclasses.dataclass(frozen=True)
class Row:
    """A method: its folder under --runs, its file in configs/, and the fields that it changes."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """Methods to be trained, the one whose seeds become a deep ensemble, and whether there are
    published figures to compare with."""

    rows: tuple[Row, ...]
    ensemble_of: str
    published: bool = False


NO_RELEASE = ("late_phase.release_epoch=-1",)
FROM_START = ("late_phase.release_epoch=0",)
ALL_WEIGHTS = ("late_phase.patterns=.*",)
# The published shape of SWA's schedule, in twelve epochs.
SWA_12 = (
    "train.end_learning_rate=0.05",
    "train.anneal_start=5",
    "train.anneal_end=9",
    "late_phase.release_epoch=6",
    "swa.start_epoch=10",
)

TABLES = {
    "cifar10": Table(
        rows=(
            Row("cifar10_sgd", "cifar10_sgd"),
            Row("cifar10_swa", "cifar10_swa"),
            Row("cifar10_bn", "cifar10_bn"),
            Row("cifar10_bn_swa", "cifar10_bn_swa"),
            Row("cifar10_bn_from_start", "cifar10_bn", FROM_START),
            Row("cifar10_all_weights", "cifar10_bn", ALL_WEIGHTS),
        ),
        ensemble_of="cifar10_sgd",
        published=True,
    ),
    "cifar100": Table(
        rows=(
            Row("cifar100_sgd", "cifar100_sgd"),
            Row("cifar100_swa", "cifar100_swa"),
            Row("cifar100_bn", "cifar100_bn"),
            Row("cifar100_bn_swa", "cifar100_bn_swa"),
            Row("cifar100_bn_from_start", "cifar100_bn", FROM_START),
            # Ten times the decay, as in cifar100_bn, is meant for batch norm and the head.
            Row(
                "cifar100_all_weights",
                "cifar100_bn",
                (*ALL_WEIGHTS, "late_phase.weight_decay=0.0005"),
            ),
        ),
        ensemble_of="cifar100_sgd",
        published=True,
    ),
    "cifar10_small": Table(
        rows=(
            Row("cifar10_small_sgd", "cifar10_small_sgd"),
            Row("cifar10_small_swa", "cifar10_small", (*SWA_12, *NO_RELEASE)),
            Row("cifar10_small", "cifar10_small"),
            Row("cifar10_small_bn_swa", "cifar10_small", SWA_12),
            Row("cifar10_small_from_start", "cifar10_small", FROM_START),
            Row("cifar10_small_all_weights", "cifar10_small", ALL_WEIGHTS),
        ),
        ensemble_of="cifar10_small_sgd",
    ),
    "digits": Table(
        rows=(
            Row("digits_sgd", "digits_bn", NO_RELEASE),
            Row("digits_swa", "digits_bn", (*SWA_12, *NO_RELEASE)),
            Row("digits_bn", "digits_bn"),
            Row("digits_bn_swa", "digits_bn", SWA_12),
            Row("digits_bn_from_start", "digits_bn", FROM_START),
            Row("digits_all_weights", "digits_bn", ALL_WEIGHTS),
        ),
        ensemble_of="digits_sgd",
    ),
}

# Which values make a method what it is: no flag changes them.
METHOD = {
    "late_phase.release_epoch": lambda config: config.late_phase.release_epoch <= 0,
    "late_phase.patterns": lambda config: ".*" in config.late_phase.patterns,
    "swa.start_epoch": lambda config: config.swa.start_epoch == 0,
}


Command = tuple[str, ...]  # its words


def trainings(
    table: Table, seeds: Sequence[int], *, runs: str, flags: Sequence[str], pod: bool = False
) -> list[Command]:
    """A command for each run, all methods of a seed before the next seed.

    Raises:
      ConfigError: a row refuses the flags.
    """
    commands = []
    for seed in seeds:
        for row in table.rows:
            file = _config_file(row)
            own = [f"--config.{override}" for override in row.overrides]
            config = config_lib.load_config(file, own)
            given = [
                flag for flag in flags if not METHOD.get(_field(flag), lambda _: False)(config)
            ]
            fields = [*own, *given, f"--config.seed={seed}"]
            try:
                config_lib.load_config(file, fields)
            except ConfigError as error:
                raise ConfigError(f"{row.name}: {error}") from error
            workdir = _workdir(runs, row.name, seed)
            words = (*PYTHON, "lpw_jax.main", "--config", file, "--workdir", workdir)
            if pod:
                words = ("env", f"WORKDIR={workdir}", "scripts/tpu_pod.sh", "resume-loop")
                words = (*words, f"--config=configs/{row.config}.py")
            commands.append((*words, *fields))
    return commands


def evaluations(
    name: str, table: Table, seeds: Sequence[int], *, runs: str, pod: bool = False
) -> list[Command]:
    """The commands after the trainings: deep ensemble, and comparison of all."""
    commands = []
    if pod:
        excluded = "--exclude=.*/(checkpoints|weights)/.*"
        copy = ("gcloud", "storage", "rsync", "--recursive", excluded, runs, COPY)
        commands, runs = [("mkdir", "-p", COPY), copy], COPY
    workdirs = [_workdir(runs, row.name, seed) for row in table.rows for seed in seeds]
    if len(seeds) > 1:
        members = [_workdir(runs, table.ensemble_of, seed) for seed in seeds]
        which = f"seeds{seeds[0]}-{seeds[-1]}"
        ensemble = str(Path(runs, f"{table.ensemble_of}_deep_ensemble", which))
        commands.append((*PYTHON, "lpw_jax.evaluate", "--ensemble", *members, "--output", ensemble))
        workdirs.append(ensemble)
    against = ("--against", "published") if table.published else ()
    out = str(Path(runs, f"{name}_comparison"))
    return [*commands, (*PYTHON, "lpw_jax.compare", *workdirs, *against, "--out", out)]


def run(commands: Sequence[Command], *, keep_going: bool = False) -> int:
    """Runs them one after the other; returns the exit code of the first that fails, or 0.

    What asks to end is passed on, as SIGTERM, to the one that runs. Unless `keep_going` the first
    failure ends it all; a run that was asked to end (75) or interrupted (130) always does.
    """
    first_failure, asked, child = 0, [], None

    def receive(number, _):
        asked.append(number)
        if child is not None and number != signal.SIGINT:  # Ctrl-C reaches it by itself
            child.terminate()

    with signals.handled(dict.fromkeys((*signals.ENDING, signal.SIGINT), receive)):
        for command in commands:
            if asked:
                return INTERRUPTED if signal.SIGINT in asked else PREEMPTED
            print(f"+ {shlex.join(command)}", flush=True)
            child = subprocess.Popen(command)
            if asked:
                child.terminate()
            code = child.wait()
            child = None
            if code:
                code = code if code > 0 else 128 - code  # killed by a signal: as shells count
                print(f"run_table.py: exit code {code}: {shlex.join(command)}", file=sys.stderr)
                first_failure = first_failure or code
                if not keep_going or code in (PREEMPTED, INTERRUPTED):
                    return code
    return first_failure


def parse_seeds(text: str) -> range:
    """'5' is 0 to 4, '2-4' is 2 to 4."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)", text)
    seeds = range(0)
    if found:
        first, last = found.groups()
        seeds = range(int(last)) if first is None else range(int(first), int(last) + 1)
    if not seeds or seeds[-1] >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seeds, or FIRST-LAST")
    return seeds


def _config_file(row: Row) -> str:
    """As short as it can be written here."""
    file = ROOT / "configs" / f"{row.config}.py"
    return str(file.relative_to(ROOT) if Path.cwd() == ROOT else file)


def _workdir(runs: str, name: str, seed: int) -> str:
    return f"{runs.rstrip('/')}/{name}/seed{seed}"


def _field(flag: str) -> str:
    return flag.removeprefix("--config.").partition("=")[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=parse_seeds, default="5", metavar="N|A-B")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where runs are written")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--count", action="store_true", help="print the number of trainings")
    what.add_argument("--run", action="store_true", help="run the commands, not only print them")
    parser.add_argument("--index", type=int, metavar="I", help="only training I, from 0")
    parser.add_argument("--keep_going", action="store_true", help="go on after a failure")
    parser.add_argument("--pod", action="store_true", help="train with scripts/tpu_pod.sh")
    others, flags = config_lib.split_flags(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(others)
    if any(_field(flag) == "seed" for flag in flags):
        parser.error("--config.seed: --seeds says which")
    if args.pod and not args.runs.startswith("gs://"):
        parser.error(f"--runs = {args.runs!r}: must be gs://BUCKET/FOLDER with --pod")
    table = TABLES[args.table]
    try:
        commands = trainings(table, args.seeds, runs=args.runs, flags=flags, pod=args.pod)
    except ConfigError as error:
        parser.error(str(error))
    if args.count:
        print(len(commands))
        return 0
    if args.index is None:
        commands += evaluations(args.table, table, args.seeds, runs=args.runs, pod=args.pod)
    elif 0 <= args.index < len(commands):
        commands = commands[args.index : args.index + 1]
    else:
        parser.error(f"--index = {args.index}: must be 0 to {len(commands) - 1}")
    if args.run:
        return run(commands, keep_going=args.keep_going)
    print(*map(shlex.join, commands), sep="\n")
    return 0


if __name__ == "__main__":
    streams.guard()
    sys.exit(main())
