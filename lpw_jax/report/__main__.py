"""Writes report.html of a run, finished or not, or shows all runs under a folder in a browser.

python -m lpw_jax.report --workdir DIR
python -m lpw_jax.report --serve DIR [--port N]

DIR of --workdir is a run's folder, or one that holds several seeds of one config, as seed0, seed1.
"""

import argparse
import os
from collections.abc import Sequence

from lpw_jax import report
from lpw_jax.command import prog
from lpw_jax.display import console
from lpw_jax.errors import exit_code, leave
from lpw_jax.files import storage
from lpw_jax.report import serve


def write(workdir: str) -> None:
    """Writes the report of the run in `workdir`, or of the seeds in it, also while they train.

    Raises:
      UserError: there is no run, one of its files is damaged, or the report cannot be written;
        the runs in it are not seeds of one config.
    """
    from lpw_jax.comparison import seeds  # JAX, which `--serve` does without
    from lpw_jax.files.workdir import Workdir
    from lpw_jax.report import page

    if found := seeds.find(workdir):
        console.say(
            f"report of {len(found)} seed{'s' * (len(found) > 1)}: {seeds.write(workdir, found)}"
        )
        return
    folder = Workdir(workdir)
    folder.write_file(report.NAME, storage.utf8(page.build(folder)))
    console.say(f"report: {folder.path / report.NAME}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.report"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder of a run or of several seeds of one, where the report is written",
    )
    what.add_argument(
        "--serve",
        metavar="DIR",
        help="folder whose runs are shown to browsers of this machine, until Ctrl-C; nothing is "
        "written",
    )
    parser.add_argument(
        "--port", metavar="N", help=f"of the address of --serve (default: {serve.PORT})"
    )
    args = parser.parse_args(argv)
    if args.port is not None and args.serve is None:
        parser.error("--port goes with --serve")
    if args.serve is not None:
        return exit_code(parser.prog, lambda: serve.serve(args.serve, args.port))
    return exit_code(parser.prog, lambda: write(args.workdir))


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"  # the accelerators may be the training's
    leave(main())
