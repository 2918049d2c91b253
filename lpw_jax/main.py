"""Trains and evaluates the run that a config describes.

python -m lpw_jax.main --config configs/cifar10_bn.py --config.train.batch_size=64
"""

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lpw_jax import config as config_lib
from lpw_jax.command import prog
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.files import storage

_EXAMPLES = """\
examples:
  python -m lpw_jax.main --config configs/digits_bn.py
  python -m lpw_jax.main --config configs/cifar10_bn.py --config.data.dir=/data/tfds
  python -m lpw_jax.main --config configs/cifar10_small.py \\
      --config.train.epochs=6 --config.late_phase.release_epoch=4 --config.seed=1
  python -m lpw_jax.main --config configs/cifar10_bn.py --workdir /tmp/run \\
      --config.late_phase.patterns='.*/bn[^/]*/(scale|bias)'

configs/base.py explains every field. The same command continues an interrupted run. Results are in
results.json in the work directory. Exit codes: 0 done; 1 another process of the run was lost; 2 an
error in config or data, or too little memory or disk (the message names it); 75 asked to end
(SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, preemption) and saved; 130 Ctrl-C.
"""


def parser() -> argparse.ArgumentParser:
    """The command line, `--config.FIELD=VALUE` flags excepted."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.main"),
        description="Trains and evaluates a network with late-phase weights.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config_lib.add_config_flags(parser)
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder into which the run writes (default: runs/<config name>/seed<seed>)",
    )
    rehearsals = parser.add_mutually_exclusive_group()
    rehearsals.add_argument(
        "--dry_run",
        action="store_true",
        help="check everything, show config, parameters and schedule, take a few steps",
    )
    rehearsals.add_argument(
        "--profile",
        action="store_true",
        help="check everything, write traces of a few cycles to DIR/profile",
    )
    hosts = parser.add_argument_group(
        "several hosts",
        "Start the same command on each host. Cloud TPU, Slurm and Open MPI need no flags.",
    )
    hosts.add_argument(
        "--distributed",
        action="store_true",
        help="join the hosts that JAX detects, or fail if there are none",
    )
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--num_processes", type=int, metavar="N", help="number of processes")
    hosts.add_argument(
        "--process_id", type=int, metavar="I", help="number of this process, 0 to N - 1"
    )
    hosts.add_argument(
        "--join_timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for the others (default: %(default)g)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with `argv` (default: the process's arguments); returns its exit code."""
    flags = parser()
    args, config = config_lib.parse(flags, sys.argv[1:] if argv is None else argv)
    workdir = args.workdir
    if workdir is None:
        workdir = os.path.join("runs", config_lib.config_name(args.config), f"seed{config.seed}")

    def run():
        if not args.process_id:  # the others write nothing
            _check_workdir(workdir)
        if args.profile and storage.is_remote(workdir):
            raise UserError(f"--profile: needs a local folder, but --workdir = {workdir!r}")
        # Takes a moment.
        from lpw_jax import data
        from lpw_jax.display import console

        data.check_name(config.data.name, config.data.dir)
        if not args.process_id:
            name = config_lib.config_name(args.config)
            console.say(f"{name}, seed {config.seed}: starting JAX")
        # Takes seconds: only once the user's part is right.
        from lpw_jax import launch
        from lpw_jax.devices import compilation, cpu, hosts

        if argv is None:  # the process is this program's alone
            gc.freeze()  # what is imported is not garbage: to look through it takes half a second
        cpu.share_memory()
        with hosts.joined(
            distributed=args.distributed,
            coordinator=args.coordinator,
            num_processes=args.num_processes,
            process_id=args.process_id,
            timeout=args.join_timeout,
        ):
            compilation.use_cache()
            launch.run(config, workdir=workdir, rehearse=args.dry_run, profile=args.profile)

    return exit_code(flags.prog, run)


def _check_workdir(workdir: str) -> None:
    """Raises UserError unless the folder is writable or can be made; leaves nothing behind."""
    if storage.is_remote(workdir):  # known when its folder is made
        if not workdir.startswith("gs://"):
            raise UserError(
                f"--workdir = {workdir!r}: must be a local folder or gs://BUCKET/FOLDER"
            )
        return
    try:
        if not workdir or "\0" in workdir:
            raise OSError("it is empty or holds a null character")
        path = Path(storage.path(workdir)).absolute()
        if (path / "results.json").exists():
            return  # a finished run is only shown, and may be read-only
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise UserError(
            f"--workdir = {workdir!r}: must be a writable folder, or one that can be made; {error}"
        ) from error


if __name__ == "__main__":
    leave(main())
