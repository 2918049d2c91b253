"""Whether a device trains as the CPU does: the same few steps on both, their changes compared."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment
from lpw_jax.benchmark.programs import Cycle
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import first_line

CYCLES = 3
# How far a leaf's change may be from the CPU's, as a part of its largest change. Of a WRN-10-1 on
# one CPU, two ways to compute it differ by 1e-4 (float32) and 1e-12 (float64), and by 5e-2 if one
# rounds the factors of its convolutions to TF32.
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}


def agreement(config: ConfigDict, *, num_classes: int) -> dict[str, dict[str, Any]]:
    """Trains K members for some cycles, merged on the first device, and one after the other on the
    CPU (with the convolutions for CPUs, if there is nothing else), from the same start.

    Returns:
      by type: the largest `difference` of all weights, statistics and optimisers' sums, `where` it
      is, the `tolerance`, and whether it `agrees`; or why it was `not_run`.
    """
    try:
        on_cpu = jax.devices("cpu")[0]
    except RuntimeError as error:
        return {dtype: {"not_run": first_line(error)} for dtype in TOLERANCES}
    found = {}
    for dtype, tolerance in TOLERANCES.items():
        flags = [f"--config.train.compute_dtype={dtype}", "--config.train.matmul_precision=highest"]
        typed = config_lib.override(config, flags)
        try:
            with experiment.pinned(typed):
                start, theirs = _trained(typed, num_classes, on_cpu, "unroll")
                _, ours = _trained(typed, num_classes, jax.devices()[0], "vmap", start)
        except (jax.errors.JaxRuntimeError, NotImplementedError) as error:  # it has no such type
            found[dtype] = {"not_run": first_line(error)}
            continue
        difference, where = largest_difference(_change(start, ours), _change(start, theirs))
        agrees = bool(difference <= tolerance)  # not if it is not a number
        is_number = np.isfinite(difference)
        facts = {"difference": difference if is_number else None, "where": where}
        facts["tolerance"] = tolerance
        found[dtype] = facts | {"agrees": agrees}
    return found


def _trained(
    config: ConfigDict, num_classes: int, device: jax.Device, mode: str, start: Any = None
) -> tuple[Any, Any]:
    """The states before (`start`, or a fresh one) and after training, on the host."""
    model = experiment.build_model(config, num_classes, member_mode=mode)
    num_members = config.late_phase.num_members
    with jax.default_device(device):
        cycle = Cycle(
            config, Devices.over([device]), model, num_members=num_members, member_mode=mode
        )
        call = cycle.bind(cycle.lower().compile())
        carry, rest = cycle.arguments(start)
        start = jax.tree.map(np.array, carry)  # a copy: the carry is donated
        for _ in range(CYCLES):
            carry = call(carry, *rest)
        return start, jax.device_get(carry)


def _change(start: Any, end: Any) -> Any:
    return jax.tree.map(lambda a, b: np.subtract(b, a, dtype=float), start, end)


def largest_difference(ours: Any, theirs: Any) -> tuple[float, str]:
    """Of two trees of arrays, as a part of the largest value of the leaf of `theirs`, and where.

    A leaf that is 0 in `theirs` must be so in `ours`: the difference is infinite otherwise.
    """
    paths: Sequence[Any] = jax.tree_util.tree_flatten_with_path(theirs)[0]
    worst = (0.0, "")
    for (path, reference), leaf in zip(paths, jax.tree.leaves(ours), strict=True):
        scale = float(np.max(np.abs(reference), initial=0.0))
        apart = float(np.max(np.abs(leaf - reference), initial=0.0))
        part = apart / scale if scale else (np.inf if apart else 0.0)
        if not part <= worst[0]:
            worst = (float(part), jax.tree_util.keystr(path))
            if np.isnan(part):
                break
    return worst
