"""The report as one HTML page that needs nothing else: figures and styles are inside."""

import base64
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lpw_jax.comparison import figures, tables
from lpw_jax.comparison.tables import Table
from lpw_jax.comparison.text import TITLE

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 76rem; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { text-align: left; border-bottom: 2px solid #444; } .r { text-align: right; }
ul { color: #444; font-size: .88rem; padding-left: 1.2rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(29rem, 100%), 1fr));
  gap: 1rem 2rem; margin-top: 2rem; align-items: start; } img { width: 100%; height: auto; }
.caption { color: #444; font-size: .88rem; }
.verdict { font-weight: 600; }
.equivalent { color: #006b4f; } .better { color: #00578a; } .worse { color: #a84300; }
@media screen and (max-width: 60rem) {
  thead { display: none; }
  table, tbody, tr, td { display: block; }
  tr { border: 1px solid #bbb; border-radius: 6px; margin: .6rem 0; padding: .2rem .5rem; }
  td, td.r { border: 0; padding: .1rem 0; text-align: right; white-space: normal;
    overflow: hidden; }
  td::before { content: attr(data-label); float: left; color: #555; padding-right: 1rem; }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; } table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; } tr, img { break-inside: avoid; }
  .panels { grid-template-columns: 1fr 1fr; } h2 { break-after: avoid; }
}
"""
_BREAKS = re.compile(r" (?![±\[])")
_DIFFERENCES = (
    "Difference, ours - theirs, with its 95 % confidence interval. Grey band: the margin within "
    "which a difference does not matter. Colour: green equivalent, blue better, orange worse, "
    "black undecided, grey no verdict; circle: collapsed network, square: ensemble; hollow: "
    "marked, not the same experiment."
)
_SEEDS = (
    "Every seed is a dot, mean and standard deviation a bar; grey is what ours, in blue, is "
    "compared with. Of published figures only mean and deviation are known."
)


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    return "".join(_parts(report))


def _parts(report: Mapping[str, Any]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n"
    yield from map(_table, tables.comparisons(report))
    yield from _figures(figures.differences(report), _DIFFERENCES)
    yield from _figures(figures.seeds(report), _SEEDS)
    yield from map(_table, tables.background(report))
    if lines := tables.remaining(report):
        yield f"<h2>Not in the tables</h2>\n{_list(lines)}"
    yield f"<h2>How to read this</h2>\n{_list(tables.how_to_read(report))}</body>\n</html>\n"


def _table(table: Table) -> str:
    classes = ["r" if align == "r" else "l" for align in table.align]
    head = "".join(
        f'<th class="{kind}">{html.escape(name)}</th>'
        for kind, name in zip(classes, table.header, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(map(_cell, row, table.header, classes))}</tr>\n" for row in table.rows
    )
    body = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n"
    return f"<h2>{html.escape(table.title)}</h2>\n{body if rows else ''}{_list(table.notes)}"


def _cell(text: str, name: str, kind: str) -> str:
    if name == "verdict":
        kind += f" verdict {text.split(' (')[0].replace(' ', '-')}"
    if kind == "r":  # a number is broken before its spread or its interval only
        text = _BREAKS.sub("\N{NO-BREAK SPACE}", text)
    return f'<td class="{kind}" data-label="{html.escape(name)}">{html.escape(text)}</td>'


def _list(lines: Any) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>\n" for line in lines)
    return f"<ul>\n{items}</ul>\n" if items else ""


def _figures(found: Any, caption: str) -> Iterator[str]:
    if found:
        yield '<div class="panels">\n'
        for title, figure in found:
            picture = base64.b64encode(figures.svg(figure)).decode()
            yield f'<img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{picture}">\n'
        yield f'</div>\n<p class="caption">{html.escape(caption)}</p>\n'
