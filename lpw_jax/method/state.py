"""The training state: arrays only."""

import dataclasses
from typing import Any, Self

import jax

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that a step changes, a plain pytree. Trees are divided as in `trees`.

    Attributes:
      step: minibatches seen, int32 scalar; a cycle adds K.
      coasting: bool scalar; whether members may coast before their own step of the next cycle.
        False until the end of the first cycle after the release, when the reference's members 1
        to K-1 have no gradient buffer yet.
      shared: weights that every member uses (theta), of the structure of the parameters.
      members: what is members' own in the place of a parameter (phi), arrays [K, ...]; K is 1
        before the release.
      shared_model_state: model state of shared layers, of the structure of the model state.
      member_model_state: that of late-phase layers, arrays [K, ...].
      shared_opt_state: the shared optimiser's; before the release of `members`, too.
      member_opt_state: members' optimisers', arrays [K, ...]; None before the release.
    """

    step: jax.Array
    coasting: jax.Array
    shared: Tree
    members: Tree
    shared_model_state: Tree
    member_model_state: Tree
    shared_opt_state: Any
    member_opt_state: Any

    @property
    def num_members(self) -> int:
        """K, or what of it is on this device."""
        return jax.tree.leaves(self.members)[0].shape[0]

    @property
    def is_released(self) -> bool:
        """Whether members have optimisers of their own."""
        return self.member_opt_state is not None

    def replace(self, **changes: Any) -> Self:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)
