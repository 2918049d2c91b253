"""How training and evaluation read a text, as `Source`s.

An example is T bytes that are to be predicted, each from those before it.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.data.dataset import epoch_order
from lpw_jax.data.text import BEGIN, Text


class Streams:
    """A `Source` for truncated backpropagation: minibatches that go on where the last one ended.

    Chunk i of an epoch is bytes o + i T to o + (i + 1) T - 1 of the training part, where o, 0 to
    T - 1, is drawn for the epoch. The examples are the chunks; numbers len to 2 len - 1 are the
    same chunks where they begin a stream, so that a network has read nothing before.
    """

    corrupt = frozenset()

    def __init__(self, text: Text, *, seed: int):
        self._length, self._seed = text.sequence_length, seed
        self._count = text.num_train
        self.image_shape = text.image_shape
        self.resident = text.train

    def __len__(self) -> int:
        return self._count

    def order(self, epoch: int, *, batch_size: int, num_members: int) -> np.ndarray:
        """The examples of an epoch: a function of (seed, epoch, number of streams).

        Every place in a member's minibatch has its stream, a run of neighbouring chunks, which its
        minibatches take one after the other. Which place has which stream is drawn.

        Returns:
          int32 [cycles x members x batch size], as `dataset.split_order` divides it.
        """
        streams = batch_size * num_members
        cycles = len(self) // streams
        first = epoch_order(self._seed, epoch, streams) * np.int32(cycles)
        numbers = first[None] + np.arange(cycles, dtype=np.int32)[:, None]
        numbers[:1] += len(self)
        return numbers.reshape(-1)

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """Where the chunks begin in the training part, and which of them begin a stream."""
        draw = np.random.PCG64(np.random.SeedSequence((self._seed, epoch, 1))).random_raw()
        offset = int(draw) % self._length
        for index in indices:
            start = offset + index.astype(np.int64) % len(self) * self._length
            yield {"start": start.astype(np.int32), "begins": index >= len(self)}

    def batch(self, resident: Any, feed: Any, step: jax.Array) -> dict[str, jax.Array]:
        """`image` int32 [B, T], the byte before each, and `label` int32 [B, T], the bytes."""
        places = feed["start"][:, None] + jnp.arange(self._length, dtype=jnp.int32)[None]
        label = resident[places].astype(jnp.int32)
        before = jnp.where(feed["begins"], BEGIN, resident[feed["start"] - 1].astype(jnp.int32))
        image = jnp.concatenate([before[:, None], label[:, :-1]], axis=1)
        valid = jnp.ones(len(label), bool)
        return {"image": image, "label": label, "valid": valid}


class Windows:
    """A `Source` for evaluation: every byte of a part is predicted once.

    Example i is bytes i T to (i + 1) T - 1. A network first reads up to `context` bytes that stand
    before them, so that examples are independent of one another.
    """

    resident, corrupt = (), frozenset()

    def __init__(self, text: Text, split: str):
        self._text, self._count = getattr(text, split), text.num_windows(split)
        self._length, self._context = text.sequence_length, text.context
        self.image_shape = (self._context + self._length,)

    def __len__(self) -> int:
        return self._count

    def feeds(self, indices: np.ndarray, *, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """As in `Source`: `image` int32 [..., context + T] and `label` int32 [..., T].

        Labels are -1 behind the end; of number -1 all are.
        """
        size = len(self._text)
        for index in indices:
            start = index[..., None].astype(np.int64) * self._length
            to_read = start - 1 - self._context + np.arange(self._context + self._length)
            places = start + np.arange(self._length)
            valid = index >= 0
            image = self._at(np.where((to_read >= 0) & (to_read < size), to_read, -1))
            label = self._at(np.where(valid[..., None] & (places < size), places, -1))
            yield {"image": image, "label": label, "valid": valid}

    def batch(self, resident: Any, feed: Any, step: Any) -> dict[str, jax.Array]:
        """The feed: as in `Source`."""
        return dict(feed)

    def _at(self, places: np.ndarray) -> np.ndarray:
        return np.where(places < 0, -1, self._text[places].astype(np.int32))
