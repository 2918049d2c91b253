"""What a task has to say for a network to be trained and evaluated for it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task, as functions.

    Attributes:
      loss: (outputs of the network, batch) -> (scalar, metrics by name), in training.
      of_members: what is made of some N examples' outputs, `collapsed` [N, ...] and `members`
        [K, N, ...]: at least those of the `ensemble` [N, ...]; by name, with axis N.
      scores: every example's scores in the three views (`collapsed`, `ensemble`, `members`, a list)
        from `collapsed`, `members`, `label` and what `of_members` gave; a tree of arrays [N].
      summary: the `views` of results.json from the scores of all batches.
    """

    loss: Callable[[Any, dict[str, Any]], tuple[jax.Array, dict[str, jax.Array]]]
    of_members: Callable[[Arrays], Arrays]
    scores: Callable[[Arrays], dict[str, Any]]
    summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
