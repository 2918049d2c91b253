"""Predictions of a trained network on whole data sets: every example exactly once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from lpw_jax import late_phase as lp
from lpw_jax import metrics
from lpw_jax import step as steps
from lpw_jax.data import augment
from lpw_jax.parallel import AXIS, Devices


class Predictor:
    """Collapsed, ensemble and member predictions of one set of weights.

    Args:
      devices: where to run.
      model: the network.
      weights: `shared`, `late_phase` and `batch_stats` as trained.
      mean, std: of the training data, per channel, on the 0..1 scale.
      member_mode: as in `step.over_members`.
      batch_size: examples at a time, over all devices; rounded up to fill them.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        model: nn.Module,
        weights: dict[str, Any],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        member_mode: str,
        batch_size: int,
    ):
        self._devices = devices
        self._per_device = -(-batch_size // devices.count)
        collapsed = lp.collapse(**weights)
        self._weights = devices.replicate((collapsed, weights))
        step = steps.make_eval_step(model=model, member_mode=member_mode)

        def eval_batch(weights, image):
            collapsed, members = weights
            image = augment.normalize(image, mean=mean, std=std, dtype=model.dtype)
            logits = step(
                collapsed, members["shared"], members["late_phase"], members["batch_stats"], image
            )
            # Every host gets all of them: [D, ...].
            return jax.lax.all_gather(logits, AXIS)

        self._eval_batch = devices.lift(eval_batch, in_axes=(None, 0), out_axes=None)

    def __call__(
        self, images: np.ndarray, on_batch: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        """Predictions for uint8 `images` [N, H, W, C], in their order; `on_batch` may end them.

        Returns:
          `collapsed` logits [N, classes], `members` logits [K, N, classes] and `ensemble`, the log
          of the members' mean probabilities [N, classes].
        """
        size = self._devices.count * self._per_device
        collapsed, members = [], []

        def fetch(logits, number):
            logits = jax.device_get(logits)
            collapsed.append(np.concatenate(logits["collapsed"])[:number])
            members.append(np.concatenate(logits["members"], axis=1)[:, :number])
            on_batch()

        dispatched = None
        for start in range(0, len(images), size):
            part = images[start : start + size]
            padded = np.zeros((size, *images.shape[1:]), images.dtype)
            padded[: len(part)] = part
            shape = (self._devices.count, self._per_device, *images.shape[1:])
            logits = self._eval_batch(self._weights, self._devices.shard(padded.reshape(shape)))
            if dispatched:  # fetched while the devices compute the next
                fetch(*dispatched)
            dispatched = logits, len(part)
        if dispatched:
            fetch(*dispatched)
        collapsed, members = np.concatenate(collapsed), np.concatenate(members, axis=1)
        return {
            "collapsed": collapsed,
            "ensemble": metrics.ensemble_log_probs(members).astype(collapsed.dtype),
            "members": members,
        }
