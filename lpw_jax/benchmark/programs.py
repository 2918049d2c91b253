"""The steps that are compared: late-phase cycles, and the plain SGD that a user would write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.method import optimizers, schedules, state
from lpw_jax.method import step as steps
from lpw_jax.method.state import RUNNING_MOMENTUM, TrainState
from lpw_jax.training.runner import MEMBER_FIELDS, make_train_step, state_axes

RATES = schedules.Rates(1e-3, 5e-4, 1e-3, 5e-4, 1.0)


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
      devices: which share each minibatch.
      model: network without a device axis.
      batch_size: images in a minibatch, over all devices.
      image_size: side of an image in pixels.
      momentum, nesterov: of the optimiser.
    """

    def __init__(
        self,
        devices: Devices,
        model: nn.Module,
        *,
        batch_size: int,
        image_size: int,
        momentum: float,
        nesterov: bool,
    ):
        model = model.clone(axis_name=AXIS)
        tx = optax.chain(
            optax.add_decayed_weights(RATES.shared_weight_decay),
            optax.sgd(RATES.shared_learning_rate, momentum, nesterov=nesterov),
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
            running = steps.update_running(running, stats, RUNNING_MOMENTUM)
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


class LatePhase:
    """A cycle of K minibatches by the package's own train step, its batch on the devices.

    Args:
      devices: which share each minibatch ('data') or the members ('members').
      model: network without a device axis.
      layout: as in `runner.Runner`.
      num_members: K; 1 is a step before the release.
      member_mode: as in `step.over_members`.
      batch_size: images in a minibatch, over all devices.
      image_size: side of an image in pixels.
      momentum, nesterov: of the optimiser.
      patterns: as in `late_phase.split`.
      coasting: as in `late_phase.coasting_steps`.
      num_microbatches: as in `step.make_train_step`.
    """

    def __init__(
        self,
        devices: Devices,
        model: nn.Module,
        *,
        layout: str = "data",
        num_members: int,
        member_mode: str,
        batch_size: int,
        image_size: int,
        momentum: float,
        nesterov: bool,
        patterns: tuple[str, ...],
        coasting: str,
        num_microbatches: int = 1,
    ):
        tx, by_member = optimizers.sgd(momentum=momentum, nesterov=nesterov), layout == "members"
        step = make_train_step(
            layout,
            model=model,
            tx=tx,
            coasting=coasting,
            member_mode=member_mode,
            num_microbatches=num_microbatches,
        )

        def init(key):
            tied = state.init(
                key, model, image_shape=(image_size, image_size, 3), patterns=patterns, tx=tx
            )
            return state.release(tied, key, num_members=num_members, sigma=0.0, tx=tx)

        axes = state_axes(TrainState, layout)
        self.init = jax.jit(init)
        self.images_per_call = num_members * batch_size
        per_device = num_members // devices.count if by_member else num_members
        images = batch_size if by_member else batch_size // devices.count
        self._shape, self._by_member = (devices.count, per_device, images), by_member
        self._step = devices.lift(
            step, in_axes=(axes, 0, None), out_axes=(axes, None), donate_argnums=(0,)
        )
        self._model, self._devices, self._image_size = model, devices, image_size

    def lower(self) -> Any:
        """Traces the step for shapes alone."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        if self._by_member:
            divided = {
                name: jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(
                        (*self._shape[:2], *leaf.shape[1:]), leaf.dtype
                    ),
                    getattr(shapes, name),
                )
                for name in MEMBER_FIELDS
            }
            shapes = shapes.replace(**divided)
        batch = batch_shapes(self._shape, self._image_size, self._model.dtype)
        return self._step.lower(shapes, batch, self._devices.replicate(RATES))

    def arguments(self) -> tuple[Any, tuple[Any, ...]]:
        """What a call changes, and what else it needs, on the devices; layout 'data' only."""
        batch = random_batch(
            self._shape,
            size=self._image_size,
            num_classes=self._model.num_classes,
            dtype=self._model.dtype,
        )
        carry = self._devices.replicate(self.init(jax.random.key(0)))
        return carry, (self._devices.shard(batch), self._devices.replicate(RATES))

    def bind(self, compiled: Any) -> Any:
        """`call(carry, *rest) -> carry`."""
        return lambda carry, *rest: compiled(carry, *rest)[0]
