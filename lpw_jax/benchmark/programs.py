"""The steps that are compared: late-phase cycles, and the plain SGD that a user would write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import experiment, networks, recipe
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.method import model_state as ms
from lpw_jax.models.functions import on_axis
from lpw_jax.training.runner import MEMBER_FIELDS, state_axes
from lpw_jax.training.schedules import Rates

RATES = Rates(1e-3, 5e-4, 1e-3, 5e-4, 1.0)


def random_batch(
    shape: tuple[int, ...], *, size: int, num_classes: int, dtype: Any
) -> dict[str, np.ndarray]:
    """Normally distributed images [*shape, size, size, 3] and labels of `shape`."""
    rng = np.random.default_rng(0)
    return {
        "image": np.asarray(rng.standard_normal((*shape, size, size, 3), np.float32), dtype),
        "label": rng.integers(0, num_classes, shape, np.int32),
    }


def batch_shapes(shape: tuple[int, ...], size: int, dtype: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of `random_batch`."""
    return {
        "image": jax.ShapeDtypeStruct((*shape, size, size, 3), dtype),
        "label": jax.ShapeDtypeStruct(shape, jnp.int32),
    }


class PlainSGD:
    """One network, one minibatch, one update: data-parallel SGD with flax and optax alone.

    Args:
      config: its batch size, image size and momentum are taken.
      devices: which share each minibatch.
      model: network without a device axis.
    """

    def __init__(self, config: ConfigDict, devices: Devices, model: nn.Module):
        model, image_size = on_axis(model, AXIS), experiment.image_shape(config)[0]
        train, batch_size = config.train, config.train.batch_size
        tx = optax.chain(
            optax.add_decayed_weights(RATES.shared_weight_decay),
            optax.sgd(RATES.shared_learning_rate, train.momentum, nesterov=train.nesterov),
        )

        def init(key):
            images = jnp.zeros((1, image_size, image_size, 3), model.dtype)
            variables = model.init(key, images)
            params = variables["params"]
            return params, variables["batch_stats"], tx.init(params)

        def loss(params, batch):
            logits, updated = model.apply(
                {"params": params}, batch["image"], train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return loss.mean(), updated["batch_stats"]

        def step(carry, batch):
            params, running, opt_state = carry
            grads, stats = jax.grad(loss, has_aux=True)(params, batch)
            grads = jax.lax.pmean(grads, AXIS)
            updates, opt_state = tx.update(grads, opt_state, params)
            running = ms.follow(running, stats)
            return optax.apply_updates(params, updates), running, opt_state

        self.init = jax.jit(init)
        self.images_per_call = batch_size
        self._shape = (devices.count, batch_size // devices.count)
        self._step = devices.lift(step, in_axes=(None, 0), out_axes=None, donate_argnums=(0,))
        self._model, self._devices, self._image_size = model, devices, image_size

    def lower(self) -> Any:
        """Traces the step for shapes alone."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return self._step.lower(
            shapes, batch_shapes(self._shape, self._image_size, self._model.dtype)
        )

    def arguments(self) -> tuple[Any, tuple[Any, ...]]:
        """What a call changes, and what else it needs, on the devices."""
        batch = random_batch(
            self._shape,
            size=self._image_size,
            num_classes=self._model.num_classes,
            dtype=self._model.dtype,
        )
        carry = self.init(jax.random.key(0))
        return self._devices.replicate(carry), (self._devices.shard(batch),)

    def bind(self, compiled: Any) -> Any:
        """`call(carry, *rest) -> carry`."""
        return compiled


class Cycle:
    """A cycle of K minibatches by the package's own train step, its batch on the devices.

    Args:
      config: what it trains.
      devices: which share the members by group, and each minibatch in it.
      model: network without a device axis.
      num_members: K; 1 is a step before the release.
      member_mode: as in `cycle.over_members`.
    """

    def __init__(
        self,
        config: ConfigDict,
        devices: Devices,
        model: nn.Module,
        *,
        num_members: int,
        member_mode: str,
    ):
        image_shape, batch_size = experiment.image_shape(config), config.train.batch_size
        method = recipe.method(config, model, member_mode=member_mode, **devices.axes)

        def init(key):
            tied = networks.random_state(config, model, image_shape, key)
            return tied if num_members == 1 else method.release(tied, num_members=num_members)

        def step(state, batch, rates):
            return method.step(state, batch, **recipe.rate_arguments(rates))

        axes = state_axes(devices)
        self.init = jax.jit(init)
        self.images_per_call = num_members * batch_size
        own, images = num_members // devices.num_groups, batch_size // devices.group_size
        self._shape = devices.count, own, images
        self._step = devices.lift(
            step, in_axes=(axes, 0, None), out_axes=(axes, None), donate_argnums=(0,)
        )
        self._model, self._devices, self._image_size = model, devices, image_shape[0]

    def lower(self) -> Any:
        """Traces the step for shapes alone."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        if (num_groups := self._devices.num_groups) > 1:
            divided = {
                name: jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(
                        (num_groups, self._shape[1], *leaf.shape[1:]), leaf.dtype
                    ),
                    getattr(shapes, name),
                )
                for name in MEMBER_FIELDS
            }
            shapes = shapes.replace(**divided)
        batch = batch_shapes(self._shape, self._image_size, self._model.dtype)
        return self._step.lower(shapes, batch, self._devices.replicate(RATES))

    def arguments(self, state: Any = None) -> tuple[Any, tuple[Any, ...]]:
        """What a call changes (`state`, or a fresh one), and what else it needs, on the devices.

        Of one group only.
        """
        state = self.init(jax.random.key(0)) if state is None else state
        batch = random_batch(
            self._shape,
            size=self._image_size,
            num_classes=self._model.num_classes,
            dtype=self._model.dtype,
        )
        carry = self._devices.replicate(state)
        return carry, (self._devices.shard(batch), self._devices.replicate(RATES))

    def bind(self, compiled: Any) -> Any:
        """`call(carry, *rest) -> carry`."""
        return lambda carry, *rest: compiled(carry, *rest)[0]
