"""A user's program as mypy sees it; nothing runs this file."""

from typing import Any, assert_type

import jax
import optax

import lpw_jax


def loss_fn(
    params: Any, model_state: Any, batch: Any, key: jax.Array | None
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    return (params["head"] * batch).sum(), (model_state, {})


def train(params: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
    method = lpw_jax.LatePhase(
        loss_fn,
        late_phase=[lpw_jax.copies("head/.*"), lpw_jax.rank_one("body/.*")],
        shared_optimizer=optax.sgd(0.1),
        member_optimizer=optax.sgd(0.1),
    )
    state = method.release(method.init(params, key=key), key, num_members=3, sigma=0.1)
    state, metrics = method.step(state, batch, key)
    assert_type(state, lpw_jax.State)
    assert_type(metrics, dict[str, Any])
    assert_type(lpw_jax.greedy_soup(state, lambda soup: 1.0), list[int])
    assert_type(lpw_jax.select_members(state, [0, 2]).num_members, int)
    return method.collapse(state)


def mistakes(method: lpw_jax.LatePhase, state: lpw_jax.State) -> None:
    """Each is an error: an `ignore` that is not needed is one, too."""
    lpw_jax.copy("head/.*")  # type: ignore[attr-defined]
    method.release(state, num_member=3)  # type: ignore[call-arg]
    lpw_jax.select_members(state, chosen=0)  # type: ignore[arg-type]


def logits(run: str, images: Any) -> jax.Array:
    return lpw_jax.ensemble(lpw_jax.load(run).normalize(images))
