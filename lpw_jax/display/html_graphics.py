"""Parts of an HTML page that show numbers and images without a drawing: all of it is escaped."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lpw_jax.plain_text import html as escape

_FEW = 4  # in a cell never have the strongest colour
_SHORT = 3  # letters: longer names of columns stand upright
_SMALL = 64  # pixels: images of fewer are shown enlarged, as squares


def heat_map(corner: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A square table of counts, those off the diagonal the stronger the more; zeros are empty."""
    most = max((n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=0)

    def cell(row: int, column: int, count: int) -> str:
        title = f"{corner} {names[row]}, taken for {names[column]}: {count:,}"
        if row == column:
            how = 'class="right-class"'
        else:
            share = 0.75 * (count / max(most, _FEW)) ** 0.5 if count else 0
            how = f'style="--share: {share:.3f}"'
        return f'<td {how} title="{escape(title)}">{f"{count:,}" if count else ""}</td>'

    head = "".join(f"<th>{escape(name)}</th>" for name in (corner, *names))
    body = "\n".join(
        f"<tr><th>{escape(names[i])}</th>{''.join(cell(i, j, n) for j, n in enumerate(row))}</tr>"
        for i, row in enumerate(counts)
    )
    kind = "heat named" if max(map(len, names)) > _SHORT else "heat"
    table = (
        f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    )
    return f'<div class="table">{table}</div>'


def bars(header: Sequence[str], rows: Iterable[tuple[str, float, str, str]]) -> str:
    """A table of (name, share, share in words, count) with a bar as long as the share, 0 to 1."""
    right = ' class="right"'
    names = "".join(
        f"<th{right if number > 1 else ''}>{escape(name)}</th>"
        for number, name in enumerate(header)
    )
    body = "\n".join(
        f'<tr><th>{escape(name)}</th><td class="bar"><span style="width: {100 * share:.2f}%">'
        f"</span></td><td{right}>{escape(words)}</td><td{right}>{escape(count)}</td>"
        "</tr>"
        for name, share, words, count in rows
    )
    table = f"<table><thead><tr>{names}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="table">{table}</div>'


def pictures(shown: Iterable[tuple[NDArray[np.uint8], Sequence[str]]]) -> str:
    """Images [H, W, C] beside each other, each above its lines, of which the first one is bold."""
    return '<div class="pictures">\n' + "\n".join(_picture(*each) for each in shown) + "\n</div>"


def _picture(image: NDArray[np.uint8], lines: Sequence[str]) -> str:
    is_small = max(image.shape[:2]) <= _SMALL
    written = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        written, **({"format": "PNG"} if is_small else {"format": "JPEG", "quality": 85})
    )
    kind = "png" if is_small else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"
    first, *others = map(escape, lines)
    told = "<br>".join([f"<b>{first}</b>", *others])
    size = ' class="small"' if is_small else ""
    return (
        f'<figure><img{size} src="{source}" alt="{escape(", ".join(lines))}">'
        f"<figcaption>{told}</figcaption></figure>"
    )
