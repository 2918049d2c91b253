"""Late-phase rank-one factors on shared weights (paper, section 2.3: rank-1 matrix weights)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method.kinds.part import Kind, Made, Part, Places, chosen
from lpw_jax.method.selection import Selection


def rank_one(
    *selection: Any, in_axis: int = -2, out_axis: int = -1, on_activations: bool = False
) -> "RankOne":
    """Members scale inputs and outputs of shared weights: W * (u v^T), with u = v = 1 at first.

    For dense, recurrent and convolution kernels. Collapse: the means of u and of v over members.

    Args:
      *selection: as in `copies`; every weight must have both axes.
      in_axis: of inputs in a weight. Kernels are [..., in, out] in some libraries; where they are
        [out, in], take in_axis=1 and out_axis=0.
      out_axis: of outputs.
      on_activations: instead of the effective weight, the model gets a `Factored`, so that members
        in a vmap share one product; `lpw_jax.linen.apply` applies linen models with it.
    """
    return RankOne(selection, in_axis, out_axis, on_activations)


@dataclasses.dataclass(frozen=True)
class RankOne(Kind):
    """See `rank_one`."""

    selection: Selection
    in_axis: int
    out_axis: int
    on_activations: bool

    def make(self, params: Any, key: jax.Array | None) -> Made:
        """As in `Kind`."""

        def ones(path, weight, axis):
            if not -weight.ndim <= axis < weight.ndim or weight.ndim < 2:
                raise ValueError(
                    f"rank_one: a weight must have an axis of inputs ({self.in_axis}) and one of "
                    f"outputs ({self.out_axis}), but {path!r} has shape {weight.shape}"
                )
            return jnp.ones(weight.shape[axis], weight.dtype)

        return {
            path: (
                weight,
                Factors(
                    inputs=ones(path, weight, self.in_axis),
                    outputs=ones(path, weight, self.out_axis),
                    axes=(self.in_axis, self.out_axis),
                    on_activations=self.on_activations,
                ),
            )
            for path, weight in chosen(params, self.selection, "rank_one").items()
        }


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "outputs"],
    meta_fields=["axes", "on_activations"],
)
@dataclasses.dataclass(frozen=True)
class Factors(Part):
    """A member's u [in] and v [out]."""

    inputs: jax.Array
    outputs: jax.Array
    axes: tuple[int, int]
    on_activations: bool

    def combine(self, shared: jax.Array, places: Places) -> Any:
        """As in `Part`."""
        factored = Factored(shared, self.inputs, self.outputs, self.axes)
        return factored if self.on_activations else factored.effective()

    def collapse(self, shared: jax.Array, places: Places) -> jax.Array:
        """As in `Part`: always an ordinary weight."""
        mean = self.inputs.mean(0), self.outputs.mean(0)
        return Factored(shared, *mean, self.axes).effective()


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weight", "inputs", "outputs"],
    meta_fields=["axes"],
)
@dataclasses.dataclass(frozen=True)
class Factored:
    """A weight W and its factors u [in] and v [out], to be applied as ((x * u) W) * v."""

    weight: jax.Array
    inputs: jax.Array
    outputs: jax.Array
    axes: tuple[int, int] = (-2, -1)

    def effective(self) -> jax.Array:
        """W * (u v^T)."""

        def along(vector, axis):
            shape = [1] * self.weight.ndim
            shape[axis] = -1
            return vector.reshape(shape)

        in_axis, out_axis = self.axes
        return self.weight * (along(self.inputs, in_axis) * along(self.outputs, out_axis))
