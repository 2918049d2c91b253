"""Predictions and metrics of a network in three views: collapsed, ensemble and each member."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import experiment, networks
from lpw_jax.data.source import Source
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import SharedError
from lpw_jax.evaluation.predict import Predictor
from lpw_jax.measures import metrics, uncertainty
from lpw_jax.measures.views import VIEWS, log_probs
from lpw_jax.method.state import State
from lpw_jax.models import functions

_BETWEEN = ("mutual_information", "disagreement")  # of members: none of a single one


class Evaluator:
    """Predictions and metrics of any weights of one network on one data set; compiled once."""

    def __init__(self, config: ConfigDict, dataset: experiment.AnyDataset, devices: Devices):
        self.config, self.dataset = config, dataset
        self.sources = experiment.evaluation_sources(config, dataset)
        self._predict = Predictor(
            devices=devices,
            forward=functions.forward(experiment.build_model(config, dataset.num_classes)),
            collapse=networks.collapsed,
            batch=self.sources["test"].batch,
            # A batch of one member fills a device; merged ones would only need more memory.
            member_mode=experiment.member_mode(config, fits=lambda: False),
            batch_size=config.evaluate.batch_size,
        )

    def views(self, state: State, *, on_batch: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Metrics of the three views on the test set; `on_batch` may end it."""
        return self.measure(self.place(state), self.sources["test"], on_batch=on_batch)

    def place(self, state: State) -> Any:
        """As in `Predictor`."""
        return self._predict.place(state)

    def measure(
        self, placed: Any, source: Source, *, on_batch: Callable[[], None]
    ) -> dict[str, Any]:
        """Metrics of the three views on a labelled source.

        Predictions are not kept: those of ImageNet would be gigabytes.
        """
        return _summary([_scores(found) for found in self._batches(placed, source, on_batch)])

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
        for found in self._batches(placed, source, on_batch):
            if found["label"].min() >= 0:
                scores.append(_scores(found))
            if not self.config.evaluate.member_predictions:
                del found["members"]
            for name, part in found.items():
                parts[name].append(part)
        arrays = {
            name: np.concatenate(part, axis=int(name == "members")) for name, part in parts.items()
        }
        return arrays, _summary(scores) if scores else None

    def _batches(
        self, placed: Any, source: Source, on_batch: Callable[[], None]
    ) -> Iterator[dict[str, np.ndarray]]:
        """What `predict` returns of some examples at a time, with the members' logits."""
        is_empty = True
        for found in self._predict(placed, source):
            on_batch()
            if not len(found["label"]):
                continue
            is_empty = False
            ensemble = metrics.ensemble_log_probs(found["members"])
            found["ensemble"] = ensemble.astype(found["collapsed"].dtype)
            yield found | uncertainty.between_members(found["members"])
        if is_empty:
            raise SharedError(f"{self.dataset.name}: there must be images to evaluate on")


def _scores(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Every example's scores in the three views, and between the members if there are several."""
    labels = found["label"]
    return {
        **{view: metrics.example_scores(log_probs(found, view), labels) for view in VIEWS},
        "members": [
            metrics.example_scores(metrics.log_softmax(logits), labels)
            for logits in found["members"]
        ],
        "between": {name: found[name] for name in _BETWEEN if name in found},
    }


def _summary(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `views` of results.json from the `_scores` of all batches."""
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *scores)
    views = {view: metrics.summary(joined[view]) for view in VIEWS}
    between = joined["between"]
    views["ensemble"] |= {
        name: float(between[name].mean()) if between else None for name in _BETWEEN
    }
    return views | {"members": [metrics.summary(member) for member in joined["members"]]}
