"""What training and evaluation need of examples, wherever these lie."""

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np


class Source(Protocol):
    """Examples with numbers 0 to len - 1, and how they become a batch inside a compiled step.

    What a compiled step needs of examples comes in two parts: arrays that live on every device
    all along (`resident`), and a *feed*, host arrays that are sent for the examples of one cycle.
    A data set that fits the device is resident, and its feeds are numbers; any other sends images.

    Attributes:
      image_shape: [H, W, C] of what the network sees.
      resident: tree of host arrays that every device is to hold; `()` for none.
      corrupt: numbers of the damaged examples that this process met so far and skipped.
    """

    image_shape: tuple[int, int, int]
    resident: Any
    corrupt: frozenset[int]

    def __len__(self) -> int: ...

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[Any]:
        """Feeds of the examples `indices` [T, ...], one after the other.

        A feed is a tree of host arrays with the leading axes of `indices[t]`. Number -1 stands for
        no example: a black image that `batch` marks as not valid. Random augmentation is a function
        of (seed, `epoch` or step, number).

        Raises:
          UserError: an example is damaged; names it.
        """
        ...

    def batch(self, resident: Any, feed: Any, step: jax.Array) -> dict[str, jax.Array]:
        """One minibatch on a device: `resident` and a feed with leading axis [B], both placed.

        Returns:
          `image` [B, H, W, C], normalised, `label` int32 [B] and `valid` bool [B].
        """
        ...
