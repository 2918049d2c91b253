"""Whether predictions are those that results tell of, and two networks' of images in one order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpw_jax import registry
from lpw_jax.errors import UserError
from lpw_jax.measures import metrics, text
from lpw_jax.measures.views import VIEWS, Predictions, log_probs

_ROUNDED = 1e-3  # predictions are kept in float32
_ENOUGH, _UNLIKE = 1000, 0.05


def check_results(where: object, test: Predictions, results: Any) -> None:
    """Refuses predictions of the test images that have other figures than results.json tells.

    So they do where their order is not that of the labels, or another network made them. Not asked
    where results.json tells of another number of images, or of none.

    Args:
      where: their file, for messages.
      test: `label` [N] and any of the views.
      results: `files.results.Results` of the same run.

    Raises:
      UserError: naming the file, the figure and both values.
    """
    data = results.data
    skipped = (data.skipped or {}).get("test", 0)
    if (data.num_test or 0) - skipped != len(test["label"]):
        return
    is_text = registry.data(data.name).is_text
    for view in (name for name in VIEWS if name in test and getattr(results.views, name)):
        if is_text:
            found = text.summary(test[view], test["label"])
        else:
            found = metrics.classification_metrics(log_probs(test, view), test["label"])
        for name in ("accuracy", "nll"):
            told = getattr(getattr(results.views, view), name)
            if told is not None and abs(found[name] - told) > _ROUNDED * max(1.0, abs(told)):
                raise UserError(
                    f"{where}: must be the predictions that results.json tells of, with {view} "
                    f"{name} {told:g}, but have {found[name]:g}; are they in another order, or of "
                    "another network?"
                )


def in_one_order(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether what is hard for one network, by its NLL [N], is so for the other.

    Equal labels do not tell images in another order within their classes. True of few images.
    """
    if len(one) < _ENOUGH:
        return True
    from scipy.stats import spearmanr  # half a second: only where it is used

    correlation = spearmanr(one, other).statistic
    return not correlation < _UNLIKE + 3 / len(one) ** 0.5
