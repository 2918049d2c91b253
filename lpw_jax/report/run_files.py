"""What the files of a run, finished or not, hold for its report."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpw_jax import registry
from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.files.environment import Environment
from lpw_jax.files.measured import View, Views
from lpw_jax.files.pictures import Shown
from lpw_jax.files.results import Results
from lpw_jax.files.surface import Surface
from lpw_jax.files.workdir import SAMPLE, Workdir
from lpw_jax.measures import agreement, metrics, views
from lpw_jax.measures.views import VIEWS

_ROWS = 8192  # are scored at once: ImageNet's probabilities in float64 need not fit in memory

Scores = Mapping[str, Mapping[str, NDArray]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as its files tell of it.

    Attributes:
      name: of its folder, with the folder's folder.
      config: its sections and fields.
      environment: None in runs that have none.
      records: the lines of metrics.jsonl, an epoch each.
      results: None before the training's end.
      test: for each view `label`, `predicted`, `confidence`, `correct` and `entropy` of the test
        images, all [N]; None without predictions.
      outside: likewise `predicted`, `confidence` and `entropy` [M] of each out-of-distribution set
        that there is.
      pictures: of 'test' and 'ood_SET', the few images that are shown.
      sample: text that the collapsed network wrote; None of networks of images.
      surface: None if it was not computed.
    """

    name: str
    config: dict[str, Any]
    environment: Environment | None
    records: list[dict[str, Any]]
    results: Results | None
    test: Scores | None
    outside: dict[str, Scores]
    pictures: dict[str, Shown] = dataclasses.field(default_factory=dict)
    surface: Surface | None = None
    sample: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the network reads a text, of which no byte's prediction is kept."""
        return registry.data(self.config["data"]["name"]).is_text

    @property
    def views(self) -> Views | None:
        """Of the test set; None before the evaluation's end."""
        is_complete = self.results and self.results.status == "complete"
        return self.results.views if is_complete else None

    @property
    def trained_elsewhere(self) -> str:
        """Says so if it was, else ''."""
        imported = self.results and self.results.imported
        return "It was trained elsewhere." if imported else ""

    @property
    def distinct_views(self) -> dict[str, View]:
        """Of one member, the ensemble is the collapsed network; a deep ensemble has none."""
        views = {name: view for name in VIEWS if (view := getattr(self.views, name))}
        return views if len(self.views.members) > 1 else dict([next(iter(views.items()))])


def read(folder: Workdir) -> Run:
    """Reads the files that are there; a folder with the JSON files alone is enough.

    Raises:
      UserError: there is no config.json, or a file is not as a run writes it.
    """
    config, results = folder.read_config(), folder.read_results()
    if config is None:
        raise UserError(
            f"--workdir = {str(folder.path)!r}: must be the folder of a run, but holds no "
            "config.json; see lpw_jax.main"
        )
    test, outside, pictures = None, {}, {}
    # Before the evaluation's end they may be those of an earlier one.
    is_text = registry.data(config.data.name).is_text
    is_complete = results is not None and results.status == "complete"
    if is_complete and not is_text and folder.has_predictions("test"):
        test = _scores(folder, "test", results)
        outside = {
            name: _scores(folder, f"ood_{name}", results)
            for name, found in results.views.ensemble.ood.items()
            if found and folder.has_predictions(f"ood_{name}")
        }
        pictures = _pictures(folder, {"test": test} | {f"ood_{n}": s for n, s in outside.items()})
    return Run(
        name="/".join(folder.path.absolute().parts[-2:]),
        config=config.to_dict(),
        environment=folder.read_environment(),
        records=folder.read_metrics(),
        results=results,
        test=test,
        outside=outside,
        pictures=pictures,
        sample=_sample(folder) if is_text else None,
        surface=folder.read_surface(),
    )


def _sample(folder: Workdir) -> str | None:
    file = folder.path / SAMPLE
    if not file.exists():
        return None
    with storage.reading(file):
        return file.read_bytes().decode("utf-8", errors="replace")


def _pictures(folder: Workdir, scores: Mapping[str, Scores]) -> dict[str, Shown]:
    """Those of the predictions that are there, whose rows they name."""
    found = {name: shown for name, shown in folder.load_pictures().items() if name in scores}
    with storage.reading(f"{folder.path}/predictions/pictures.npz"):
        for name, shown in found.items():
            there = len(scores[name]["collapsed"]["predicted"])
            if shown.rows.max() >= there:
                raise ValueError(f"{name}_rows: must be less than {there}, as in {name}.npz")
    return found


def _scores(folder: Workdir, name: str, results: Results) -> Scores:
    """What figures need of predictions, for each view; those of the test set must be `results`'."""
    found, place = {}, f"{folder.path}/predictions/{name}.npz"
    for view in VIEWS:  # one at a time in memory
        arrays = folder.load_predictions(name, (view,), results)
        with storage.reading(place):
            if name == "test":
                agreement.check_results(place, arrays, results)
            found[view] = _view_scores(view, arrays[view], arrays["label"])
    return found


def _view_scores(view: str, predicted: NDArray, label: NDArray) -> dict[str, NDArray]:
    parts = []
    for start in range(0, len(label), _ROWS):
        rows, labels = predicted[start : start + _ROWS], label[start : start + _ROWS]
        log_probs = views.log_probs({view: rows}, view)
        found = {
            "label": labels,
            "entropy": metrics.predictive_entropy(log_probs),
            "confidence": np.exp(log_probs.max(axis=-1)),
            "predicted": log_probs.argmax(axis=-1),
        }
        if labels.min() >= 0:
            scored = metrics.example_scores(log_probs, labels)
            found |= {name: scored[name] for name in ("confidence", "correct")}
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
