"""What a side's networks cost: parameters, forward passes, training time and memory."""

import statistics
from typing import Any

from lpw_jax.comparison.settings import releases
from lpw_jax.comparison.sides import Run, Side
from lpw_jax.display.results_report import network_name


def cost(side: Side) -> dict[str, Any]:
    """Costs of a side; what its files do not tell is None.

    Returns:
      network: 'WRN-28-10'.
      num_parameters: of one prediction network, the collapsed one or a member. In a deep ensemble
        the mean over its runs, each of which has all copies of its late-phase weights if it takes
        part as an ensemble.
      forward_passes: for one prediction, by view: 1 collapsed, K of an ensemble of K members, and
        in a deep ensemble these times its networks; None if its runs differ in that.
      images_per_second: in training, mean over runs.
      device_hours: to train one run, or all networks of a deep ensemble, hours times devices;
        mean over runs.
      device_kind: of the training.
      peak_memory_bytes: of one device, the largest of the runs.
    """
    if side.kind != "runs":
        return dict.fromkeys(
            ("network", "num_parameters", "forward_passes", "images_per_second", "device_hours",
             "device_kind", "peak_memory_bytes")
        )  # fmt: skip
    train = [run.results.train for run in side.runs]
    first = side.runs[0].results
    hours = [
        part.seconds * devices / 3600
        if part.seconds and (devices := part.num_devices or _devices_at_its_start(run))
        else None
        for run, part in zip(side.runs, train, strict=True)
    ]
    memory = [part.peak_memory_bytes for part in train]
    kinds = dict.fromkeys(part.device_kind for part in train if part.device_kind)
    networks = side.fields["networks"]
    passes = {"collapsed": 1, "ensemble": len(first.views.members)}
    if networks > 1:
        as_ensembles = side.fields["ensemble_of.view"] == "ensemble"
        released = as_ensembles and releases(side.fields)
        members = side.fields["late_phase.num_members"] if released else 1
        unlike = as_ensembles and "late_phase." in side.fields["ensemble_of.different"]
        passes = {"ensemble": None if unlike else networks * members}
    return {
        "network": network_name(first.config["model"]),
        "num_parameters": first.num_parameters // networks,
        "forward_passes": passes,
        "images_per_second": _mean([part.images_per_second for part in train]),
        "device_hours": _mean(hours),
        "device_kind": ", ".join(kinds) or None,
        "peak_memory_bytes": max(filter(None, memory), default=None),
    }


def _devices_at_its_start(run: Run) -> int | None:
    """What a run's environment.json tells where its results.json is older than the field."""
    environment = run.files.read_environment()
    return environment and environment.num_devices


def _mean(values: list[float | None]) -> float | None:
    """Of all, or None: a mean over some runs would hide the others."""
    return statistics.mean(values) if values and None not in values else None
