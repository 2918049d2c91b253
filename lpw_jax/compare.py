"""Compares runs with the published figures, with the PyTorch code, or with one another.

python -m lpw_jax.compare RUNS... [--against published | FILES...] [--out DIR]

RUNS are folders of runs, folders of such folders, globs, or results.json files. All seeds of one
config form one side. FILES are the same, or performance_overview.txt of the PyTorch code.
Without --against, the first config of RUNS is the baseline; --baseline chooses another.
If RUNS differ only in one field, --sweep FIELD also draws them over its values.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from lpw_jax.command import prog
from lpw_jax.comparison import page, published, report, runs, settings, text
from lpw_jax.comparison.quantities import read_margins
from lpw_jax.comparison.sides import Side
from lpw_jax.display import console
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.files import storage

PUBLISHED = "published"


def run(
    named: Sequence[str],
    *,
    against: Sequence[str] = (),
    baseline: str | None = None,
    margins: Sequence[str] = (),
    out: str | None = None,
    swept: Sequence[str] = (),
) -> dict[str, Any]:
    """Compares, prints the tables and writes `out`/comparison.{md,json,html}; returns the report.

    Raises:
      UserError: nothing is there to compare, or `out` cannot be written.
    """
    widths = read_margins(margins)
    if baseline is not None and against:
        raise UserError("--baseline and --against cannot be combined: leave out one of them")
    if PUBLISHED in against and len(against) > 1:
        raise UserError(
            "--against takes either published or FILES: compare with the others in another call"
        )
    if swept and against:
        raise UserError("--sweep and --against cannot be combined: leave out one of them")
    for field in swept:
        settings.check_swept(field)
    folder = None if out is None else _folder(out)
    left_out: list[str] = []
    sides = runs.gather(named, left_out=left_out)
    ours = [side for side in sides if side.kind == "runs"]
    if len(ours) < len(sides):
        raise UserError(
            f"{sides[-1].source}: files of the PyTorch code must come after --against, and runs of "
            "this program before it"
        )
    if not ours:
        raise UserError("none of RUNS is finished:\n" + "\n".join(left_out))
    given = {"margins": widths, "left_out": left_out, "on_pair": console.say}
    if against:
        theirs = published.sides() if PUBLISHED in against else _theirs(against, left_out)
        _check_apart(ours, theirs)
        found = report.against(ours, theirs, **given)
    else:
        found = report.among(ours, baseline=baseline, swept=swept, **given)
    written = [] if folder is None else _write(folder, found)
    for line in (*found["left_out"], *found["not_compared"]):
        console.warn(line)
    if not found["comparisons"]:
        console.say("there is only one config: add runs of another, or --against published")
    with console.optional("the tables cannot be shown"):
        console.say(text.terminal(found))
    for path in written:
        console.say(f"written: {path}")
    return found


def _theirs(against: Sequence[str], left_out: list[str]) -> list[Side]:
    theirs = runs.gather(against, left_out=left_out)
    if not theirs:
        raise UserError("no run after --against is finished:\n" + "\n".join(left_out))
    return theirs


def _check_apart(ours: Sequence[Side], theirs: Sequence[Side]) -> None:
    """Raises UserError if a run is on both sides: it would agree with itself."""
    places = {runs.resolved(run.place) for side in ours for run in side.runs}
    for run in (run for side in theirs for run in side.runs):
        if runs.resolved(run.place) in places:
            raise UserError(
                f"--against: {run.place} is among RUNS, too; leave it out of one of them"
            )


def _folder(out: str) -> epath.Path:
    """The folder to write to, made before anything is computed."""
    folder = storage.path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made a folder, {error}") from error
    return folder


def _write(folder: epath.Path, found: dict[str, Any]) -> list[epath.Path]:
    pages = {
        "comparison.json": json.dumps(found, indent=2, allow_nan=False) + "\n",
        "comparison.md": text.markdown(found),
        "comparison.html": page.page(found),
    }
    for name, content in pages.items():
        try:
            storage.write_text(folder / name, content)
        except OSError as error:
            raise UserError(f"--out: {folder / name} cannot be written, {error}") from error
    return [folder / name for name in pages]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.compare"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="finished runs of this program")
    parser.add_argument(
        "--against",
        nargs="+",
        default=(),
        metavar="FILES",
        help="'published', or what to compare with: runs, results.json, performance_overview.txt",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="config with which the others are compared (default: the first)",
    )
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="POINTS",
        help="largest difference that does not matter, in percentage points (default 0.5); "
        "nll=0.01 sets the margin of one quantity (nll, brier and ece have none by default); "
        "may be repeated",
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=(),
        metavar="FIELD",
        help="draw accuracy, NLL and ECE over the values of this field of the config, such as "
        "late_phase.num_members; name several fields if they change together",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for comparison.{md,json,html}")
    args = parser.parse_args(argv)
    return exit_code(
        parser.prog,
        lambda: run(
            args.runs,
            against=args.against,
            baseline=args.baseline,
            margins=args.margin,
            out=args.out,
            swept=args.sweep,
        ),
    )


if __name__ == "__main__":
    leave(main())
