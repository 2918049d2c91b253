"""What figures tell where a reader points at them: lines of text at positions along one axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.etree.ElementTree import Element, SubElement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 250  # positions in one figure; more of them are narrower than a pointer
_SIZE, _LINE, _PAD = 9, 11.5, 5  # of the text, of its lines and around them, in points
_LETTER, _BOLD = 0.57 * _SIZE, 0.66 * _SIZE  # the width of a letter, in the widest of page fonts

Along = Literal["x", "y"]


class Told(NamedTuple):
    """The lines of one pair of axes, by position."""

    along: Along
    lines: dict[float, list[str]]


def tell(
    axes: Axes, at: Iterable[float], lines: Iterable[str], *, along: Along = "x", head: str = ""
) -> None:
    """Adds a line to what is told at each of the positions `at`.

    `head` is what a position's first line says, a format of the position, such as 'epoch {:g}'.
    """
    of_axes = axes.figure.told.setdefault(axes, Told(along, {}))
    for position, line in zip(at, lines, strict=True):
        first = [head.format(position)] if head else []
        of_axes.lines.setdefault(float(position), first).append(line)


def elements(figure: Figure, height: float) -> list[Element]:
    """What the figure tells as elements of its SVG, whose height in points is given.

    Each covers the part of the axes that is nearest to its position, and shows its text while the
    pointer is on it; the page's style does that.
    """
    return [
        _element(box, at, along, lines, width=figure.get_figwidth() * 72)
        for axes, (along, found) in figure.told.items()
        for box, at, lines in _boxes(axes, along, found, height, 72 / figure.dpi)
    ]


def _boxes(axes, along, found, height, scale):
    """(x, y, width, height) that each position has, where it is itself, and its lines."""
    across = axes.get_window_extent()
    low, high = across.intervalx if along == "x" else across.intervaly
    places = sorted(
        (place, lines)
        for at, lines in found.items()
        if low - 1 <= (place := _place(axes, along, at)) <= high + 1
    )
    places = places[:: -(-len(places) // _MOST) or 1]
    inner = [(a + b) / 2 for (a, _), (b, _) in zip(places, places[1:], strict=False)]
    for (place, lines), start, end in zip(places, [low, *inner], [*inner, high], strict=False):
        x, y = across.intervalx, across.intervaly
        x, y = ((start, end), y) if along == "x" else (x, (start, end))
        box = x[0] * scale, height - y[1] * scale, (x[1] - x[0]) * scale, (y[1] - y[0]) * scale
        yield box, place * scale if along == "x" else height - place * scale, lines


def _place(axes, along, at):
    """Where a position is on the figure, in pixels."""
    x, y = axes.get_xlim()[0], axes.get_ylim()[0]  # values that any scale has
    point = axes.transData.transform((at, y) if along == "x" else (x, at))
    return float(point["xy".index(along)])


def _element(box, at, along, lines, *, width):
    x, y, wide, high = box
    group = Element("g", {"class": "at"})
    SubElement(group, "rect", _rect(*box))
    told = SubElement(group, "g", {"class": "told"})
    if along == "x":
        SubElement(told, "path", {"d": f"M{at:.1f} {y:.1f}v{high:.1f}"})
    else:
        SubElement(told, "path", {"d": f"M{x:.1f} {at:.1f}h{wide:.1f}"})
    lines = [_fitting(line, width, bold=not number) for number, line in enumerate(lines)]
    longest = max(len(lines[0]) * _BOLD, _LETTER * max(map(len, lines)))
    needed = longest + 2 * _PAD, _LINE * len(lines) + 2 * _PAD - 2
    if along == "x":  # beside the position, on the side that has more room
        left = at + 6 if at < width / 2 else at - 6 - needed[0]
        top = y + 3
    else:
        left, top = x + wide - needed[0], at + 6
        if top + needed[1] > y + high and at - 6 - needed[1] > 0:
            top = at - 6 - needed[1]
    left = max(1, min(left, width - needed[0] - 1))
    SubElement(told, "rect", _rect(left, top, *needed) | {"rx": "3"})
    for number, line in enumerate(lines):
        place = {"x": f"{left + _PAD:.1f}", "y": f"{top + _PAD + _LINE * number + _SIZE - 1:.1f}"}
        SubElement(told, "text", place).text = line
    return group


def _fitting(line, width, *, bold):
    most = int((width - 2 * _PAD - 2) / (_BOLD if bold else _LETTER))
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _rect(x, y, width, height):
    names = ("x", "y", "width", "height")
    return {n: f"{v:.1f}" for n, v in zip(names, (x, y, width, height), strict=True)}
