"""The gradients of a cycle: K members, each on its own minibatch, with shared weights at rest."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lpw_jax.method import devices, trees
from lpw_jax.method import model_state as ms
from lpw_jax.method.kinds.part import combine
from lpw_jax.method.trees import Tree

MEMBER_MODES = ("vmap", "scan", "unroll")


class Cycle(NamedTuple):
    """What comes of a cycle's minibatches on this device.

    Attributes:
      shared_grads: summed over members and microbatches, as `State.shared`.
      member_grads: summed over microbatches, as `State.members`.
      metrics: of the loss function, and `loss`; [K, ...], means over microbatches.
      observed: what layers saw, [microbatches, K, ...], in the places of the model state.
      shared_news, member_news: new model states that the model returned, in those places.
    """

    shared_grads: Tree
    member_grads: Tree
    metrics: dict[str, Any]
    observed: Tree
    shared_news: Tree
    member_news: Tree


def check_mode(mode: str) -> None:
    """Refuses an unknown `member_mode`."""
    if mode not in MEMBER_MODES:
        raise ValueError(f"member_mode: must be one of {MEMBER_MODES}, got {mode!r}")


def over_members(fn: Callable, mode: str, *, in_axes: tuple[int | None, ...]) -> Callable:
    """`fn` of one member lifted to all: arguments with axis 0 and results are [K, ...].

    'vmap' merges members into one large batch, best on accelerators. 'scan' takes one member after
    the other, with the memory of one. 'unroll' does so with K copies of the program.
    """
    check_mode(mode)
    if mode == "vmap":
        return jax.vmap(fn, in_axes=in_axes)

    def one_by_one(*args):
        def of_member(_, own):
            own = iter(own)
            return None, fn(
                *(next(own) if x == 0 else a for a, x in zip(args, in_axes, strict=True))
            )

        mapped = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]
        return loop(of_member, mode, None, mapped)[1]

    return one_by_one


def loop(body: Callable, mode: str, init: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` over the leading axis of `xs`, rolled for 'scan' and not for 'unroll'."""
    length = len(jax.tree.leaves(xs)[0])
    if mode == "scan" and length > 1:
        return jax.lax.scan(body, init, xs)
    carry, results = init, []
    for i in range(length):
        carry, result = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], xs))
        results.append(result)
    return carry, trees.stack(results)


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Computes a `Cycle`.

    Attributes:
      loss_fn: as in `LatePhase`.
      member_mode: as in `over_members`; None is 'vmap', or one after the other where members
        change the state of shared layers in turn.
      num_microbatches: how many a minibatch has, computed one after the other.
    """

    loss_fn: Callable
    member_mode: str | None
    num_microbatches: int

    def __call__(
        self,
        shared: Tree,
        members: Tree,
        shared_state: Tree,
        member_state: Tree,
        batch: Tree,
        keys: jax.Array | None,
    ) -> Cycle:
        """Of members' minibatches `batch` [K, B, ...], with a key for each.

        Raises:
          ValueError: the loss is no scalar, metrics are no dict, or the model state cannot be
            changed in turn as `member_mode` or `num_microbatches` ask for.
        """
        state = shared_state, member_state
        mode, news = self._plan(shared, members, state, batch, keys)
        of_members = self._merged if mode == "vmap" else self._one_by_one
        if self.num_microbatches == 1:
            grads, news, (metrics, observed) = of_members(
                mode, shared, members, state, news, batch, keys
            )
            observed = jax.tree.map(lambda leaf: leaf[None], observed)
            return Cycle(grads[0], grads[1], metrics, observed, news[0], news[1])

        def microbatches(leaf):
            num_members, size = leaf.shape[:2]
            parts = (num_members, self.num_microbatches, size // self.num_microbatches)
            return jnp.swapaxes(leaf.reshape(*parts, *leaf.shape[2:]), 0, 1)

        def add_microbatch(carry, microbatch):
            total, news = carry
            number, part = microbatch
            own_keys = None
            if keys is not None:
                own_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            grads, news, results = of_members(mode, shared, members, state, news, part, own_keys)
            return (jax.tree.map(jnp.add, total, grads), news), results

        # JAX's own gradients of convolutions are slow inside rolled loops on CPUs.
        on_accelerator = jax.default_backend() != "cpu"
        rolled = mode == "scan" or (mode == "vmap" and on_accelerator)
        (grads, news), (metrics, observed) = loop(
            add_microbatch,
            "scan" if rolled else "unroll",
            (devices.zeros_like((shared, members)), news),
            (jnp.arange(self.num_microbatches), jax.tree.map(microbatches, batch)),
        )
        metrics = jax.tree.map(lambda leaf: leaf.mean(0), metrics)
        return Cycle(grads[0], grads[1], metrics, observed, news[0], news[1])

    def _plan(self, shared, members, state, batch, keys):
        """How to go over members, and those model states that the model will change."""
        mode, (shared_state, member_state) = self.member_mode, state
        # Members' own state matters here only if it is handed from one microbatch to the next.
        if trees.is_empty(shared_state if self.num_microbatches == 1 else state):
            return mode or "vmap", jax.tree.map(lambda _: None, state)
        own, own_state, own_batch, key = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
            (members, member_state, batch, keys),
        )
        if self.num_microbatches > 1:
            own_batch = jax.tree.map(
                lambda leaf: leaf.update(
                    shape=(leaf.shape[0] // self.num_microbatches, *leaf.shape[1:])
                ),
                own_batch,
            )
        _, (_, _, own_news, shared_news) = jax.eval_shape(
            self._member_loss, shared, own, (shared_state, own_state), own_batch, key
        )
        news = trees.keep(shared_news, shared_state), trees.keep(own_news, member_state)
        changed = [path for path, new in trees.places(news[0]) if new is not None]
        if not changed:
            return mode or "vmap", news
        if self.num_microbatches > 1:
            raise ValueError(
                "num_microbatches: must be 1 where minibatches change the state of shared layers, "
                f"such as {changed[0]!r}; let the layer return lpw_jax.Observed, or make it "
                "members' own (member_state)"
            )
        if mode == "vmap":
            raise ValueError(
                "member_mode = 'vmap': members' minibatches change the state of shared layers in "
                f"turn, such as {changed[0]!r}; use 'scan' or 'unroll', let the layer return "
                "lpw_jax.Observed, or make its state members' own (member_state)"
            )
        return mode or ("unroll" if jax.default_backend() == "cpu" else "scan"), news

    def _member_loss(self, shared, own, state, batch, key):
        """The loss of one member; its metrics, what it observed, and other news of states."""
        before = trees.join(*state)
        found = self.loss_fn(combine(shared, own), ms.to_be_changed(before), batch, key)
        try:
            loss, (returned, metrics) = found
        except (TypeError, ValueError) as error:
            raise ValueError(
                "loss_fn: must return (loss, (model_state, metrics)), got "
                f"{jax.tree.structure(found)}"
            ) from error
        if jnp.shape(loss) != ():
            raise ValueError(f"loss_fn: the loss must be a scalar, got shape {jnp.shape(loss)}")
        if not isinstance(metrics, dict):
            raise ValueError(f"loss_fn: metrics must be a dict, got {type(metrics).__name__}")
        news, observed = ms.settle(before, returned)
        own_news, shared_news = trees.divide(news, trees.is_there(state[1]))
        return loss, ({"loss": loss, **metrics}, observed, own_news, shared_news)

    def _merged(self, mode, shared, members, state, news, batch, keys):
        shared_state, member_state = trees.join(state[0], news[0]), trees.join(state[1], news[1])

        def sum_of_losses(shared, members):
            # Differentiated once: a member's weights meet only its own loss, shared ones all K.
            axes = (None, 0, (None, 0), 0, None if keys is None else 0)
            losses, results = jax.vmap(self._member_loss, in_axes=axes)(
                shared, members, (shared_state, member_state), batch, keys
            )
            return losses.sum(), results

        grads, (metrics, observed, own_news, _) = jax.grad(
            sum_of_losses, argnums=(0, 1), has_aux=True
        )(shared, members)
        return grads, (news[0], own_news), (metrics, observed)

    def _one_by_one(self, mode, shared, members, state, news, batch, keys):
        member_state = trees.join(state[1], news[1])

        def add_member(carry, member):
            total, shared_news = carry
            own, own_state, own_batch, key = member
            states = trees.join(state[0], shared_news), own_state
            (own_shared, own_grads), (metrics, observed, own_news, shared_news) = jax.grad(
                self._member_loss, argnums=(0, 1), has_aux=True
            )(shared, own, states, own_batch, key)
            total = jax.tree.map(jnp.add, total, own_shared)
            return (total, shared_news), (own_grads, own_news, metrics, observed)

        (total, shared_news), (own_grads, own_news, metrics, observed) = loop(
            add_member,
            mode,
            (devices.zeros_like(shared), news[0]),
            (members, member_state, batch, keys),
        )
        return (total, own_grads), (shared_news, own_news), (metrics, observed)
