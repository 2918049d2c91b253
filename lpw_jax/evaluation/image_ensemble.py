"""What a deep ensemble predicts of images, of what its runs have in `predictions/`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lpw_jax.data import ood
from lpw_jax.display import console
from lpw_jax.errors import UserError
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import agreement, metrics, uncertainty, views

EVALUATE = "python -m lpw_jax.evaluate --workdir"


def predict(
    folders: Sequence[Workdir], runs: Sequence[Results], view: str
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[dict[str, float]]]:
    """The ensemble's predictions of the test set, its metrics, and those of each run.

    Raises:
      UserError: the runs' predictions are not those of their results, or not of the same images.
    """
    predicted = _predicted(folders, runs, "test", view)
    _check_order(folders, runs, predicted, view)
    test, members = _joined(predicted, view)
    found = metrics.classification_metrics(test["ensemble"], test["label"])
    for name in ("mutual_information", "disagreement"):
        found[name] = float(test[name].mean())
    return test, found, members


def outside(
    folders: Sequence[Workdir], runs: Sequence[Results], view: str
) -> dict[str, dict[str, np.ndarray]]:
    """`_joined` predictions of each out-of-distribution set of which all runs have the images."""
    found = {}
    for name in ood.OOD_SETS:
        file = f"ood_{name}"
        has = [folder.has_predictions(file) for folder in folders]
        digests = {(run.data.ood_digests or {}).get(name) for run in runs} - {None}
        if len(digests) > 1:
            console.warn(f"OOD set {name} is not reported: the runs were evaluated on other images")
        elif all(has):
            found[name], _ = _joined(_predicted(folders, runs, file, view), view)
        elif any(has):
            lacking = folders[has.index(False)].path
            console.warn(f"OOD set {name} is not reported: {lacking} has no predictions of it")
    return found


def _predicted(
    folders: Sequence[Workdir], runs: Sequence[Results], name: str, view: str
) -> list[dict[str, np.ndarray]]:
    """Each run's predictions, all of the same images."""
    found = [
        folder.load_predictions(name, (view,), run)
        for folder, run in zip(folders, runs, strict=True)
    ]
    for folder, own in zip(folders, found, strict=True):
        if not np.array_equal(own["label"], found[0]["label"]):
            raise UserError(
                f"--ensemble: predictions/{name}.npz of {folder.path} must be on the images "
                f"of {folders[0].path}, but their labels or number differ; "
                f"'{EVALUATE} {folder.path}' makes them again"
            )
    return found


def _joined(
    found: Sequence[dict[str, np.ndarray]], view: str
) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """Predictions of the ensemble as a run writes them, and each run's metrics if it has labels."""
    labels = found[0]["label"]
    outputs = np.stack([own[view] for own in found])  # log probabilities are logits, too
    ensemble = metrics.ensemble_log_probs(outputs).astype(outputs.dtype)
    between = uncertainty.between_members(outputs)
    if view == "ensemble":
        del between["energy"]  # of logits only
    members = []
    if labels.min() >= 0:
        members = [
            metrics.classification_metrics(metrics.log_softmax(own), labels) for own in outputs
        ]
    return {"ensemble": ensemble, "label": labels, **between}, members


def _check_order(
    folders: Sequence[Workdir],
    runs: Sequence[Results],
    predicted: Sequence[dict[str, np.ndarray]],
    view: str,
) -> None:
    """Refuses predictions that are not those of the runs' results, or not in the first's order."""
    first = None
    for folder, results, test in zip(folders, runs, predicted, strict=True):
        agreement.check_results(folder.path / "predictions" / "test.npz", test, results)
        errors = metrics.example_scores(views.log_probs(test, view), test["label"])["nll"]
        first = errors if first is None else first
        if not agreement.in_one_order(first, errors):
            raise UserError(
                f"--ensemble: predictions/test.npz of {folder.path} must be in the order of "
                f"{folders[0].path}, but what is hard for one is not for the other; "
                f"'{EVALUATE} {folder.path}' makes them again"
            )
