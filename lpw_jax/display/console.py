"""What a run shows on the terminal: its config and parameters, and how any text gets there."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lpw_jax.errors import UserError, first_line
from lpw_jax.plain_text import visible

# What a terminal can have; anything else, such as COLUMNS=0, is a mistake.
_WIDTHS, _HEIGHTS = range(20, 1001), range(4, 1001)


class Terminal(Console):
    """Shows text as it is: brackets are no markup, and controls are escapes."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        width, height = self.size
        if width not in _WIDTHS or height not in _HEIGHTS:
            self.size = (width if width in _WIDTHS else 80, height if height in _HEIGHTS else 25)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's; what is longer as an escape is measured so."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich's."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


terminal = Terminal()
told: set[str] = set()


@contextlib.contextmanager
def optional(failure: str) -> Iterator[None]:
    """For what only shows: a failure inside is one warning, which begins with `failure`.

    A library may be missing or broken, a disk full: no training, saving or result ends by it.
    """
    try:
        yield
    except Exception as error:  # whatever a broken library raises
        if failure not in told:
            told.add(failure)
            warn(f"{failure}: {_reason(error)}")


def _reason(error: Exception) -> str:
    return (
        first_line(error)
        if isinstance(error, UserError)
        else (f"{type(error).__name__}: {first_line(error)}")
    )


def be_quiet() -> None:
    """Silences this process: another one of the same run speaks for all."""
    terminal.quiet = True


def say(what: Any) -> None:
    """Prints a line or a table to stdout."""
    with optional("not all can be shown"):
        terminal.print(what)


def warn(message: str) -> None:
    """Prints a warning to stderr."""
    if not terminal.quiet:
        print(visible(f"warning: {message}"), file=sys.stderr)


def print_config(config: Mapping[str, Any], *, console: Console = terminal) -> None:
    """Prints a nested config, one row a section; fields that are None or empty are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    top_level = {name: value for name, value in config.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in config.items() if isinstance(value, Mapping)}
    for name, section in [("run", top_level), *sections.items()]:
        fields = [
            f"{field}={_field_value(value)}"
            for field, value in section.items()
            if value is not None and value != ""
        ]
        if fields:
            table.add_row(Text(name), Text(visible("  ".join(fields))))
    with optional("not all can be shown"):
        console.print(table)


def parameter_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Table of the numbers from `measures.parameters.counts`."""
    totals = [sum(count[kind] for count in counts.values()) for kind in ("shared", "late_phase")]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    headers = ("shared", "late-phase", "total", "late-phase share")
    table.add_column("weights of one member", footer="total", overflow="fold")
    for header, footer in zip(headers, _parameter_cells(*totals), strict=True):
        table.add_column(header.replace(" ", "\n"), footer=footer, justify="right", no_wrap=True)
    for name, count in counts.items():
        table.add_row(Text(name), *_parameter_cells(count["shared"], count["late_phase"]))
    return table


def accuracies(view: Mapping[str, Any]) -> str:
    """Accuracy of a view of results.json in words, and its top-5 accuracy if it has one.

    Of a text bits per character.
    """
    if view.get("bpc") is not None:
        return f"{view['bpc']:.4f} bpc"
    percent = {
        name: f"{100 * view[name]:.2f} %"
        for name in ("accuracy", "top5_accuracy")
        if view.get(name) is not None
    }
    top5 = f" (top-5 {percent['top5_accuracy']})" if "top5_accuracy" in percent else ""
    return f"{percent.get('accuracy', '-')}{top5}"


def _field_value(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "-"
    return str(value)


def _parameter_cells(shared: int, late: int) -> tuple[str, str, str, str]:
    total = shared + late
    share = f"{100 * late / total:.2f} %" if total else "-"
    return f"{shared:,}", f"{late:,}", f"{total:,}", share
