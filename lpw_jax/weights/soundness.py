"""Whether arrays can be those of a trained network.

To be asked where arrays come in or go out: predictions do not tell. A compiled maximum, as in relu,
may make zeros of what is not a number, and the rest looks like any result.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lpw_jax.errors import NotFinite

_LARGEST = math.sqrt(np.finfo(np.float32).max)
# Of our trees and of state dicts of PyTorch.
_VARIANCE = re.compile(r"(.*/)?(batch_stats|\w*model_state)/(.*/)?var|(.*\.)?running_var")
_RULES = {
    "finite floating-point numbers": lambda name, array: np.isfinite(array).all(),
    f"numbers whose squares float32 can hold, below {_LARGEST:.2g}": (
        lambda name, array: _largest(array) < _LARGEST
    ),
    "variances >= 0": lambda name, array: not _VARIANCE.fullmatch(name) or (array >= 0).all(),
}


def check(where: object, arrays: Mapping[str, Any]) -> None:
    """Refuses arrays that no training ends with; those of integers and the like are not looked at.

    Args:
      where: what messages begin with.
      arrays: nested dicts of host arrays, or arrays by name.

    Raises:
      NotFinite: naming what is not finite, too large, or a variance below 0.
    """
    if fault := found(arrays):
        raise NotFinite(f"{where}: {fault}")


def found(arrays: Mapping[str, Any]) -> str:
    """The first rule of `check` that is broken, and by which arrays; '' if none is."""
    suspects = {  # one pass over all others; what is not a number is below nothing
        name: array
        for name, array in _floats(arrays)
        if _VARIANCE.fullmatch(name) or not _largest(array) < _LARGEST
    }
    for rule, holds in _RULES.items():
        if broken := [name for name, array in suspects.items() if not holds(name, array)]:
            return f"must hold {rule}; not so: {some(broken)}"
    return ""


def some(names: list[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more:,} more" if more > 0 else "")


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))


def _floats(arrays: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(arrays, Mapping):
        for name, inner in arrays.items():
            yield from _floats(inner, f"{path}/{name}" if path else str(name))
    elif arrays is not None and np.issubdtype(np.asarray(arrays).dtype, np.floating):
        yield path, np.asarray(arrays)
