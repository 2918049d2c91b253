"""Members of a state: their predictions, and choices among them. Functions on the member axis."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import arguments, cycle, trees
from lpw_jax.method.kinds.part import combine
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


def map_members(fn: Callable[..., Any], state: State, *args: Any, member_mode: str = "vmap") -> Any:
    """`fn(params, model_state, *args)` of every member; results are [K, ...].

    Shared weights are not copied, so that in a 'vmap' products with them stay one large product.

    Args:
      fn: such as a forward pass.
      *args: the same for all members.
      member_mode: as in `cycle.over_members`.
    """

    arguments.check_state(state, "map_members")

    def of_member(own, own_state):
        model_state = trees.join(state.shared_model_state, own_state)
        return fn(combine(state.shared, own), model_state, *args)

    return cycle.over_members(of_member, member_mode, in_axes=(0, 0))(
        state.members, state.member_model_state
    )


def members(state: State) -> tuple[Tree, Tree]:
    """(params, model_state) of all members, every array [K, ...], shared ones copied.

    For `jax.vmap(forward, in_axes=(0, 0, None))(*members(state), inputs)`; `map_members` does the
    same without copies.
    """
    arguments.check_state(state, "members")
    return map_members(lambda params, model_state: (params, model_state), state)


def member(state: State, k: int) -> tuple[Tree, Tree]:
    """(params, model_state) of member `k`, an ordinary network.

    Raises:
      IndexError: there is no such member.
    """
    arguments.check_state(state, "member")
    if not 0 <= k < state.num_members:
        raise IndexError(f"k: must be 0 to {state.num_members - 1}, got {k}")
    own, own_state = jax.tree.map(lambda leaf: leaf[k], (state.members, state.member_model_state))
    return combine(state.shared, own), trees.join(state.shared_model_state, own_state)


def select_members(state: State, chosen: Sequence[int]) -> State:
    """The state with these members alone, in this order; its collapse is their uniform soup.

    Raises:
      ValueError: none are chosen, or some that there are not.
    """
    arguments.check_state(state, "select_members")
    if not len(chosen) or not all(0 <= k < state.num_members for k in chosen):
        raise ValueError(
            f"chosen: must be numbers of members, 0 to {state.num_members - 1}, got {chosen!r}"
        )
    index = jnp.asarray(chosen)
    own = (state.members, state.member_model_state, state.member_opt_state)
    own = jax.tree.map(lambda leaf: leaf[index], own)
    return state.replace(members=own[0], member_model_state=own[1], member_opt_state=own[2])


def greedy_soup(state: State, score: Callable[[State], float]) -> list[int]:
    """Members whose soup scores best, found greedily (Wortsman et al., 2022).

    Members join in the order of their own scores, each if the soup scores no less with it.

    Args:
      score: of a state with some of the members, such as the validation accuracy of its collapse;
        higher is better.

    Returns:
      numbers of the members, for `select_members`.
    """
    arguments.check_state(state, "greedy_soup")
    alone = [float(score(select_members(state, [k]))) for k in range(state.num_members)]
    first, *others = sorted(range(state.num_members), key=lambda k: -alone[k])
    soup, best = [first], alone[first]
    for k in others:
        found = float(score(select_members(state, [*soup, k])))
        if found >= best:
            soup, best = [*soup, k], found
    return soup


def ensemble(logits: jax.Array) -> jax.Array:
    """The log of members' mean probabilities: logits [K, ..., C] to log-probabilities [..., C].

    Raises:
      TypeError: the logits are another thing.
    """
    arguments.check_floating(logits, "ensemble: logits", "[K, ..., C]", axes=2)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(logits.shape[0]).astype(logits.dtype)
