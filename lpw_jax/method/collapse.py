"""Members as one network."""

from collections.abc import Callable

from lpw_jax.method import batch_norm, trees
from lpw_jax.method import model_state as ms
from lpw_jax.method.kinds import part as kinds
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


def collapse(
    state: State, *, batch_norm_epsilon: float | Callable[[str], float] | None = None
) -> tuple[Tree, Tree]:
    """As `LatePhase.collapse`."""
    params = kinds.collapse(state.shared, state.members)
    mean = ms.mean_over_members(state.member_model_state)
    model_state = trees.join(state.shared_model_state, mean)
    return batch_norm.fold(state, params, model_state, epsilon=batch_norm_epsilon)
