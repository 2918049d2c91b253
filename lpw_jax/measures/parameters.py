"""How many weights a network has, shared and late-phase."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def counts(shared: Mapping[str, Any], late_phase: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Number of `shared` and `late_phase` weights of one member by top-level module.

    Args:
      shared: nested dict whose leaves have a `shape`.
      late_phase: likewise, each leaf `[K, ...]`; the member axis is not counted.

    Raises:
      ValueError: late-phase leaves do not agree on K.
    """
    num_members = _num_members(late_phase)
    return {
        name: {
            "shared": _size(shared.get(name, {})),
            "late_phase": _size(late_phase.get(name, {})) // max(num_members, 1),
        }
        for name in dict.fromkeys([*shared, *late_phase])
    }


def _size(tree: Any) -> int:
    return sum(math.prod(shape) for _, shape in _leaves(tree))


def _num_members(late_phase: Mapping[str, Any]) -> int:
    """K, the leading axis that every late-phase leaf must have; 0 without any leaf."""
    shapes = dict(_leaves(late_phase))
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(
            f"late_phase: every leaf must lead with the same member axis, got {shapes}"
        )
    return sizes.pop() if sizes else 0


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, tuple[int, ...]]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, f"{path}/{name}" if path else name)
    else:
        yield path, tree.shape
