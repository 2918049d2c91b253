"""Predictions and metrics of a network in three views: collapsed, ensemble and each member."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import experiment
from lpw_jax.data.source import Source
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import SharedError
from lpw_jax.evaluation.predict import Predictor
from lpw_jax.measures import metrics, uncertainty
from lpw_jax.measures.views import VIEWS, log_probs


class Evaluator:
    """Predictions and metrics of any weights of one network on one data set; compiled once."""

    def __init__(self, config: ConfigDict, dataset: experiment.AnyDataset, devices: Devices):
        self.config, self.dataset = config, dataset
        self.sources = experiment.evaluation_sources(config, dataset)
        self._predict = Predictor(
            devices=devices,
            model=experiment.build_model(config, dataset.num_classes),
            batch=self.sources["test"].batch,
            # A batch of one member fills a device; merged ones would only need more memory.
            member_mode=experiment.member_mode(config, fits=lambda: False),
            batch_size=config.evaluate.batch_size,
        )

    def views(
        self, weights: dict[str, Any], *, on_batch: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Metrics of the three views on the test set; `on_batch` may end it."""
        return self.predict(self.place(weights), self.sources["test"], on_batch=on_batch)[1]

    def place(self, weights: dict[str, Any]) -> Any:
        """As in `Predictor`."""
        return self._predict.place(weights)

    def predict(
        self, placed: Any, source: Source, *, on_batch: Callable[[], None]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
        """Predictions of a whole source, and metrics of the views if it has labels.

        Returns:
          `collapsed` logits [N, classes], `ensemble`, the log of the members' mean probabilities
          [N, classes], `label` [N], the scores [N] of `uncertainty.between_members` and, if
          configured, `members` logits [K, N, classes]; and the `views` of results.json, None
          without labels.
        """
        parts, scores = defaultdict(list), []
        for found in self._predict(placed, source):
            on_batch()
            if not len(found["label"]):
                continue
            ensemble = metrics.ensemble_log_probs(found["members"])
            found["ensemble"] = ensemble.astype(found["collapsed"].dtype)
            found |= uncertainty.between_members(found["members"])
            if found["label"].min() >= 0:
                scores.append(_scores(found))
            if not self.config.evaluate.member_predictions:
                del found["members"]
            for name, part in found.items():
                parts[name].append(part)
        if not parts["label"]:
            raise SharedError(f"{self.dataset.name}: there must be images to evaluate on")
        arrays = {
            name: np.concatenate(part, axis=int(name == "members")) for name, part in parts.items()
        }
        if not scores:
            return arrays, None
        joined = jax.tree.map(lambda *found: np.concatenate(found), *scores)
        views = {view: metrics.summary(joined[view]) for view in VIEWS}
        for name in ("mutual_information", "disagreement"):
            views["ensemble"][name] = float(arrays[name].mean()) if name in arrays else None
        return arrays, views | {"members": [metrics.summary(m) for m in joined["members"]]}


def _scores(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Every example's scores in the three views."""
    labels = found["label"]
    return {
        **{view: metrics.example_scores(log_probs(found, view), labels) for view in VIEWS},
        "members": [
            metrics.example_scores(metrics.log_softmax(logits), labels)
            for logits in found["members"]
        ],
    }
