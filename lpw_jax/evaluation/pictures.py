"""The few images that a report shows: those that the collapsed network is most wrong about."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from lpw_jax.data.source import Source
from lpw_jax.devices import hosts
from lpw_jax.display import console
from lpw_jax.files import pictures
from lpw_jax.measures import metrics, mistakes, views

_MISTAKES, _ENDS = 24, 8


class Pictures:
    """Collects images while sets are predicted, as `files.pictures` describes its arrays.

    Reports show them without the data, which may be elsewhere by then, or large.
    """

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, name: str, source: Source, predictions: Mapping[str, np.ndarray]) -> None:
        """Of the test set the most confident mistakes, of others those least and most certain.

        On the primary process alone, and none where another process left images out.
        """
        if not hosts.is_primary():
            return
        with console.optional("the report will lack images"):
            numbers = np.delete(np.arange(len(source)), sorted(source.corrupt))
            log_probs, labels = views.log_probs(predictions, "collapsed"), predictions["label"]
            if len(numbers) != len(labels):
                return
            if name == "test":
                rows = mistakes.most_confident(log_probs, labels, _MISTAKES)
            else:
                rows = mistakes.ends(metrics.predictive_entropy(log_probs), _ENDS)
            if len(rows):
                (feed,) = source.feeds(numbers[rows][None], epoch=0)
                self.arrays[name] = np.stack([_shrunk(image) for image in feed["image"]])
                self.arrays[f"{name}{pictures.ROWS}"] = rows.astype(np.int32)


def _shrunk(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] of which no side is longer than a report shows it."""
    if max(image.shape[:2]) <= pictures.SIDE:
        return image
    small = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small.thumbnail((pictures.SIDE, pictures.SIDE))
    return np.asarray(small).reshape(small.height, small.width, image.shape[-1])
