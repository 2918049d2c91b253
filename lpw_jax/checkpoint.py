"""The one place that knows orbax: weights on disk."""

from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath


def save_weights(path: epath.PathLike, weights: dict[str, Any]) -> None:
    """Writes a tree of arrays as host arrays, so that it can be read on any device.

    `path` must not exist; it appears whole or not at all.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        path = epath.Path(path).absolute()
        checkpointer.save(path, jax.tree.map(np.asarray, jax.device_get(weights)))
        checkpointer.wait_until_finished()


def load_weights(path: epath.PathLike) -> dict[str, Any]:
    """The tree that `save_weights` wrote, as nested dicts of numpy arrays."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(epath.Path(path).absolute())
