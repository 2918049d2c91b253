"""Trains and evaluates the run that a config describes.

python -m lpw_jax.main --config configs/cifar10_bn.py --config.train.batch_size=64
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lpw_jax import config as config_lib
from lpw_jax.errors import UserError, exit_code, leave

_EXAMPLES = """\
examples:
  python -m lpw_jax.main --config configs/digits_bn.py
  python -m lpw_jax.main --config configs/cifar10_bn.py --config.data.dir=/data/tfds
  python -m lpw_jax.main --config configs/cifar10_small.py \\
      --config.train.epochs=6 --config.late_phase.release_epoch=4 --config.seed=1
  python -m lpw_jax.main --config configs/cifar10_bn.py --workdir /tmp/run \\
      --config.late_phase.patterns='.*/bn[^/]*/(scale|bias)'

configs/base.py explains every field. A mistake ends the program with exit code 2 before anything
is computed. The results are in the working directory's results.json.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program with `argv` (default: the process's arguments); returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lpw_jax.main",
        description="Trains and evaluates a network with late-phase weights.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config_lib.add_config_flags(parser)
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder for all that the run writes (default: runs/<config name>/seed<seed>)",
    )
    args, config = config_lib.parse(parser, sys.argv[1:] if argv is None else argv)
    workdir = args.workdir
    if workdir is None:
        workdir = os.path.join("runs", config_lib.config_name(args.config), f"seed{config.seed}")

    def run():
        _check_workdir(workdir)
        from lpw_jax import train  # takes seconds to import: only once the user's part is right

        train.run(config, workdir=workdir)

    return exit_code(parser.prog, run)


def _check_workdir(workdir: str) -> None:
    """Raises UserError unless the folder is writable or can be made; leaves nothing behind."""
    path = Path(workdir).absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        if not workdir:
            raise OSError("it is empty")
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise UserError(
            f"--workdir = {workdir!r}: must be a writable folder or a new one in such; {error}"
        ) from error


if __name__ == "__main__":
    leave(main())
