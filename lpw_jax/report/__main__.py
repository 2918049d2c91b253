"""Writes report.html of a run, finished or not, into its folder.

python -m lpw_jax.report --workdir DIR
"""

import argparse
from collections.abc import Sequence

import jax

from lpw_jax import report
from lpw_jax.command import prog
from lpw_jax.display import console
from lpw_jax.errors import exit_code, leave
from lpw_jax.files import storage
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import page


def write(workdir: str) -> None:
    """Writes the report of the run in `workdir`, also while it trains.

    Raises:
      UserError: there is no run, one of its files is damaged, or the report cannot be written.
    """
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
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a run")
    args = parser.parse_args(argv)
    return exit_code(parser.prog, lambda: write(args.workdir))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # the accelerators may be the training's
    leave(main())
