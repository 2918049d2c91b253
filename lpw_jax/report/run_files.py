"""What the files of a run, finished or not, hold for its report."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from numpy.typing import NDArray

from lpw_jax.errors import UserError
from lpw_jax.files import predictions, storage
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import agreement, metrics, views
from lpw_jax.measures.views import VIEWS

_ROWS = 8192  # are scored at once: ImageNet's probabilities in float64 need not fit in memory

Scores = Mapping[str, Mapping[str, NDArray]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as its files tell of it.

    Attributes:
      name: of its folder, with the folder's folder.
      config: config.json.
      environment: environment.json; None in runs that have none.
      records: the lines of metrics.jsonl, an epoch each.
      results: results.json; None before the training's end.
      test: for each view `confidence`, `correct` and `entropy` of the test images, all [N]; None
        without predictions.
      outside: likewise `entropy` [M] of each out-of-distribution set that there is.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any] | None
    records: list[dict[str, Any]]
    results: dict[str, Any] | None
    test: Scores | None
    outside: dict[str, Scores]

    @property
    def views(self) -> dict[str, Any] | None:
        """The `views` of results.json; None before the evaluation's end."""
        return self.results and self.results.get("views")


def read(folder: Workdir) -> Run:
    """Reads the files that are there; a folder with the JSON files alone is enough.

    Raises:
      UserError: there is no config.json, or a file is not as a run writes it.
    """
    config = folder.read_json("config.json")
    if config is None:
        raise UserError(
            f"--workdir = {str(folder.path)!r}: must be the folder of a run, but holds no "
            "config.json; see lpw_jax.main"
        )
    results = folder.read_results()
    predicted = folder.path / "predictions"
    test, outside = None, {}
    # Before the evaluation's end they may be those of an earlier one.
    if results and results["status"] == "complete" and (predicted / "test.npz").exists():
        test = _scores(predicted / "test.npz", results)
        outside = {
            name: _scores(file)
            for name in results["views"]["collapsed"].get("ood", {})
            if (file := predicted / f"ood_{name}.npz").exists()
        }
    return Run(
        name="/".join(folder.path.absolute().parts[-2:]),
        config=config,
        environment=folder.read_json("environment.json"),
        records=_records(folder.path / "metrics.jsonl"),
        results=results,
        test=test,
        outside=outside,
    )


def _records(file: epath.Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    with storage.reading(file, "remove it: the run writes it anew when it goes on"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        if not all(isinstance(record, dict) and "epoch" in record for record in records):
            raise ValueError("every line must be a JSON object with an epoch")
    return records


def _scores(file: epath.Path, results: Mapping[str, Any] | None = None) -> Scores:
    """What figures need of predictions, for each view; those of the test set must be `results`'."""
    remedy = "python -m lpw_jax.evaluate writes it again"
    found = {}
    for view in VIEWS:  # one at a time in memory
        arrays = predictions.load(file, (view, "label"), remedy=remedy)
        if results:
            agreement.check_results(file, arrays, results)
        found[view] = _view_scores(view, arrays[view], arrays["label"])
    return found


def _view_scores(view: str, predicted: NDArray, label: NDArray) -> dict[str, NDArray]:
    parts = []
    for start in range(0, len(label), _ROWS):
        rows, labels = predicted[start : start + _ROWS], label[start : start + _ROWS]
        log_probs = views.log_probs({view: rows}, view)
        found = {"entropy": metrics.predictive_entropy(log_probs)}
        if labels.min() >= 0:
            scored = metrics.example_scores(log_probs, labels)
            found |= {name: scored[name] for name in ("confidence", "correct")}
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
