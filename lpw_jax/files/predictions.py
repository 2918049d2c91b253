"""The files predictions/*.npz of a run, as `Workdir.save_predictions` writes them."""

from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from numpy.typing import NDArray

from lpw_jax import registry
from lpw_jax.files import limits, storage
from lpw_jax.files.results import Data
from lpw_jax.measures import text

_MAX_BYTES = 1 << 40  # 50 members' logits of ImageNet take 10 GB


def load(
    file: epath.Path, arrays: Sequence[str], *, name: str, data: Data, remedy: str = ""
) -> dict[str, NDArray]:
    """Some arrays of a file, and `label`; what is read is checked by the file's own checksums.

    Args:
      file: predictions/NAME.npz, which may be remote.
      arrays: their names, as `measures.views` and, of texts, `measures.text` describe them.
      name: of the set: 'test', 'validation', or 'ood_' and that of one out of distribution.
      data: of the results that were made of it.
      remedy: what the user can do about a bad file, the end of the error's message.

    Raises:
      UserError: the file is missing or damaged, lacks an array, or is not of these data.
    """
    with storage.reading(file, remedy):
        with file.open("rb") as opened:
            limits.check_zip(opened, most=_MAX_BYTES)
            with np.load(opened) as stored:
                arrays = (*arrays, "label")
                if lacking := [array for array in arrays if array not in stored]:
                    raise ValueError(f"predictions must have {', '.join(lacking)}")
                found = {array: stored[array] for array in arrays}
        _check_label(found["label"], name, data)
        _check_shapes(found, len(found["label"]), data)
        return found


def _check_label(label: NDArray, name: str, data: Data) -> None:
    if label.ndim != 1 or not label.size or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"label: must be whole numbers [N], found {label.dtype} {label.shape}")
    least, largest = (-1, -1) if name.startswith("ood_") else (0, data.num_classes - 1)
    if registry.data(data.name).is_text:  # how many bytes there are
        least, largest = 1, (data.image_shape or (largest,))[0]
    if label.min() < least or label.max() > largest:
        raise ValueError(
            f"label: must lie in {least}..{largest}, found {label.min()}..{label.max()}"
        )
    there = {"test": data.num_test, "validation": data.num_validation}.get(name)
    rows = there and there - (data.skipped or {}).get(name, 0)
    if rows and rows != len(label):
        raise ValueError(
            f"label: must be of {rows:,} images, as in results.json, found {len(label):,}"
        )


def _check_shapes(found: Mapping[str, NDArray], rows: int, data: Data) -> None:
    width, what = data.num_classes, "classes"
    if registry.data(data.name).is_text:
        width, what = len(text.SUMS), "sums"
    for array, values in found.items():
        shape = values.shape
        fits = shape[-2:] == (rows, width) if values.ndim > 1 else shape == (rows,)
        if not fits:
            raise ValueError(
                f"{array}: must be of {rows:,} images, {width} {what}, found shape {shape}"
            )
