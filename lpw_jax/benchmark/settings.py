"""From a config to the programs that are compared."""

from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import experiment
from lpw_jax.benchmark.programs import LatePhase, PlainSGD
from lpw_jax.devices.parallel import Devices


def plain_sgd(config: ConfigDict, devices: Devices, model: nn.Module) -> PlainSGD:
    """Plain SGD with the settings of `config`."""
    return PlainSGD(devices, model, **_shared(config))


def late_phase(
    config: ConfigDict,
    devices: Devices,
    model: nn.Module,
    *,
    num_members: int,
    member_mode: str,
    layout: str = "data",
) -> LatePhase:
    """A late-phase cycle with the settings of `config`."""
    return LatePhase(
        devices,
        model,
        layout=layout,
        num_members=num_members,
        member_mode=member_mode,
        patterns=config.late_phase.patterns,
        coasting=config.late_phase.coasting,
        num_microbatches=config.train.num_microbatches,
        **_shared(config),
    )


def _shared(config: ConfigDict) -> dict[str, Any]:
    train = config.train
    return {
        "batch_size": train.batch_size,
        "image_size": experiment.image_shape(config)[0],
        "momentum": train.momentum,
        "nesterov": train.nesterov,
    }
