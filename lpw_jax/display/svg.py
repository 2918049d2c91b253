"""Figures as SVG that stands in a page: in its font and colours, which may be light or dark."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lpw_jax.display import drawing, hover

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fixed names inside, so that the same figure is the same text; text in the page's own font.
_OPTIONS = {"svg.hashsalt": "lpw_jax", "svg.fonttype": "none"}
_COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
_FONT = re.compile(r"font: (?:(\d+) )?([\d.]+px)[^;]*|font-family: [^;]*;?")
_LEFT_OUT = ("metadata", "style")


def inline(figure: Figure, alt: str) -> str:
    """The figure as an <svg> element; `alt` says what it shows."""
    written = io.BytesIO()
    with drawing.library().rc_context(_OPTIONS):
        figure.savefig(written, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    prefix = hashlib.sha256(alt.encode() + written.getvalue()).hexdigest()[:6]
    names = set(re.findall(r'(?:url\(|href=")#([^)"]+)', written.getvalue().decode()))
    _clean(root, {name: f"{prefix}-{name}" for name in names})
    height = float(root.attrib["viewBox"].split()[3])
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    root.extend(hover.elements(figure, height))
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, names: dict[str, str]) -> None:
    """Leaves out what a page does not need, and makes names its figure's own."""
    element.tag = _local(element.tag)
    attributes = {_local(name): value for name, value in element.attrib.items()}
    own = names.get(attributes.pop("id", ""))
    if drawn := [f"{p}: {attributes.pop(p)}" for p in ("fill", "stroke") if p in attributes]:
        attributes["style"] = "; ".join([*drawn, attributes.get("style", "")])
    element.attrib = {name: _attribute(name, v, names) for name, v in attributes.items()}
    element.attrib |= {"id": own} if own else {}
    if not (element.text or "").strip():
        element.text = None
    element.tail = "\n" if element.tag == "g" else None
    for child in [*element]:
        if _local(child.tag) in _LEFT_OUT or _local(child.tag) == "defs" and not _kept(child):
            element.remove(child)
        else:
            _clean(child, names)


def _kept(defs: ElementTree.Element) -> bool:
    return any(_local(child.tag) not in _LEFT_OUT for child in defs)


def _attribute(name: str, value: str, names: dict[str, str]) -> str:
    if name == "style":
        value = _FONT.sub(_page_font, value)
        value = _COLOR.sub(_page_color, value)
    return re.sub(r"#([\w-]+)", lambda found: f"#{names.get(found[1], found[1])}", value)


def _page_font(found: re.Match) -> str:
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}" if found[2] else ""


def _page_color(found: re.Match) -> str:
    """A colour of the palette as the page's variable of its name."""
    color = found[0].lower()
    name = drawing.NAMES.get(color)
    return f"var(--{name}, {color})" if name else color


def _local(name: str) -> str:
    return name.rpartition("}")[2]
