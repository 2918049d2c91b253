"""The files predictions/*.npz of a run, as `Workdir.save_predictions` writes them."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from numpy.typing import NDArray

from lpw_jax.files import limits, storage

_MAX_BYTES = 1 << 40  # 50 members' logits of ImageNet take 10 GB


def load(file: epath.Path, names: Sequence[str], *, remedy: str = "") -> dict[str, NDArray]:
    """The arrays `names` of a file; only these are read.

    Args:
      file: predictions/NAME.npz, which may be remote.
      names: of arrays, as `measures.views` describes them.
      remedy: what the user can do about a bad file, the end of the error's message.

    Raises:
      UserError: the file is missing or damaged, or lacks an array.
    """
    with storage.reading(file, remedy), file.open("rb") as opened:
        limits.check_zip(opened, most=_MAX_BYTES)
        with np.load(opened) as arrays:
            if lacking := [name for name in names if name not in arrays]:
                raise ValueError(f"predictions must have {', '.join(lacking)}")
            return {name: arrays[name] for name in names}
