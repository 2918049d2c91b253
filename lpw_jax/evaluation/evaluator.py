"""Predictions and metrics of a network in three views: collapsed, ensemble and each member."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lpw_jax import experiment, networks, recipe
from lpw_jax.data.source import Source
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import SharedError
from lpw_jax.evaluation.predict import Predictor
from lpw_jax.files.nested import to_nested
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.state import State
from lpw_jax.models import functions
from lpw_jax.weights import soundness


class Evaluator:
    """Predictions and metrics of any weights of one network on one data set; compiled once."""

    def __init__(self, config: ConfigDict, dataset: experiment.AnyDataset, devices: Devices):
        self.config, self.dataset, self.task = config, dataset, recipe.task(config)
        self.sources = experiment.evaluation_sources(config, dataset)
        self.model = model = experiment.build_model(config, dataset.num_classes)
        self._predict = Predictor(
            devices=devices,
            forward=functions.forward(model),
            collapse=networks.collapse_of(model, dataset.image_shape),
            batch=self.sources["test"].batch,
            predicted=self.task.predicted,
            # A batch of one member fills a device; merged ones would only need more memory.
            member_mode=experiment.member_mode(config, fits=lambda: False),
            batch_size=config.evaluate.batch_size,
        )

    def begin(self, like: State) -> None:
        """Begins to compile, in threads, what states like `like` need; images are in memory."""
        self._predict.begin(like, self.sources["test"])

    def views(self, state: State, *, on_batch: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Metrics of the three views on the test set; `on_batch` may end it."""
        return self.measure(self.place(state), self.sources["test"], on_batch=on_batch)

    def place(self, state: State) -> Any:
        """As in `Predictor`, of a state on the host.

        Raises:
          NotFinite: it is not that of a trained network.
        """
        soundness.check("weights", to_nested(networks.without_optimisers(state)))
        return self._predict.place(state)

    def measure(
        self, placed: Any, source: Source, *, on_batch: Callable[[], None]
    ) -> dict[str, Any]:
        """Metrics of the three views on a labelled source.

        Predictions are not kept: those of ImageNet would be gigabytes.
        """
        batches = self._batches(placed, source, on_batch)
        return self.task.summary([self.task.scores(found) for found in batches])

    def predict(
        self, placed: Any, source: Source, *, on_batch: Callable[[], None]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
        """Predictions of a whole source, and metrics of the views if it has labels.

        Returns:
          `collapsed` [N, ...], `label` [N], what the task makes of the members and, if configured,
          `members` [K, N, ...]; and the `views` of results.json, None without labels.
        """
        parts, scores = defaultdict(list), []
        for found in self._batches(placed, source, on_batch):
            if found["label"].min() >= 0:
                scores.append(self.task.scores(found))
            if not self.config.evaluate.member_predictions:
                del found["members"]
            for name, part in found.items():
                parts[name].append(part)
        arrays = {
            name: np.concatenate(part, axis=int(name == "members")) for name, part in parts.items()
        }
        return arrays, self.task.summary(scores) if scores else None

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
            yield found | self.task.of_members(found)
        if is_empty:
            raise SharedError(f"{self.dataset.name}: there must be images to evaluate on")


def check_data(folder: Workdir, name: str, there: str | None, here: str) -> None:
    """Refuses data whose digest is `here`, unless that of the run's is the same or not known.

    Raises:
      UserError: naming both.
    """
    if there not in (None, here):
        raise SharedError(
            f"data.dir: {name} is not the one that {str(folder.path)!r} was trained on "
            f"(sha256 {there[:12]}... there, {here[:12]}... here)"
        )
