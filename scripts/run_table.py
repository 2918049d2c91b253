"""The commands of a whole table of results: every training, the deep ensemble, the comparison.

    python scripts/run_table.py cifar10 --seeds 5           prints them, in order
    python scripts/run_table.py cifar10 --seeds 5 --run     runs them, one after the other

What is finished is only shown again and what was interrupted goes on, so the same line continues a
table. Flags --config.FIELD=VALUE go to every training, but none turns one method into another:
base SGD stays without a release whatever --config.late_phase.release_epoch says.

    python scripts/run_table.py ablations --base configs/digits_bn.py --only sigma --seeds 3

sweeps one field after the other around a base config, with --config.FIELD=VALUE flags behind it;
what the config or its network does not allow is left out, and said (docs/ablations.md).

A Slurm array, a task for each training; the same line again continues those that were interrupted:

    TABLE="scripts/run_table.py cifar10 --seeds 5 --runs /network/runs"
    sbatch --array=0-$(($(python $TABLE --count) - 1)) --gpus=1 --signal=TERM@300 --wrap \\
        "srun python $TABLE --config.data.dir=/network/tfds --run --index \\$SLURM_ARRAY_TASK_ID"

Afterwards, without --index, all are found finished, and the last commands are run. With --pod the
trainings are commands of scripts/tpu_pod.sh, whose settings are variables of the environment.

Exit codes: 0 done, 75 asked to end and saved, 130 Ctrl-C, otherwise that of the first failure.
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ablations
from methods import METHOD, TABLES, Row, Table

from lpw_jax import config as config_lib
from lpw_jax import signals, streams
from lpw_jax.errors import INTERRUPTED, PREEMPTED, ConfigError

ROOT = Path(__file__).resolve().parent.parent
COPY = "runs"  # of the runs in a bucket
ABLATIONS = "ablations"
PYTHON = (sys.executable, "-m")


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
                words = (*words, f"--config={_named_file(row)}")
            commands.append((*words, *fields))
    return commands


def evaluations(
    name: str, table: Table, seeds: Sequence[int], *, runs: str, pod: bool = False
) -> list[Command]:
    """The commands after the trainings: deep ensembles, and the comparisons."""
    commands = []
    if pod:
        excluded = "--exclude=.*/(checkpoints|weights)/.*"
        copy = ("gcloud", "storage", "rsync", "--recursive", excluded, runs, COPY)
        commands, runs = [("mkdir", "-p", COPY), copy], COPY
    ensembles = []
    for row in table.ensemble_of:
        for group in _groups(seeds, table.ensemble_size):
            members = [_workdir(runs, row, seed) for seed in group]
            which = f"seeds{group[0]}-{group[-1]}"
            ensembles.append(str(Path(runs, f"{row}_deep_ensemble", which)))
            output = ("--output", ensembles[-1])
            commands.append((*PYTHON, "lpw_jax.evaluate", "--ensemble", *members, *output))
    if not table.comparisons:
        workdirs = [_workdir(runs, row.name, seed) for row in table.rows for seed in seeds]
        against = ("--against", "published") if table.published else ()
        commands.append(_compare([*workdirs, *ensembles], against, name, runs))
    for each in table.comparisons:
        workdirs = [_workdir(runs, row, seed) for row in each.rows for seed in seeds]
        sweep = ("--sweep", *each.fields) if each.fields else ()
        commands.append(_compare(workdirs, sweep, each.name, runs))
    return commands


def _groups(seeds: Sequence[int], size: int | None) -> list[Sequence[int]]:
    """The seeds of each deep ensemble, which has two networks or more."""
    size = size or len(seeds)
    starts = range(0, len(seeds) - size + 1, size) if size > 1 else ()
    return [seeds[start : start + size] for start in starts]


def _compare(workdirs: Sequence[str], how: Sequence[str], name: str, runs: str) -> Command:
    out = str(Path(runs, f"{name}_comparison"))
    return (*PYTHON, "lpw_jax.compare", *workdirs, *how, "--out", out)


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


def parse_names(text: str) -> tuple[str, ...]:
    """'kind,sigma' as the names of ablations, in their order."""
    names = {name.strip() for name in text.split(",")}
    if unknown := names - {*ablations.SWEEPS}:
        known = ", ".join(ablations.SWEEPS)
        raise argparse.ArgumentTypeError(f"{min(unknown)!r}: must be one or more of {known}")
    return tuple(name for name in ablations.SWEEPS if name in names)


def _config_file(row: Row) -> str:
    """As short as it can be written here."""
    named = _named_file(row)
    return named if named == row.config or Path.cwd() == ROOT else str(ROOT / named)


def _named_file(row: Row) -> str:
    """From the repository's root, if it is not a path already."""
    return row.config if ".py" in row.config else f"configs/{row.config}.py"


def _workdir(runs: str, name: str, seed: int) -> str:
    return f"{runs.rstrip('/')}/{name}/seed{seed}"


def _field(flag: str) -> str:
    return flag.removeprefix("--config.").partition("=")[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", choices=[*TABLES, ABLATIONS])
    parser.add_argument("--seeds", type=parse_seeds, default="5", metavar="N|A-B")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where runs are written")
    parser.add_argument("--base", metavar="FILE", help=f"of {ABLATIONS}: the config to start from")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        type=parse_names,
        help=f"of {ABLATIONS}: some of {','.join(ablations.SWEEPS)}",
    )
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
    if (args.table == ABLATIONS) != bool(args.base) or (args.only and not args.base):
        parser.error(f"--base is what {ABLATIONS} need, and with --only for nothing else")
    try:
        if args.base:
            table, left_out = ablations.table(args.base, flags, args.only or ablations.SWEEPS)
            for line in left_out:
                print(f"run_table.py: {line}", file=sys.stderr)
            flags = []  # every row has them
        else:
            table = TABLES[args.table]
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
