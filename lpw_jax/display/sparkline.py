"""A curve as large as a word, drawn without a library."""

import math
from collections.abc import Sequence

from lpw_jax.plain_text import html as escape

_WIDTH, _HEIGHT, _EDGE = 120, 28, 2  # pixels
_POINTS = 120  # a longer curve has the mean of as many parts


def svg(values: Sequence[float | None], alt: str, *, mark: float | None = None) -> str:
    """The curve as SVG for the inside of a page, in the colour of its text.

    Args:
      values: from left to right, over one another's range; None is a gap.
      alt: what it shows, for who points at it or cannot see it.
      mark: where a vertical line stands, in steps of the values from the first one.
    """
    values = [value if value is not None and math.isfinite(value) else None for value in values]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    size = -(-len(values) // _POINTS)
    points = [_mean(values[i : i + size]) for i in range(0, len(values), size)]
    low, span = min(known), max(known) - min(known)
    step = (_WIDTH - 2 * _EDGE) / max(1, len(points) - 1)

    def place(number, value):
        share = (value - low) / span if span else 0.5
        return f"{_EDGE + step * number:.1f},{_EDGE + (1 - share) * (_HEIGHT - 2 * _EDGE):.1f}"

    parts = []
    if mark is not None and 0 <= mark <= len(values) - 1:
        x = f"{_EDGE + step * mark / size:.1f}"
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="0" y2="{_HEIGHT}" stroke="currentColor" '
            'stroke-opacity="0.5" stroke-dasharray="2 2"/>'
        )
    for line in _unbroken(points):
        if len(line) == 1:
            x, _, y = place(*line[0]).partition(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="1.5" fill="currentColor"/>')
        else:
            path = " ".join(place(*point) for point in line)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
            )
    shown = escape(alt)
    return (
        f'<svg class="sparkline" role="img" aria-label="{shown}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"><title>{shown}</title>'
        f"{''.join(parts)}</svg>"
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _unbroken(points: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The curve's parts between gaps, as (number, value)."""
    lines: list[list[tuple[int, float]]] = [[]]
    for number, value in enumerate(points):
        if value is None:
            lines.append([])
        else:
            lines[-1].append((number, value))
    return [line for line in lines if line]
