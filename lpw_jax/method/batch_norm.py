"""Members' batch norms as one: the mean of their effective affine maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from lpw_jax.method import trees
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree

SCALES, SHIFTS = ("scale", "weight"), ("bias", "offset")


class BatchNorm(NamedTuple):
    """Paths of one batch norm's parameters and running statistics, and of its module."""

    module: str
    scale: str | None
    shift: str | None
    mean: str
    var: str


def find(params: Tree, model_state: Tree) -> list[BatchNorm]:
    """Batch norms: modules with a scale or a shift, and a mean and a var in the model state."""
    weights, stats = (
        {path for path, leaf in trees.places(tree) if leaf is not None}
        for tree in (params, model_state)
    )
    modules = {trees.module(path) for path in weights}
    found = []
    for var in sorted(stats):
        place, _, name = var.rpartition("/")
        mean, module = f"{place}/mean".lstrip("/"), trees.owner(var, modules)
        if name != "var" or mean not in stats or module is None:
            continue
        inside = [(module + "/" + name).lstrip("/") for name in (*SCALES, *SHIFTS)]
        scale, shift = (
            next(filter(weights.__contains__, paths), None)
            for paths in (inside[: len(SCALES)], inside[len(SCALES) :])
        )
        if scale or shift:
            found.append(BatchNorm(module, scale, shift, mean, var))
    return found


def fold(
    state: State,
    params: Tree,
    model_state: Tree,
    *,
    epsilon: float | Callable[[str], float] | None,
) -> tuple[Tree, Tree]:
    """The collapsed network with its late-phase batch norms made right.

    A batch norm computes gamma / sqrt(var + eps) * x + beta - mean * gamma / sqrt(var + eps).
    Members' scales and shifts of x are averaged, and written as a batch norm with mean 0, variance
    1 and its scale times sqrt(1 + eps). Without gamma or beta the statistics take their parts.

    Args:
      state: with the members.
      params, model_state: collapsed by means.
      epsilon: as `LatePhase.batch_norm_epsilon`.

    Raises:
      ValueError: there is such a batch norm and no epsilon.
    """
    own = dict(trees.places(state.members)) | dict(trees.places(state.member_model_state))
    weights, stats = dict(trees.places(params)), dict(trees.places(model_state))
    members = {path: leaf for path, leaf in own.items() if leaf is not None}
    for norm in find(params, model_state):
        paths = norm[1:]
        if not any(path in members for path in paths):
            continue
        if epsilon is None:
            raise ValueError(
                f"batch_norm_epsilon: must be given to collapse the batch norm {norm.module!r} "
                "exactly: the number that its layer adds to the variance, often 1e-5"
            )
        eps = epsilon(norm.module) if callable(epsilon) else epsilon
        # What members share has no member axis: [None] lets it meet the others' [K, C].
        standing: list[Any] = [
            members[path] if path in members else {**weights, **stats}[path][None] if path else None
            for path in paths
        ]
        gamma, beta, mean, var = standing
        scale = (1 if gamma is None else gamma) / jnp.sqrt(var + eps)
        shift = (0 if beta is None else beta) - mean * scale
        scale, shift = scale.mean(0), shift.mean(0)
        stats[norm.mean], stats[norm.var] = jnp.zeros_like(mean[0]), jnp.ones_like(var[0])
        if norm.scale:
            weights[norm.scale] = scale * jnp.sqrt(1.0 + eps).astype(scale.dtype)
        else:
            stats[norm.var] = (1 / jnp.square(scale) - eps).astype(var.dtype)
        if norm.shift:
            weights[norm.shift] = shift
        else:
            stats[norm.mean] = jnp.where(scale == 0, 0, -shift / scale).astype(mean.dtype)
    return (
        trees.structure(params).unflatten(weights.values()),
        trees.structure(model_state).unflatten(stats.values()),
    )
