"""The page that lists the runs under a folder, as `--serve` shows it."""

import os
import statistics
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lpw_jax.display import html_page, sparkline
from lpw_jax.display.console import accuracies
from lpw_jax.display.html_page import Html
from lpw_jax.plain_text import html as escape
from lpw_jax.report import found_runs
from lpw_jax.report.found_runs import Found

_MOST_COLUMNS = 6  # of fields that differ; more have a table of their own
FIGURES = ("collapsed", "ensemble", "members, mean")
NOTE = (
    "Test set: accuracy, or bits per character (bpc) of texts; with an epoch, it is that of an "
    "evaluation on the way. Training: the loss over all epochs, as far as they are; the dotted "
    "line is the release of members."
)
STYLE = """.sparkline { vertical-align: middle; }
.state { white-space: nowrap; }
.training, .evaluating { font-weight: 600; }
"""


def build(title: str, runs: Sequence[Found], pages: Sequence[str], *, is_whole: bool = True) -> str:
    """The page.

    Args:
      title: what was looked into.
      runs: under it.
      pages: places of other pages, below it.
      is_whole: whether there was no more to look into.
    """
    fields = found_runs.differing(runs)
    has_room = len(fields) <= _MOST_COLUMNS
    sections = [("Runs", _runs(runs, fields if has_room else [], is_whole))]
    if not has_room:
        sections.append(("Settings that differ", _settings(runs, fields)))
    if pages:
        sections.append(("Pages of several runs", _links(pages)))
    return html_page.page(title, sections, style=STYLE)


def link(place: str) -> str:
    """The address of a file below the folder of the page."""
    return urllib.parse.quote(os.fsencode(place))  # names of files may be no text


def _runs(runs: Sequence[Found], fields: Sequence[str], is_whole: bool) -> str:
    parts = [html_page.paragraph(_summary(runs))]
    if not is_whole:
        parts.append(
            html_page.paragraph("There are more folders than are looked into: name one of them.")
        )
    if runs:
        header = ["run", "state", *fields, *FIGURES, "training"]
        align = "l" * (2 + len(fields)) + "rrr"
        parts.append(html_page.table(header, [_row(run, fields) for run in runs], align=align))
        parts.append(html_page.caption(NOTE))
    return "\n".join(parts)


def _summary(runs: Sequence[Found]) -> str:
    if not runs:
        return "There is no run here yet: no folder with a config.json or results.json of a run."
    training = sum(run.is_alive for run in runs)
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    if training:
        return f"{count}, {training} in training. The page looks again by itself."
    return f"{count}, none in training. Reload the page to look again."


def _row(run: Found, fields: Sequence[str]) -> list[str]:
    return [linked(run), state(run), *_values(run, fields), *figures(run), curve(run)]


def linked(run: Found) -> Html:
    """Its place, with a link to its report if it has one."""
    shown = _shown(run.place)
    places = {page: page if run.place == "." else f"{run.place}/{page}" for page in run.pages}
    links = []
    for page, place in places.items():
        text = shown if page == found_runs.PAGES[0] else "comparison"
        links.append(f'<a href="{escape(link(place))}">{escape(text)}</a>')
    if found_runs.PAGES[0] not in places:
        links.insert(0, escape(shown))
    return Html(", ".join(links))


def _shown(place: str) -> str:
    return "this folder" if place == "." else place


def state(run: Found) -> Html:
    """The first words on one line: they are what is looked for."""
    first, comma, rest = run.words.partition(",")
    return Html(f'<span class="state {run.state}">{escape(first)}</span>{comma}{escape(rest)}')


def _values(run: Found, fields: Iterable[str]) -> list[str]:
    return [_value(found_runs.value_of(run, field)) for field in fields]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "  ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)


def figures(run: Found) -> list[str]:
    """Collapsed network, ensemble and members' mean; '-' for what there is not."""
    views, epoch = run.views
    if views is None:
        return ["-"] * 3
    members = views["members"] if len(views["members"]) > 1 else []
    shown = [views["collapsed"], views["ensemble"] if members else None, _mean(members)]
    if views["collapsed"] is None:  # of a deep ensemble
        shown[1] = views["ensemble"]
    at = f" (epoch {epoch})" if epoch else ""
    return [f"{accuracies(view)}{at}" if view else "-" for view in shown]


def _mean(members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = [name for name in ("accuracy", "bpc") if members and members[0].get(name) is not None]
    values = {name: [member.get(name) for member in members] for name in names}
    return {name: statistics.fmean(found) for name, found in values.items() if None not in found}


def curve(run: Found) -> Html:
    """Its training loss over epochs."""
    losses = [record["loss"] for record in run.records]
    if not losses:
        return Html("-")
    release = run.fields["late_phase.release_epoch"]
    mark = release - 0.5 if release > 0 else None
    ends = [f"{losses[i]:.4g}" if losses[i] is not None else "not finite" for i in (0, -1)]
    over = f"over {len(losses)} epochs" if len(losses) > 1 else "in one epoch"
    alt = f"training loss {over}: {' to '.join(ends[: len(losses)])}"
    to_come = [None] * (run.fields["train.epochs"] - len(losses))
    return Html(sparkline.svg([*losses, *to_come], alt, mark=mark) or escape(alt))


def _settings(runs: Sequence[Found], fields: Sequence[str]) -> str:
    rows = [[_shown(run.place), *_values(run, fields)] for run in runs]
    return html_page.table(["run", *fields], rows)


def _links(pages: Iterable[str]) -> str:
    items = "\n".join(
        f'<li><a href="{escape(link(place))}">{escape(place)}</a></li>' for place in pages
    )
    return f"<ul>\n{items}\n</ul>"
