"""Late-phase weights that are members' own altogether, such as batch norm's and the head."""

import dataclasses
from typing import Any

import jax

from lpw_jax.method.kinds.part import Kind, Made, chosen
from lpw_jax.method.selection import Selection


def copies(*selection: Any) -> "Copies":
    """Each member has its own copy of these weights (paper, section 2.3); collapse: their mean.

    Args:
      *selection: regular expressions, each matched against a weight's whole '/'-joined path
        ('encoder/norm1/scale' in linen dicts, 'layers/0/kernel' in nnx states, 'layers/0/weight' in
        equinox modules); or one function (path, array) -> bool; or one tree of bools.
        `copies(".*")` has nothing shared.
    """
    return Copies(selection)


@dataclasses.dataclass(frozen=True)
class Copies(Kind):
    """See `copies`."""

    selection: Selection

    def make(self, params: Any, key: jax.Array | None) -> Made:
        """As in `Kind`."""
        return {
            path: (None, weight)
            for path, weight in chosen(params, self.selection, "copies").items()
        }
