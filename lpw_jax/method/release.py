"""The states that begin the two phases: to be compiled, for they take many small operations."""

import jax
import jax.numpy as jnp
import optax

from lpw_jax.method import noise
from lpw_jax.method.optimizer_trees import joint, narrow
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


def tied_state(
    shared_optimizer: optax.GradientTransformation,
    shared: Tree,
    members: Tree,
    shared_model_state: Tree,
    member_model_state: Tree,
) -> State:
    """The first state; `members` and `member_model_state` have no member axis yet."""
    opt_state = shared_optimizer.init(joint(shared, members, tied=True))
    # Copies, for whoever donates the state; of optimisers, too, since some keep weights.
    shared, shared_model_state, opt_state = jax.tree.map(
        jnp.copy, (shared, shared_model_state, opt_state)
    )
    members, member_model_state = jax.tree.map(
        lambda leaf: leaf[None], (members, member_model_state)
    )
    return State(
        step=jnp.zeros((), jnp.int32),
        coasting=jnp.zeros((), bool),
        shared=shared,
        members=members,
        shared_model_state=shared_model_state,
        member_model_state=member_model_state,
        shared_opt_state=opt_state,
        member_opt_state=None,
    )


def released_state(
    shared_optimizer: optax.GradientTransformation,
    member_optimizer: optax.GradientTransformation,
    state: State,
    key: jax.Array | None,
    *,
    num_members: int,
    sigma: float,
) -> State:
    """The tied state with its late-phase weights copied to members, as `LatePhase.release` says."""
    own = jax.tree.map(lambda leaf: leaf[0], state.members)
    members, member_model_state = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, num_members, axis=0),
        (state.members, state.member_model_state),
    )
    if sigma > 0 and key is not None:  # noise without a key was refused
        members = noise.perturb(key, members, sigma)
    shared = joint(state.shared, own, tied=False)
    return state.replace(
        coasting=jnp.zeros((), bool),
        members=members,
        member_model_state=member_model_state,
        shared_opt_state=narrow(state.shared_opt_state, shared_optimizer, shared),
        member_opt_state=jax.tree.map(jnp.copy, jax.vmap(member_optimizer.init)(members)),
    )
