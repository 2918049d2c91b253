"""predictions/pictures.npz of a run: the few images that its report shows.

For each set, by its name as in predictions/: `NAME`, uint8 [n, H, W, C], and `NAME_rows`, int [n],
the rows of predictions/NAME.npz that are of these images.
"""

from typing import NamedTuple

import numpy as np
from etils import epath
from numpy.typing import NDArray

from lpw_jax.files import limits, storage

NAME, ROWS = "pictures", "_rows"
SIDE = 128  # pixels that images have at most
_MOST, _MAX_BYTES = 100, 64 << 20


class Shown(NamedTuple):
    """Images uint8 [n, H, W, C] and the rows [n] of their predictions."""

    rows: NDArray[np.integer]
    images: NDArray[np.uint8]


def load(file: epath.Path, remedy: str) -> dict[str, Shown]:
    """What the file holds, by set.

    Raises:
      UserError: it cannot be read, or is not of this form.
    """
    with storage.reading(file, remedy), file.open("rb") as opened:
        limits.check_zip(opened, most=_MAX_BYTES)
        with np.load(opened) as stored:
            arrays = {name: stored[name] for name in stored}
        names = [name for name in arrays if not name.endswith(ROWS)]
        found = {name: Shown(arrays[f"{name}{ROWS}"], arrays[name]) for name in names}
        for name, shown in found.items():
            _check(name, shown)
        return found


def _check(name: str, shown: Shown) -> None:
    rows, images = shown
    count, *sides, channels = images.shape if images.ndim == 4 else (0, 0)
    is_fit = images.dtype == np.uint8 and channels in (1, 3) and 0 < count <= _MOST
    if not is_fit or not all(0 < side <= SIDE for side in sides):
        raise ValueError(
            f"{name}: must be at most {_MOST} images uint8 [n, H, W, C] with C = 1 or 3 and sides "
            f"up to {SIDE}, found {images.dtype} {list(images.shape)}"
        )
    if rows.shape != (count,) or not np.issubdtype(rows.dtype, np.integer) or rows.min() < 0:
        raise ValueError(f"{name}{ROWS}: must be {count} whole numbers from 0")
