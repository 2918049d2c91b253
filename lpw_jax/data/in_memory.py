"""Batches cut out of a data set that lives on the device, augmented inside the compiled step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax import schedules
from lpw_jax.data import augment


def split_order(
    order: np.ndarray, *, num_members: int, batch_size: int, num_devices: int
) -> np.ndarray:
    """The epoch's whole cycles, int32 [D, cycles, K, B / D]; the remainder is dropped.

    Minibatch m of the epoch, order[m B : (m + 1) B], is member m % K's in cycle m // K, as in the
    reference's loop. `batch_size` B is that of a whole minibatch.
    """
    cycles = schedules.cycles_per_epoch(len(order), batch_size=batch_size, num_members=num_members)
    order = order[: cycles * num_members * batch_size]
    order = order.reshape(cycles, num_members, num_devices, batch_size // num_devices)
    return np.ascontiguousarray(order.transpose(2, 0, 1, 3))


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
    """Builds `cycle(data, order, first_step, step) -> batch` with leaves [K, B, ...].

    `order` [cycles, K, B] is this device's part of the epoch that began at step `first_step`;
    minibatch k of the cycle is augmented as step `step` + k.
    """

    def cycle(data, order, first_step, step):
        num_members = order.shape[1]
        index = order[(step - first_step) // num_members]
        steps = step + jnp.arange(num_members, dtype=step.dtype)
        return jax.vmap(batch, in_axes=(None, 0, 0))(data, index, steps)

    return cycle
