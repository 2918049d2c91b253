"""Predictions of a trained network on whole data sets: every example exactly once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from lpw_jax.data.source import Source
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.method import late_phase as lp
from lpw_jax.method import step as steps


class Predictor:
    """Logits of the collapsed network and of every member, by one compiled program.

    Args:
      devices: where to run.
      model: the network.
      batch: `Source.batch` of the examples to be predicted.
      member_mode: as in `step.over_members`.
      batch_size: examples at a time, over all devices; rounded up to fill them.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        model: nn.Module,
        batch: Callable,
        member_mode: str,
        batch_size: int,
    ):
        self._devices = devices
        self._per_device = -(-batch_size // devices.count)
        step = steps.make_eval_step(model=model, member_mode=member_mode)

        def eval_batch(weights, feed):
            collapsed, members = weights
            examples = batch((), feed, 0)
            logits = step(
                collapsed,
                members["shared"],
                members["late_phase"],
                members["batch_stats"],
                examples.pop("image"),
            )
            # Every host gets all of them: [D, ...].
            return jax.lax.all_gather({**logits, **examples}, AXIS)

        self._eval_batch = devices.lift(eval_batch, in_axes=(None, 0), out_axes=None)

    def place(self, weights: dict[str, Any]) -> Any:
        """Puts `shared`, `late_phase`, `batch_stats` ([K, ...]) and their collapse on devices."""
        return self._devices.replicate((lp.collapse(**weights), weights))

    def __call__(self, weights: Any, source: Source) -> Iterator[dict[str, np.ndarray]]:
        """Predicts all examples of `source`, in their order, with placed weights.

        Yields:
          for some n examples at a time `collapsed` logits [n, classes], `members` logits
          [K, n, classes] and `label` [n]; damaged examples, if they are to be skipped, are not
          among them.

        Raises:
          UserError: an example is damaged.
        """
        shape = (self._devices.count, self._per_device)
        numbers = np.arange(len(source))
        num_batches = -(-len(source) // np.prod(shape))
        numbers = np.pad(
            numbers, (0, num_batches * np.prod(shape) - len(source)), constant_values=-1
        )
        indices = numbers.reshape(num_batches, *shape)[:, self._devices.own]
        dispatched = None
        for feed in source.feeds(indices, epoch=0):
            result = self._eval_batch(weights, self._devices.send(feed))
            if dispatched is not None:  # fetched while the devices compute the next
                yield _fetched(dispatched)
            dispatched = result
        if dispatched is not None:
            yield _fetched(dispatched)


def _fetched(result: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    result = jax.device_get(result)
    valid = np.concatenate(result["valid"])
    return {
        "collapsed": np.concatenate(result["collapsed"])[valid],
        "members": np.concatenate(result["members"], axis=1)[:, valid],
        "label": np.concatenate(result["label"])[valid],
    }
