"""Classification: one label for every example."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from lpw_jax.measures import metrics, uncertainty
from lpw_jax.measures.views import VIEWS, log_probs, temperature_scaled
from lpw_jax.tasks.task import Task

_BETWEEN = ("mutual_information", "disagreement")  # of members: none of a single one


def loss(logits: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean cross-entropy of logits [B, classes] with `label` [B], and their `accuracy`."""
    label = batch["label"]
    value = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    correct = logits.argmax(-1).astype(label.dtype) == label
    return value, {"accuracy": correct.astype(value.dtype).mean()}


def of_members(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`ensemble`, the log of the members' mean probabilities [N, classes], and scores [N].

    The scores are those of `uncertainty.between_members`.
    """
    ensemble = metrics.ensemble_log_probs(found["members"]).astype(found["collapsed"].dtype)
    return {"ensemble": ensemble} | uncertainty.between_members(found["members"])


def scores(found: dict[str, np.ndarray]) -> dict[str, Any]:
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


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `views` of results.json from the `scores` of all batches."""
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    views = {view: metrics.summary(joined[view]) for view in VIEWS}
    between = joined["between"]
    views["ensemble"] |= {
        name: float(between[name].mean()) if between else None for name in _BETWEEN
    }
    return views | {"members": [metrics.summary(member) for member in joined["members"]]}


TASK = Task(
    examples="images",
    loss=loss,
    predicted=lambda outputs, examples: {**outputs, **examples},
    of_members=of_members,
    scores=scores,
    summary=summary,
    temperature=temperature_scaled,
)
