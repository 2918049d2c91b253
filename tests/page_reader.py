"""Reads an HTML page as a browser would, strictly."""

import base64
import html
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

_VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """A page's text, tables and images; refuses tags that do not match.

    Attributes:
      sections: text below each heading h2.
      tables: of each table its rows, lists of cells.
      references: what attributes refer to.
      images: SVG elements by their alternative text.
      pictures: decoded files of images by theirs.
      told: of each SVG element, by its alternative text, what it tells of each position.
    """

    def __init__(self, text: str):
        super().__init__()
        self.sections, self.tables, self.references = {}, [], []
        self.pictures = {}
        self.tags, self.title, self._open, self._heading = set(), "", [], None
        figures = re.findall(r'<figure>(<svg [^>]*aria-label="([^"]*)">.*?</svg>)', text, re.DOTALL)
        self.images = {html.unescape(alt): svg for svg, alt in figures}
        self.told = {alt: told_by(svg) for alt, svg in self.images.items()}
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attrs = dict(attrs)
        self.references += [attrs[name] for name in ("src", "href", "srcset") if name in attrs]
        if tag == "img":
            kind, _, data = attrs["src"].partition(",")
            assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
            self.pictures[attrs["alt"]] = base64.b64decode(data, validate=True)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self._heading = ""

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "h2":
            self.sections[self._heading] = ""

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            assert not re.search(r"url\(|@import", data)
        elif inside == "title":
            self.title += "" if "svg" in self._open else data
        elif not {"td", "th"}.isdisjoint(self._open):
            self.tables[-1][-1][-1] += data
        elif inside == "h2":
            self._heading += data
        elif self._heading is not None:
            self.sections[self._heading] += data

    def rows(self):
        """All rows of all tables by their first cell; the last one counts."""
        return {row[0]: row[1:] for table in self.tables for row in table}


def told_by(svg):
    """The lines that a figure tells of each position, in their order."""
    return [
        [text.text for text in group.iter("text")]
        for group in ElementTree.fromstring(svg).iter("g")
        if group.get("class") == "at"
    ]
