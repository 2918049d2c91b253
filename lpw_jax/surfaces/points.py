"""Points in weight space: on lines and planes through networks, and random ones near a network.

Networks are pytrees, stacked: arrays [P, ...]. A point is a row of P coefficients with sum 1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Tree = Any


def affine(networks: Tree, coefficients: jax.Array) -> Tree:
    """The sum of `networks` with `coefficients` [P]; a network itself is met exactly.

    Of what is not floating, such as counters, it is the first network's.
    """

    def combine(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf[0]
        factors = coefficients.astype(leaf.dtype).reshape(-1, *[1] * (leaf.ndim - 1))
        return (factors * leaf).sum(0)

    return jax.tree.map(combine, networks)


def line(start: int, end: int, num_networks: int, at: Sequence[float]) -> NDArray:
    """Coefficients [T, P] of points from network `start`, at 0, to network `end`, at 1."""
    start, end = np.eye(num_networks)[[start, end]]
    at = np.asarray(at)[:, None]
    return (1 - at) * start[None] + at * end[None]


class Plane(NamedTuple):
    """The plane through three networks, in lengths of weight space.

    Attributes:
      x, y: coordinates of a grid, [side] each.
      coefficients: of its points, [side (y), side (x), P].
      positions: where the networks are, or are nearest to, [P, 2]; the first of the three is at 0,
        the second one on the x axis.
      distances: of the networks from the plane, [P].
    """

    x: NDArray
    y: NDArray
    coefficients: NDArray
    positions: NDArray
    distances: NDArray


def plane(
    networks: Tree, three: Sequence[int], *, side: int, shown: Sequence[int] = (), margin=0.3
) -> Plane:
    """A grid of `side` x `side` points around three networks and those `shown`.

    It goes beyond them by `margin` of their width and height.

    Raises:
      ValueError: the three lie on a line.
    """
    gram = _gram(networks, origin=three[0])
    second, third = three[1:]
    right = np.sqrt(gram[second, second])
    if right:
        x = gram[:, second] / right
        up = np.sqrt(max(gram[third, third] - x[third] ** 2, 0))
    if not right or up <= 1e-6 * right:
        raise ValueError(f"networks {', '.join(map(str, three))}: must not lie on a line")
    y = (gram[:, third] - x * x[third]) / up
    distances = np.sqrt(np.maximum(np.diag(gram) - x**2 - y**2, 0))
    distances[list(three)] = 0  # what is left is rounding
    grid = []
    for values in (x, y):
        values = values[[*three, *shown]]
        beyond = margin * np.ptp(values)
        grid.append(np.linspace(values.min() - beyond, values.max() + beyond, side))
    to_third = grid[1][:, None] / up
    to_second = (grid[0][None] - to_third * x[third]) / right
    coefficients = np.zeros((side, side, len(x)))
    coefficients[:, :, second], coefficients[:, :, third] = to_second, to_third
    coefficients[:, :, three[0]] = 1 - to_second - to_third
    return Plane(*grid, coefficients, np.stack([x, y], axis=1), distances)


def _gram(networks: Tree, *, origin: int) -> NDArray:
    """Inner products [P, P] of the networks as seen from one of them, in float64 on the host."""
    gram = 0
    for leaf in jax.tree.leaves(networks):
        flat = np.asarray(leaf, np.float64).reshape(len(leaf), -1)
        flat = flat - flat[origin][None]
        gram = gram + flat @ flat.T
    return gram


def perturbed(params: Tree, key: jax.Array, size: jax.Array) -> Tree:
    """`params` with normal noise whose standard deviation is `size` times the rms of each leaf."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def noisy(leaf, key):
        scale = jnp.asarray(size, leaf.dtype) * jnp.sqrt(jnp.square(leaf).mean())
        return leaf + scale * jax.random.normal(key, leaf.shape, leaf.dtype)

    return structure.unflatten([noisy(*each) for each in zip(leaves, keys, strict=True)])
