"""One self-contained HTML page: its frame, tables and figures. Everything shown is escaped."""

import importlib.resources
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from lpw_jax.display import svg
from lpw_jax.display.console import optional
from lpw_jax.plain_text import html as escape
from lpw_jax.plain_text import visible

if TYPE_CHECKING:
    import matplotlib.figure

_STYLE = importlib.resources.files("lpw_jax.display") / "html_page.css"
NOT_DRAWN = "figures could not be drawn"
_BREAKS = re.compile(r" (?![±\[])")


class Html(str):
    """A cell that is HTML already, made of escaped parts: it is not escaped again."""


def page(title: str, sections: Iterable[tuple[str, str]], *, style: str = "") -> str:
    """The page with a heading, a list of contents and sections of (heading, HTML).

    `style` is CSS of the page's own, behind that of all pages.
    """
    parts = [(_anchor(heading), escape(heading), body) for heading, body in sections]
    links = "\n".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in parts)
    bodies = "\n".join(
        f'<section id="{anchor}">\n<h2>{heading}</h2>\n{body}\n</section>'
        for anchor, heading, body in parts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}{style}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<nav>
{links}
</nav>
{bodies}
</body>
</html>
"""


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def lead(text: str) -> str:
    """A paragraph of plain text that says what matters most."""
    kept = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<p class="lead">{escape(kept)}</p>'


def folded(summary: str, body: str) -> str:
    """HTML that is shown when a reader asks for it."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


def preformatted(text: str) -> str:
    """Text with its line breaks and spaces."""
    return f"<pre>{escape(text)}</pre>"


def caption(text: str) -> str:
    """A paragraph that tells of what stands above it."""
    return f'<p class="caption">{escape(text)}</p>'


def bullets(lines: Iterable[str]) -> str:
    """A list of plain text; nothing without lines."""
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>\n{items}\n</ul>" if items else ""


def figure(draw: "Callable[[], matplotlib.figure.Figure]", alt: str) -> str:
    """What `draw` draws as SVG inside the page; `alt` says what it shows.

    Where nothing can be drawn, the page says so.
    """
    with optional(NOT_DRAWN):
        return f"<figure>{svg.inline(draw(), visible(alt))}</figure>"
    return not_drawn(alt)


def not_drawn(alt: str) -> str:
    """What stands in place of a figure that could not be drawn."""
    return caption(f"{alt}: {NOT_DRAWN}.")


def figures(blocks: Iterable[str], *, wide: bool = False) -> str:
    """Figures beside each other where the page is wide enough, for two of them if `wide`."""
    kind = "figures wide" if wide else "figures"
    return f'<div class="{kind}">\n' + "\n".join(blocks) + "\n</div>"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    align: str = "",
    footer: Sequence[str] = (),
    notes: str = "",
    cell_class: Callable[[str, str], str] = lambda column, cell: "",
) -> str:
    """A table of plain text or `Html`, which scrolls by itself where it is too wide.

    On a phone, each row of a table with a header is a card that names its cells. Numbers, to the
    right, are broken before their spread or their interval only.

    Args:
      header: a cell a column; empty for a table without a header.
      rows: cells of each row; the first one heads its row.
      align: a letter for each column, 'l' or 'r'; the rest are 'l'.
      footer: a last row, of totals.
      notes: lines shown below.
      cell_class: CSS classes of a cell in the body, of its column's name and its text.
    """

    has_header = any(header)

    def cell(number, text, *, tag="td", of_body=True):
        name = header[number] if has_header else ""
        right = align[number : number + 1] == "r"
        classes = ["right"] if right else []
        label = ""
        if of_body:
            classes += cell_class(name, text).split()
            label = f' data-label="{escape(name)}"' if name else ""
            if right and not isinstance(text, Html):
                text = _BREAKS.sub("\N{NO-BREAK SPACE}", text)
            tag = "th" if number == 0 else tag
        kinds = f' class="{escape(" ".join(classes))}"' if classes else ""
        inside = text if isinstance(text, Html) else escape(text)
        return f"<{tag}{kinds}{label}>{inside}</{tag}>"

    def line(cells, **how):
        return f"<tr>{''.join(cell(*each, **how) for each in enumerate(cells))}</tr>"

    head = f"<thead>{line(header, tag='th', of_body=False)}</thead>" if has_header else ""
    foot = f"<tfoot>{line(footer)}</tfoot>" if any(footer) else ""
    body = "\n".join(map(line, rows))
    below = "".join(f"\n{caption(text)}" for text in notes.splitlines())
    cards = " cards" if has_header else ""
    shown = f"<table>{head}\n<tbody>\n{body}\n</tbody>\n{foot}</table>"
    return f'<div class="table{cards}">{shown}</div>{below}'


def rich_table(shown: Table) -> str:
    """A table of the terminal, as `table` shows it."""
    columns = shown.columns
    return table(
        [_plain(column.header) for column in columns],
        zip(*([_plain(cell) for cell in column.cells] for column in columns), strict=True),
        align="".join("r" if column.justify == "right" else "l" for column in columns),
        footer=[_plain(column.footer) for column in columns] if shown.show_footer else (),
        notes=_text(shown.caption or ""),
    )


def tree(values: Mapping[str, Any]) -> str:
    """A nested mapping as a table of dotted names and values."""
    return f'<div class="tree">{table((), _rows(values))}</div>'


def _rows(values: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{path}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{path}{name}", "  ".join(map(str, value)) or "-"
        else:
            yield f"{path}{name}", "-" if value in (None, "") else str(value)


def _plain(cell: Any) -> str:
    return _text(cell).strip().replace("\n", " ")


def _text(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
