"""Predictions of a trained network on whole data sets: every example exactly once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lpw_jax.data.source import Source
from lpw_jax.devices import compiling
from lpw_jax.devices.compilation import Program
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.method.members import map_members
from lpw_jax.method.state import State


class Predictor:
    """What the collapsed network and every member predict, by one compiled program.

    Args:
      devices: where to run.
      forward: (params, model_state, inputs) -> outputs, of one network.
      collapse: makes one network, (params, model_state), of a state.
      batch: `Source.batch` of the examples to be predicted.
      predicted: as in `Task`, what is kept of the outputs.
      member_mode: as in `cycle.over_members`.
      batch_size: examples at a time, over all devices; rounded up to fill them.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        forward: Callable,
        collapse: Callable[[State], tuple[Any, Any]],
        batch: Callable,
        predicted: Callable,
        member_mode: str,
        batch_size: int,
    ):
        self._devices, self._collapse = devices, Program(collapse)
        self._per_device = -(-batch_size // devices.count)

        def eval_batch(weights, feed):
            compiling.tracing("evaluation")
            collapsed, state = weights
            examples = batch((), feed, 0)
            inputs = examples.pop("image")
            outputs = {
                "collapsed": forward(*collapsed, inputs),
                "members": map_members(forward, state, inputs, member_mode=member_mode),
            }
            # Every host gets all of them: [D, ...].
            valid = examples["valid"]
            return jax.lax.all_gather({**predicted(outputs, examples), "valid": valid}, AXIS)

        self._eval_batch = Program(devices.lift(eval_batch, in_axes=(None, 0), out_axes=None))

    def begin(self, like: State, source: Source) -> None:
        """Begins to compile what predictions need of states like `like`; reads the first batch."""
        self._collapse.begin(like)
        whole = self._devices.replicate(np.zeros(())).sharding
        weights = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
            (self._collapse.shapes(like), like),
        )
        feed = next(iter(source.feeds(self._indices(source)[:1], epoch=0)))
        self._eval_batch.begin(weights, self._devices.send(feed))

    def place(self, state: State) -> Any:
        """Puts a state and the network that it collapses to on devices."""
        return self._devices.replicate((self._collapse(state), state))

    def __call__(self, weights: Any, source: Source) -> Iterator[dict[str, np.ndarray]]:
        """Predicts all examples of `source`, in their order, with placed weights.

        Yields:
          what `predicted` gives of some n examples at a time, arrays [n, ...], but [K, n, ...] of
          `members`; damaged examples, if they are to be skipped, are not among them.

        Raises:
          UserError: an example is damaged.
        """
        dispatched = None
        for feed in source.feeds(self._indices(source), epoch=0):
            result = self._eval_batch(weights, self._devices.send(feed))
            if dispatched is not None:  # fetched while the devices compute the next
                yield _fetched(dispatched)
            dispatched = result
        if dispatched is not None:
            yield _fetched(dispatched)

    def _indices(self, source: Source) -> np.ndarray:
        """Examples [batches, own devices, B], -1 where there are no more."""
        shape = (self._devices.count, self._per_device)
        numbers = np.arange(len(source))
        num_batches = -(-len(source) // np.prod(shape))
        numbers = np.pad(
            numbers, (0, num_batches * np.prod(shape) - len(source)), constant_values=-1
        )
        return numbers.reshape(num_batches, *shape)[:, self._devices.own]


def _fetched(result: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    result = jax.device_get(result)
    valid = np.concatenate(result.pop("valid"))
    members = np.concatenate(result.pop("members"), axis=1)[:, valid]
    found = {name: np.concatenate(parts)[valid] for name, parts in result.items()}
    return found | {"members": members}
