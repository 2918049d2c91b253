"""How much memory the devices need for a `train.Training`, known from shapes."""

import math
from typing import Any

import jax

from lpw_jax.devices import hosts, preflight

CYCLES_IN_FLIGHT = 2  # dispatched before the host waits; bounds memory, keeps progress honest


def step_bytes(training: Any, member_mode: str) -> int:
    """Estimate of a device's memory in a training step of the last epoch."""
    state, train = training.initial_state, training.config.train
    timeline, num_devices = training.timeline, training.devices.count
    if timeline.is_released(timeline.epochs):
        state = jax.eval_shape(training.released, state)
    num_members = timeline.members(timeline.epochs)
    # Images whose activations a device holds at once.
    size = train.batch_size // train.num_microbatches
    images = size // num_devices * num_members
    if member_mode != "vmap":
        images = size // (1 if training.layout == "members" else num_devices)
    shape = training.source.image_shape
    data = preflight.tree_bytes(training.source.resident)
    if not data:
        minibatches = (CYCLES_IN_FLIGHT + 1) * num_members
        data = minibatches * train.batch_size // num_devices * math.prod(shape)
    activations = preflight.activation_bytes(
        training.model, (images, *shape), platform=training.devices.all[0].platform
    )
    return preflight.step_bytes(state, activations=activations, data=data)


def fits(training: Any) -> bool:
    """Whether every host's devices have memory for merged members, by far."""
    limits = hosts.exchange(preflight.device_memory(jax.local_devices()[0]))
    return None in limits or preflight.MARGIN * step_bytes(training, "vmap") <= min(limits)
