"""Memory that XLA plans for a cycle, with batch norm stored or computed anew; nothing is run."""

from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from lpw_jax import experiment
from lpw_jax.benchmark.programs import Cycle
from lpw_jax.benchmark.timing import planned_bytes
from lpw_jax.devices.parallel import Devices
from lpw_jax.display import console
from lpw_jax.errors import first_line


def measure(
    config: ConfigDict, devices: Devices, *, num_classes: int, member_modes: Sequence[str]
) -> list[dict[str, Any]]:
    """Bytes on a device by member mode and `train.remat`, or why a program is not there."""
    results = []
    for mode in member_modes:
        for remat in ("none", "batch_norm"):
            config = config.copy_and_resolve_references()
            with config.unlocked():
                config.train.remat = remat
            program = Cycle(
                config,
                devices,
                experiment.build_model(config, num_classes, member_mode=mode),
                num_members=config.late_phase.num_members,
                member_mode=mode,
            )
            found = {"member_mode": mode, "remat": remat}
            try:
                found["bytes"] = planned_bytes(program.lower().compile())
            except jax.errors.JaxRuntimeError as error:
                found["not_run"] = first_line(error)
            console.say(f"  {found}")
            results.append(found)
    return results
