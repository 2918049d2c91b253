"""The report on the terminal and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from lpw_jax import plain_text
from lpw_jax.comparison import tables
from lpw_jax.comparison.tables import Table
from lpw_jax.display.whole_words import WholeWords
from lpw_jax.plain_text import visible

TITLE = "Comparison of runs"
_STYLES = {"equivalent": "cyan", "better": "green", "worse": "red", "undecided": "yellow"}


def terminal(report: Mapping[str, Any]) -> RenderableType:
    """Tables for rich."""
    parts: list[RenderableType] = []
    for table in (*tables.comparisons(report), *tables.background(report)):
        parts += [Text(visible(table.title), style="bold"), WholeWords(_rich(table))]
        parts += [_note(note) for note in table.notes]
        parts.append(Text())
    parts += [_note(line) for line in tables.how_to_read(report)]
    return Group(*parts)


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report as a Markdown page."""
    return "\n".join([f"# {TITLE}", "", *_markdown_parts(report)]) + "\n"


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    groups = table.stacked or [(column,) for column in range(len(table.header))]
    for group in groups:
        header = "\n".join(table.header[column] for column in group)
        left = table.align[group[-1]] == "l"
        shown.add_column(header, justify="left" if left else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(_cell([row[column] for column in group]) for group in groups))
        if table.stacked:
            shown.add_section()
    return shown


def _cell(parts: Sequence[str]) -> Text:
    """The parts over one another, an interval under its difference."""
    styled = [Text(visible(part), style=_STYLES.get(part.split(" (")[0], "")) for part in parts]
    return Text("\n").join(styled)


def _note(text: str) -> Padding:
    return Padding(Text(visible(text), style="dim"), (0, 0, 0, 2))


def _markdown_parts(report: Mapping[str, Any]) -> Iterator[str]:
    for table in (*tables.comparisons(report), *tables.background(report)):
        yield from (f"## {plain_text.markdown(table.title)}", "")
        if table.rows:
            yield _line(table.header)
            yield _line("---:" if align == "r" else "---" for align in table.align)
            yield from map(_line, table.rows)
            yield ""
        yield from (f"- {plain_text.markdown_line(note)}" for note in table.notes)
        yield ""
    if lines := tables.remaining(report):
        yield from (
            "## Not in the tables",
            "",
            *(f"- {plain_text.markdown_line(line)}" for line in lines),
            "",
        )
    yield from ("## How to read this", "", *(f"- {line}" for line in tables.how_to_read(report)))


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(plain_text.markdown, cells))} |"
