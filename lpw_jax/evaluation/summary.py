"""What results.json says of a run before its evaluation."""

from typing import Any

from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment
from lpw_jax.data import Dataset, overlap
from lpw_jax.files import described
from lpw_jax.files.results import Results
from lpw_jax.measures import parameters


def summarize(
    config: ConfigDict,
    weights: dict[str, Any],
    dataset: experiment.AnyDataset,
    training: dict[str, Any],
) -> Results:
    """results.json before its `views`: what was trained, on what, and what `Training.run` says."""
    counts = parameters.counts(weights["shared"], weights["late_phase"])
    late = sum(count["late_phase"] for count in counts.values())
    shared = sum(count["shared"] for count in counts.values())
    found = {
        "config": config_lib.to_dict(config),
        "seed": config.seed,
        "status": "trained",
        "num_parameters": shared + late,
        "num_late_phase_parameters": late,
        "parameters": counts,
        "coasting": config.late_phase.coasting,
        "data": {
            **dataset.identity(),
            "in_training": overlap.in_training(dataset) if isinstance(dataset, Dataset) else None,
            "note": dataset.note,
            "num_classes": dataset.num_classes,
            "image_shape": dataset.image_shape,
            "mean": dataset.mean,
            "std": dataset.std,
        },
        "views": None,
        **training,
    }
    return described.read(Results, found)
