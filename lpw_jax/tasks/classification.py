"""Classification: one label for every example."""

from typing import Any

import jax
import optax


def loss(logits: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean cross-entropy of logits [B, classes] with `label` [B], and their `accuracy`."""
    label = batch["label"]
    value = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    correct = logits.argmax(-1).astype(label.dtype) == label
    return value, {"accuracy": correct.astype(value.dtype).mean()}
