"""Batches cut out of a data set that lives on the device, augmented inside the compiled step."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lpw_jax import schedules
from lpw_jax.data import augment


def split_order(
    order: np.ndarray, *, num_members: int, batch_size: int, num_devices: int, layout: str
) -> np.ndarray:
    """The epoch's whole cycles, divided over D devices; the remainder is dropped.

    Minibatch m of the epoch, order[m B : (m + 1) B], is member m % K's in cycle m // K, as in the
    reference's loop. `batch_size` B is that of a whole minibatch.

    Returns:
      int32 [D, cycles, K, B / D] for layout 'data', where devices share each minibatch, and
      [D, cycles, K / D, B] for 'members', where each takes the minibatches of its own members.
    """
    cycles = schedules.cycles_per_epoch(len(order), batch_size=batch_size, num_members=num_members)
    order = order[: cycles * num_members * batch_size].reshape(cycles, num_members, batch_size)
    axis = {"data": 2, "members": 1}[layout]
    return np.stack(np.split(order, num_devices, axis))


def make_batch(
    *,
    key: jax.Array,
    crop_padding: int,
    flip: bool,
    cutout: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: Any,
) -> Callable[[dict[str, jax.Array], jax.Array, jax.Array], dict[str, jax.Array]]:
    """Builds `batch(data, index, step) -> {'image', 'label'}` for one minibatch.

    `data` holds `image` uint8 [N, H, W, C] and `label` int32 [N]; `index` [B] picks examples. The
    augmentation of an example is random by (key, step, its index in the data set), so that nothing
    depends on how a minibatch is divided over devices.
    """

    def batch(data, index, step):
        image = augment.augment(
            augment.example_keys(key, step, index),
            data["image"][index],
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            mean=mean,
            std=std,
            dtype=dtype,
        )
        return {"image": image, "label": data["label"][index]}

    return batch


def make_cycle(batch: Callable) -> Callable:
    """Builds `cycle(data, order, number, first_step, member) -> batch` with leaves [k, ...].

    `order` [cycles, k, B] is this device's part of the epoch, `number` the cycle in it. `member`
    [k] says which of the cycle's minibatches these are: that of member i is augmented as step
    `first_step` + i.
    """

    def cycle(data, order, number, first_step, member):
        return jax.vmap(batch, in_axes=(None, 0, 0))(data, order[number], first_step + member)

    return cycle
