"""How a trained run fares on corrupted test images: CIFAR-10-C and CIFAR-100-C."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lpw_jax import experiment, networks
from lpw_jax.data.corruptions import SEVERITIES, Corrupted
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures.views import VIEWS

RESULTS = "corruptions.json"


def evaluate(
    evaluator: Evaluator,
    weights: dict[str, Any],
    corrupted: Corrupted,
    folder: Workdir,
    preemption: Preemption,
) -> dict[str, Any]:
    """Measures every corruption, writes corruptions.json, shows a table and returns the results.

    Returns:
      `data`, `folder`, `images_per_severity`, `labels_match_test_set`, `images_match_test_set`
      (by content, of a sample), and in `views` by name what `summarize` says.

    Raises:
      UserError: the weights do not fit the network, or labels or images are not those of the
        official test set.
      Preempted: between two batches; nothing is written.
    """
    config, dataset = evaluator.config, evaluator.dataset
    where = str(folder.path / "weights")
    state = networks.from_weights(config, weights, dataset.num_classes, where)
    matches = corrupted.matches(dataset)
    if not matches:
        console.warn(
            f"{corrupted.folder}: {len(corrupted.labels):,} images a severity whose labels are not "
            f"those of the {len(dataset.test_labels):,} test images; results carry this note"
        )
    in_order = corrupted.check_order(dataset)
    if not in_order:
        console.warn(
            f"{corrupted.folder}: images that do not look like these test images; whether they are "
            "in the order of their labels cannot be told, and results carry this note"
        )
    placed = evaluator.place(state)

    def score(images):
        source = experiment.image_source(config, dataset, images, corrupted.labels)
        return evaluator.measure(placed, source, on_batch=preemption.check)

    measured = {}
    for name, severities in corrupted.images.items():
        console.say(f"evaluating {name}, {SEVERITIES} x {len(corrupted.labels):,} images")
        measured[name] = [score(images) for images in severities]
    results = {
        "data": corrupted.name,
        "folder": corrupted.folder,
        "images_per_severity": len(corrupted.labels),
        "labels_match_test_set": matches,
        "images_match_test_set": in_order,
        "views": {view: summarize(measured, view) for view in VIEWS},
    }
    folder.write_json(RESULTS, results)
    console.say(table(results))
    console.say(f"results: {folder.path / RESULTS}")
    return results


def summarize(
    measured: Mapping[str, Sequence[Mapping[str, Any]]], view: str
) -> dict[str, dict | list]:
    """A view's part of corruptions.json.

    Args:
      measured: by corruption, and then by severity, metrics of the views.
      view: its name.

    Returns:
      corruptions: by name, for severities 1 to 5, `accuracy` (a fraction), `nll` and `ece`.
      by_severity: for severities 1 to 5 the means of `error` (1 - accuracy), `nll` and `ece` over
        the corruptions.
      mean: their means over corruptions and severities; no corruption is weighted by how another
        network fares.
    """
    corruptions = {
        name: [{key: found[view][key] for key in ("accuracy", "nll", "ece")} for found in column]
        for name, column in measured.items()
    }
    by_severity = [_means(row) for row in zip(*corruptions.values(), strict=True)]
    everything = [found for column in corruptions.values() for found in column]
    return {"corruptions": corruptions, "by_severity": by_severity, "mean": _means(everything)}


def table(results: Mapping[str, Any]) -> Table:
    """Mean errors of each severity and overall, in percent, with the overall NLL and ECE."""
    found = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        caption=Text(
            f"Mean error in % over {len(results['views']['collapsed']['corruptions'])} corruptions "
            f"of {results['data']}, {results['images_per_severity']:,} images each"
        ),
        caption_justify="left",
    )
    found.add_column("view", no_wrap=True)
    severities = [f"severity {s}" if s == 1 else str(s) for s in range(1, SEVERITIES + 1)]
    for header in (*severities, "mean", "NLL", "ECE"):
        found.add_column(header, justify="right", no_wrap=True, min_width=7)
    for name, view in results["views"].items():
        errors = [means["error"] for means in (*view["by_severity"], view["mean"])]
        calibration = [f"{view['mean'][key]:.4f}" for key in ("nll", "ece")]
        found.add_row(name, *(f"{100 * error:.2f}" for error in errors), *calibration)
    return found


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    def mean(key):
        return math.fsum(metrics[key] for metrics in found) / len(found)

    return {"error": 1 - mean("accuracy"), "nll": mean("nll"), "ece": mean("ece")}
