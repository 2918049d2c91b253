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
      examples: what it is trained on, for lines that are shown: 'images' or 'sequences'.
      loss: (outputs of the network, batch) -> (scalar, metrics by name), in training.
      predicted: what devices give of some N examples: (outputs, `collapsed` [N, ...] and `members`
        [K, N, ...], and the examples without what networks see) -> arrays by name, among them
        these and `label` [N].
      of_members: what the host adds to what `predicted` gave: at least the `ensemble` [N, ...],
        if it is not there; by name, with axis N.
      scores: what `summary` needs of the examples, from what both gave.
      summary: the `views` of results.json from the scores of all batches.
      temperature: (validation, test, view) -> what is measured of a view's test predictions at the
        temperature that fits those of validation, None if there is none; None if nothing is scaled.
    """

    examples: str
    loss: Callable[[Any, dict[str, Any]], tuple[jax.Array, dict[str, jax.Array]]]
    predicted: Callable[[Any, Any], Any]
    of_members: Callable[[Arrays], Arrays]
    scores: Callable[[Arrays], dict[str, Any]]
    summary: Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
    temperature: Callable[[Arrays, Arrays, str], dict[str, float] | None] | None
