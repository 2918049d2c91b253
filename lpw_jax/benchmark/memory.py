"""Batch norm stored or computed anew: memory that XLA plans for a cycle, and the time it takes."""

import operator
import statistics
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from lpw_jax import experiment
from lpw_jax.benchmark.programs import Cycle
from lpw_jax.benchmark.timing import Contender, planned_bytes
from lpw_jax.devices.parallel import Devices
from lpw_jax.display import console
from lpw_jax.errors import first_line

_VALUES = ("none", "batch_norm")


def measure(
    config: ConfigDict, devices: Devices, *, num_classes: int, member_modes: Sequence[str]
) -> list[dict[str, Any]]:
    """Bytes on a device by member mode and `train.remat`, or why a program is not there.

    Nothing is run.
    """
    results = []
    for mode in member_modes:
        for remat in _VALUES:
            found = {"member_mode": mode, "remat": remat}
            try:
                program = _cycle(config, devices, num_classes, mode, remat)
                found["bytes"] = planned_bytes(program.lower().compile())
            except jax.errors.JaxRuntimeError as error:
                found["not_run"] = first_line(error)
            console.say(f"  {found}")
            results.append(found)
    return results


def times(
    config: ConfigDict, devices: Devices, *, num_classes: int, repeats: int
) -> dict[str, Any]:
    """Seconds of a cycle by `train.remat`, rounds in turn, and the median of the rounds' ratios.

    `late_phase.member_mode = auto` means 'scan', for two cycles are in memory at once.

    Raises:
      jax.errors.JaxRuntimeError: they do not fit.
    """
    mode = experiment.member_mode(config, fits=lambda: False)
    contenders = {
        remat: Contender(_cycle(config, devices, num_classes, mode, remat)) for remat in _VALUES
    }
    for _ in range(repeats):
        for contender in contenders.values():
            contender.round()
    stored, anew = (contenders[remat].rounds for remat in _VALUES)
    found = {remat: contender.facts() for remat, contender in contenders.items()}
    return {
        "member_mode": mode,
        "ratio": statistics.median(map(operator.truediv, anew, stored)),
        "contenders": found,
    }


def _cycle(
    config: ConfigDict, devices: Devices, num_classes: int, member_mode: str, remat: str
) -> Cycle:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.remat = remat
    return Cycle(
        config,
        devices,
        experiment.build_model(config, num_classes, member_mode=member_mode),
        num_members=config.late_phase.num_members,
        member_mode=member_mode,
    )
