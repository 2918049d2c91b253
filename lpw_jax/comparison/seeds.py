"""The page that tells of several seeds of one config: report.html of the folder that holds them."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpw_jax import registry
from lpw_jax.comparison import report, runs, settings, tables
from lpw_jax.comparison.quantities import read_margins
from lpw_jax.comparison.sides import Side
from lpw_jax.comparison.tables import Table
from lpw_jax.display import html_page, results_report
from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.report import NAME, curves, found_runs, runs_page, seed_curves
from lpw_jax.report.found_runs import Found

_CURVES = "Thin lines are seeds, the thick one is their mean where all have been."


def find(workdir: str) -> list[Found]:
    """The runs directly in a folder, in the order of their names; none of a run's own folder.

    Deep ensembles and soups, which lie beside their runs, are left out.
    """
    place = storage.path(workdir)
    if storage.is_remote(place) or not place.is_dir():
        return []
    found, _, _ = found_runs.Folder(Path(place).absolute(), depth=1).look()
    inner = [run for run in found if run.place != "." and not _made_of(run)]
    return inner if any(run.fields for run in inner) else []


def build(workdir: str, seeds: Sequence[Found]) -> str:
    """The page of the runs that `find` found.

    Raises:
      UserError: they differ in more than their seed, or a file is not as a run writes it.
    """
    root = Path(storage.path(workdir)).absolute()
    if others := [name for name in found_runs.differing(seeds) if name != "seed"]:
        raise UserError(
            f"--workdir = {workdir!r}: its runs must differ in their seed alone, but differ in "
            f"{', '.join(others)}; lpw_jax.compare compares them"
        )
    left_out: list[str] = []
    done = [str(root / run.place) for run in seeds if run.state == "done"]
    sides = runs.gather(done, left_out=left_out) if done else []
    if len(sides) > 1:
        differences = settings.differences(sides[1].fields, sides[0].fields)
        raise UserError(
            f"--workdir = {workdir!r}: its runs must differ in their seed alone, but one has "
            f"{settings.describe(differences)}; lpw_jax.compare compares them"
        )
    config = _nested(next(run.fields for run in seeds if run.fields))
    background = _background(sides)
    sections = {"Results": _results(seeds, config, background[:1], left_out)}
    sections["Seeds"] = _table_of(seeds)
    if any(run.records for run in seeds):
        sections["Learning curves"] = _curves(seeds, config)
    for table in background[1:]:
        sections[table.title] = _shown(table)
    del config["seed"]
    sections["Config"] = html_page.folded("All fields but the seed", html_page.tree(config))
    title = f"{'/'.join(root.parts[-2:])}, {len(seeds)} seeds"
    return html_page.page(title, sections.items(), style=runs_page.STYLE)


def write(workdir: str, seeds: Sequence[Found]) -> Path:
    """Writes the page into the folder; returns where it is.

    Raises:
      UserError: as `build`, or it cannot be written.
    """
    target = Path(storage.path(workdir)).absolute() / NAME
    text = build(workdir, seeds)
    try:
        storage.write_text(target, text)
    except OSError as error:
        raise UserError(f"--workdir: {target} cannot be written, {error}") from error
    return target


def _made_of(run: Found) -> bool:
    return bool(run.results and (run.results.ensemble_of or run.results.soup_of))


def _results(
    seeds: Sequence[Found],
    config: Mapping[str, Any],
    measured: Sequence[Table],
    left_out: Sequence[str],
) -> str:
    network = results_report.network_name(config["model"])
    states = [run.state for run in seeds]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    about = f"{network} on {config['data']['name']}, {len(seeds)} seeds: {counts}."
    parts = [html_page.paragraph(about)]
    for table in measured:
        parts += [_shown(table), html_page.caption(tables.MEANS)]
    if not measured:
        parts.append(html_page.paragraph("Means over seeds are made of those that are done."))
    return "\n".join([*parts, html_page.bullets(left_out)])


def _background(sides: Sequence[Side]) -> list[Table]:
    """What was measured of the side, if there is one, and what it cost."""
    if not sides:
        return []
    return tables.background(report.among(sides, baseline=None, margins=read_margins(())))


def _shown(table: Table) -> str:
    shown = html_page.table(table.header, table.rows, align=table.align)
    return f"{shown}\n{html_page.bullets(table.notes)}"


def _table_of(seeds: Sequence[Found]) -> str:
    rows = [
        (
            str(run.fields.get("seed", "-")),
            runs_page.linked(run),
            runs_page.state(run),
            *runs_page.figures(run),
            runs_page.curve(run),
        )
        for run in seeds
    ]
    header = ("seed", "report", "state", *runs_page.FIGURES, "training")
    table = html_page.table(header, rows, align="rllrrr")
    return f"{table}\n{html_page.caption(runs_page.NOTE)}"


def _curves(seeds: Sequence[Found], config: Mapping[str, Any]) -> str:
    marks = curves.marks(config)
    begun = [run.records for run in seeds if run.records]
    is_text = registry.data(config["data"]["name"]).is_text

    def drawn() -> Iterator[str]:
        alt = "Training loss of every seed and their mean, over epochs"
        yield html_page.figure(lambda: seed_curves.losses(begun, marks), alt)
        evaluated = [records for records in begun if any(r.get("evaluation") for r in records)]
        for view in ("collapsed", "ensemble") if evaluated else ():
            what = "bits per character" if is_text else "accuracy"
            draw = functools.partial(
                seed_curves.tested, evaluated, marks, view=view, is_text=is_text
            )
            yield html_page.figure(draw, f"Test {what} of every seed, {view}, over epochs")

    return f"{html_page.figures(drawn())}\n{html_page.caption(_CURVES)}"


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted fields as sections."""
    nested: dict[str, Any] = {}
    for name, value in fields.items():
        *sections, field = name.split(".")
        inside = nested
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[field] = value
    return nested
