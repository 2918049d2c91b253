"""Eigenvalues and trace of a loss's Hessian, by its products with vectors.

Nothing here loops inside a compiled program: on CPUs a rolled loop makes the gradients of
convolutions many times slower.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from numpy.typing import DTypeLike, NDArray

Product = Callable[[NDArray], NDArray]  # H v of v, [n] both
_RESTARTS = 30


class Eigenvalues(NamedTuple):
    """The largest ones that were found, the largest first.

    Attributes:
      values: [found].
      residuals: norms of H v - value v for unit vectors v, [found]; an eigenvalue of H is no
        farther from each value.
    """

    values: NDArray
    residuals: NDArray


def vector_product(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """(params, vector [n], *args) -> [n], the Hessian of `loss(params, *args)` times the vector.

    Weights are in the order of `jax.flatten_util.ravel_pytree`. It is compiled once; forward over
    reverse, so that it costs a few times what a gradient costs.
    """

    @jax.jit
    def product(params, vector, *args):
        flat, unravel = ravel_pytree(params)
        gradient = jax.grad(lambda flat: loss(unravel(flat), *args))
        return jax.jvp(gradient, (flat,), (vector,))[1]

    return product


def top_eigenvalues(
    product: Product,
    size: int,
    *,
    count: int,
    tolerance: float = 1e-3,
    dtype: DTypeLike = np.float64,
    seed: int = 0,
) -> Eigenvalues:
    """The `count` algebraically largest eigenvalues, by restarted Lanczos (ARPACK).

    ARPACK keeps its vectors, 20 or 2 `count` + 1 of them, orthogonal to working precision.

    Args:
      size: n, the number of weights.
      tolerance: relative, of the values; 0 is working precision.
      dtype: of the vectors, float32 or float64.
      seed: of the random start.

    Returns:
      fewer than `count` if 30 restarts do not suffice, or if n is not above it.
    """
    # A quarter of a second: only where it is used.
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    start = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    operator = LinearOperator((size, size), matvec=product, dtype=start.dtype)
    options = dict(which="LA", v0=start, tol=tolerance, maxiter=_RESTARTS)
    try:
        values, vectors = eigsh(operator, min(count, size - 1), **options)
    except ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order].T
    pairs = zip(values, vectors, strict=True)
    residuals = [np.linalg.norm(product(vector) - value * vector) for value, vector in pairs]
    return Eigenvalues(values, np.array(residuals))


def trace(
    product: Product, size: int, *, probes: int, dtype: DTypeLike = np.float64, seed: int = 0
) -> tuple[float, float]:
    """Hutchinson's estimate by `probes`, 2 or more, vectors of random signs; its standard error."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(probes):
        signs = random.choice(np.array([-1, 1], dtype), size)
        found.append(np.dot(signs.astype(np.float64), product(signs).astype(np.float64)))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(probes))


def num_weights(params: Any) -> int:
    """n."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
