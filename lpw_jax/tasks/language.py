"""Language: every byte of a text is predicted from those before it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.measures import text
from lpw_jax.measures.metrics import ECE_BINS
from lpw_jax.tasks.classification import loss
from lpw_jax.tasks.task import Arrays, Task


def predicted(outputs: Arrays, examples: Arrays) -> Arrays:
    """Sums over each example's bytes, as `measures.text` describes them, in the three views.

    Args:
      outputs: logits, `collapsed` [N, T, 256] and `members` [K, N, T, 256].
      examples: `label` [N, T], -1 where there is no byte.

    Returns:
      `collapsed`, `ensemble` [N, S], `members` [K, N, S], and `label` [N], how many bytes.
    """
    label = examples["label"]
    members = jax.nn.log_softmax(outputs["members"])
    mean = jax.nn.logsumexp(members, axis=0) - np.log(len(members)).astype(members.dtype)
    return {
        "collapsed": sums(jax.nn.log_softmax(outputs["collapsed"]), label),
        "ensemble": sums(mean, label),
        "members": jax.vmap(sums, in_axes=(0, None))(members, label),
        "label": (label >= 0).sum(-1, dtype=jnp.int32),
    }


def sums(log_probs: jax.Array, label: jax.Array) -> jax.Array:
    """`measures.text.SUMS` [N, S] of log-probabilities [N, T, C] and labels [N, T], -1 for none."""
    dtype = log_probs.dtype
    true = jnp.take_along_axis(log_probs, jnp.maximum(label, 0)[..., None], axis=-1)[..., 0]
    probs = jnp.exp(log_probs)
    confidence = probs.max(-1)
    correct = (log_probs.argmax(-1).astype(label.dtype) == label).astype(dtype)
    edges = np.linspace(0.0, 1.0, ECE_BINS + 1)[1:-1].astype(dtype)
    bins = jax.nn.one_hot(jnp.searchsorted(edges, confidence), ECE_BINS, dtype=dtype)
    squared = jnp.square(probs).sum(-1) - 2 * jnp.exp(true) + 1
    of_byte = jnp.stack([-true, correct, squared], axis=-1)
    of_byte = jnp.concatenate([of_byte, bins * (correct - confidence)[..., None]], axis=-1)
    return jnp.where((label >= 0)[..., None], of_byte, jnp.zeros((), dtype)).sum(-2)


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `views` of results.json from the sums of all batches."""
    return text.views(
        {
            name: np.concatenate([part[name] for part in found], axis=int(name == "members"))
            for name in ("collapsed", "ensemble", "members", "label")
        }
    )


TASK = Task(
    examples="sequences",
    loss=loss,
    predicted=predicted,
    of_members=lambda found: {},  # the devices made the ensemble
    scores=lambda found: found,
    summary=summary,
    temperature=None,
)
