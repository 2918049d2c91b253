"""How much memory a device needs for a training, known from shapes."""

import math

from flax import linen as nn

from lpw_jax.data.source import Source
from lpw_jax.devices import preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.method.state import State

CYCLES_IN_FLIGHT = 2  # dispatched before the host waits; bounds memory, keeps progress honest


def step_bytes(
    member_mode: str,
    *,
    model: nn.Module,
    state: State,
    source: Source,
    batch_size: int,
    num_microbatches: int,
    devices: Devices,
) -> int:
    """Estimate of a device's memory in a training step.

    Args:
      model: without a device axis.
      state: its shapes.
      source: of training examples.
      batch_size, num_microbatches: as in `Runner`.
      devices: in the groups of the state.
    """
    num_members = state.num_members
    # Images whose activations a device holds at once.
    size = batch_size // num_microbatches
    images = size // devices.group_size
    if member_mode == "vmap":
        images *= num_members // devices.num_groups
    if hasattr(model, "batch_size"):
        model = model.clone(batch_size=images)
    data = preflight.tree_bytes(source.resident)
    if not data:
        minibatches = (CYCLES_IN_FLIGHT + 1) * num_members
        data = minibatches * batch_size // devices.count * math.prod(source.image_shape)
    activations = preflight.activation_bytes(
        model, (images, *source.image_shape), platform=devices.all[0].platform
    )
    return preflight.step_bytes(state, activations=activations, data=data)
