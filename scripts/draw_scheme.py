"""Draws the scheme of release, cycle and collapse: docs/figures/scheme-light.svg and -dark.svg.

python scripts/draw_scheme.py
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
THEMES = {
    "light": {"text": "#1f2328", "quiet": "#59636e", "shared": "#0969da", "fill": "#ddf4ff"},
    "dark": {"text": "#e6edf3", "quiet": "#9198a1", "shared": "#58a6ff", "fill": "#12304f"},
}
MEMBERS = {"light": ("#bc4c00", "#8250df", "#1a7f37"), "dark": ("#f0883e", "#bc8cff", "#56d364")}
RELEASE, COLLAPSE, END = 300, 640, 820  # x
MIDDLE, APART, BAND = 92, 40, 176  # y


def text(x: int, y: int, words: str, colour: str, *, size: int = 14, anchor: str = "middle") -> str:
    """One line of text."""
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">'
        f"{words}</text>"
    )


def path(shape: str, colour: str, *, width: int = 3, dashes: str = "") -> str:
    """A line without filling."""
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{shape}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'


def scheme(theme: str) -> str:
    """The SVG for a light or a dark page."""
    colours = THEMES[theme]
    ink, quiet, shared, fill = (colours[name] for name in ("text", "quiet", "shared", "fill"))
    parts = [
        f'<rect x="40" y="{BAND}" width="{END - 40}" height="34" rx="6" fill="{fill}"/>',
        text(430, BAND + 22, "shared weights θ: one copy, all the time", shared),
        path(f"M40 {MIDDLE} H{RELEASE}", shared, width=4),
        text(170, MIDDLE - 14, "late-phase weights φ, tied", ink),
        path(f"M{COLLAPSE} {MIDDLE} H{END}", shared, width=4),
        text(730, MIDDLE - 14, "mean of all φ", ink),
        text(730, MIDDLE + 26, "one network", quiet),
    ]
    for k, colour in enumerate(MEMBERS[theme]):
        y = MIDDLE + (k - 1) * APART
        bends = f"M{RELEASE} {MIDDLE} C350 {MIDDLE} 340 {y} 390 {y} H550"
        parts.append(path(f"{bends} C600 {y} 590 {MIDDLE} {COLLAPSE} {MIDDLE}", colour))
        parts.append(path(f"M{430 + 40 * k} {y} V{BAND}", colour, width=2, dashes="3 4"))
        parts.append(
            text(
                400,
                y - 8,
                f'φ<tspan font-size="10" dy="4">{"12K"[k]}</tspan>',
                colour,
                anchor="start",
            )
        )
    for x, word, what in (
        (RELEASE, "release", "copy K times"),
        (COLLAPSE, "collapse", "average"),
    ):
        parts.append(path(f"M{x} 30 V{BAND}", quiet, width=1, dashes="5 5"))
        parts.append(text(x, 22, f"{word}: {what}", ink))
    parts += [
        text(470, 22, "late phase", quiet),
        text(150, 238, "ordinary training", quiet, size=13),
        text(
            *(
                490,
                238,
                "cycle: each member takes a minibatch; their gradients of θ are added",
                quiet,
            ),
            size=13,
        ),
        path("M40 256 H820", quiet, width=1),
        path("M812 251 L820 256 L812 261", quiet, width=1),
        text(780, 274, "training time", quiet, size=12),
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 284" '
        'font-family="system-ui, sans-serif" role="img">\n'
        "<title>Release, cycle and collapse of late-phase weights</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    for theme in THEMES:
        (FOLDER / f"scheme-{theme}.svg").write_text(scheme(theme))
