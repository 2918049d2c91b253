"""One cycle of training, and one batch of evaluation: pure, per device, without input or output."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from lpw_jax.method import late_phase as lp
from lpw_jax.method.schedules import Rates
from lpw_jax.method.state import RUNNING_MOMENTUM, TrainState

MEMBER_MODES = ("vmap", "scan", "unroll")


def over_members(fn: Callable, mode: str, *, in_axes: Sequence[int | None]) -> Callable:
    """`fn` of one member lifted to all: arguments with axis 0 and results are [K, ...].

    'vmap' merges members into one large batch, best on accelerators. 'scan' takes one member after
    the other, with the memory of one. 'unroll' does so with K copies of the program.
    """
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
    if mode not in ("scan", "unroll"):
        raise ValueError(f"member_mode: must be one of {MEMBER_MODES}, got {mode!r}")
    length = len(jax.tree.leaves(xs)[0])
    if mode == "scan" and length > 1:
        return jax.lax.scan(body, init, xs)
    carry, results = init, []
    for i in range(length):
        carry, result = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], xs))
        results.append(result)
    return carry, lp.stack(results)


def make_train_step(
    *,
    model: nn.Module,
    tx: optax.GradientTransformationExtraArgs,
    coasting: str,
    member_mode: str,
    num_microbatches: int = 1,
    batch_axis: str | None = None,
    member_axis: str | None = None,
) -> Callable[[TrainState, dict[str, jax.Array], Rates], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds `train_step(state, batch, rates) -> (state, metrics)`: one cycle of K minibatches.

    The shared weights do not move inside a cycle, so its K minibatches are computed at once, with
    the same result as the reference's loop over members (paper, Algorithm 1). Before the release
    the same step runs with K = 1.

    `batch` holds this device's part of the cycle: `image` [K, B, H, W, C], normalised, and `label`
    [K, B], the microbatches of a minibatch one after the other. Their gradients, of mean losses,
    are summed, and each has its own batch-norm statistics. `metrics` are means over each member's
    whole minibatch: `loss` [K] and `accuracy` [K].
    With a `member_axis`, late-phase leaves, `batch_stats`, `opt_late` and `batch` have only the
    members of this device, [K / D, ...]; `metrics` are always those of all K.

    Args:
      model: network in training mode with batch norm over `batch_axis`.
      tx: from `optimizers.sgd`; shared weights and members each have their own state.
      coasting: as in `late_phase.coasting_steps`.
      member_mode: as in `over_members`.
      num_microbatches: how many there are in a minibatch, computed one after the other.
      batch_axis: pmap axis of the devices that share each minibatch, or None.
      member_axis: pmap axis of the devices that share out the members, or None.

    Raises:
      ValueError: unknown `member_mode`; `train_step` when traced: unknown `coasting`.
    """

    def combine(shared_grads, late_grads, metrics, member, num_members):
        if batch_axis is not None:
            shared_grads, late_grads, metrics = jax.lax.pmean(
                (shared_grads, late_grads, metrics), batch_axis
            )
        if member_axis is not None:
            # K zeros but for the own members', so that one all-reduce serves gradient and metrics.
            metrics = jax.tree.map(
                lambda own: jnp.zeros(num_members, own.dtype).at[member].set(own), metrics
            )
            shared_grads, metrics = jax.lax.psum((shared_grads, metrics), member_axis)
        return shared_grads, late_grads, metrics

    def member_loss(shared, late, image, label):
        logits, updated = model.apply(
            {"params": lp.merge(shared, late)}, image, train=True, mutable=["batch_stats"]
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        accuracy = (logits.argmax(-1).astype(label.dtype) == label).astype(loss.dtype).mean()
        return loss, ({"loss": loss, "accuracy": accuracy}, updated["batch_stats"])

    def merged_gradients(shared, late, image, label):
        def sum_of_losses(shared, late):
            # Differentiated once: a member's weights meet only its own loss, shared ones all K.
            loss, results = jax.vmap(member_loss, in_axes=(None, 0, 0, 0))(
                shared, late, image, label
            )
            return loss.sum(), results

        return jax.grad(sum_of_losses, argnums=(0, 1), has_aux=True)(shared, late)

    def looped_gradients(shared, late, image, label):
        def add_member(total, member):
            (own, own_late), results = jax.grad(member_loss, argnums=(0, 1), has_aux=True)(
                shared, *member
            )
            return jax.tree.map(jnp.add, total, own), (own_late, results)

        zeros = jax.tree.map(jnp.zeros_like, shared)
        shared_grads, (late_grads, results) = loop(
            add_member, member_mode, zeros, (late, image, label)
        )
        return (shared_grads, late_grads), results

    # Both: ((shared gradient summed over members, late-phase gradients [K, ...]), results [K, ...])
    gradients = merged_gradients if member_mode == "vmap" else looped_gradients
    # JAX's own gradients of convolutions are slow inside rolled loops on CPUs.
    on_accelerator = jax.default_backend() != "cpu"
    rolled = member_mode == "scan" or (member_mode == "vmap" and on_accelerator)

    def cycle_gradients(shared, late, image, label):
        """Summed over microbatches; results [microbatches, K, ...]."""

        def microbatches(leaf):
            num_members, size = leaf.shape[:2]
            parts = (num_members, num_microbatches, size // num_microbatches)
            return jnp.swapaxes(leaf.reshape(*parts, *leaf.shape[2:]), 0, 1)

        def add_microbatch(total, microbatch):
            own, results = gradients(shared, late, *microbatch)
            return jax.tree.map(jnp.add, total, own), results

        if num_microbatches == 1:
            grads, results = gradients(shared, late, image, label)
            return grads, jax.tree.map(lambda leaf: leaf[None], results)
        return loop(
            add_microbatch,
            "scan" if rolled else "unroll",
            jax.tree.map(jnp.zeros_like, (shared, late)),
            (microbatches(image), microbatches(label)),
        )

    def train_step(state, batch, rates):
        member, num_members = lp.member_indices(lp.num_members(state.late_phase), member_axis)
        before, after = lp.coasting_steps(coasting, num_members)

        def step_members(grads, late, opt_late):
            def update(grads, opt, params):
                return tx.update(
                    grads,
                    opt,
                    params,
                    learning_rate=rates.late_learning_rate,
                    weight_decay=rates.late_weight_decay,
                )

            updates, opt_late = jax.vmap(update)(grads, opt_late, late)
            return optax.apply_updates(late, updates), opt_late

        def coast(late, opt_late, times, allowed):
            for i in range(max(times)):
                zeros = jax.tree.map(jnp.zeros_like, late)
                moved = step_members(zeros, late, opt_late)
                turn = allowed & (jnp.array(times)[member] > i)
                late, opt_late = _where_member(turn, moved, (late, opt_late))
            return late, opt_late

        with jax.named_scope("coast"):
            late, opt_late = coast(state.late_phase, state.opt_late, before, state.coasting)
        with jax.named_scope("members"):
            grads, (metrics, batch_stats) = cycle_gradients(
                state.shared, late, batch["image"], batch["label"]
            )
            metrics = jax.tree.map(lambda leaf: leaf.mean(0), metrics)
        with jax.named_scope("all_reduce"):
            shared_grads, late_grads, metrics = combine(*grads, metrics, member, num_members)

        with jax.named_scope("update_late_phase"):
            late, opt_late = step_members(late_grads, late, opt_late)
        with jax.named_scope("coast"):
            late, opt_late = coast(late, opt_late, after, jnp.ones((), bool))
        with jax.named_scope("update_shared"):
            updates, opt_shared = tx.update(
                jax.tree.map(lambda g: rates.shared_grad_scale * g, shared_grads),
                state.opt_shared,
                state.shared,
                learning_rate=rates.shared_learning_rate,
                weight_decay=rates.shared_weight_decay,
            )
            shared = optax.apply_updates(state.shared, updates)
        running = state.batch_stats
        for i in range(num_microbatches):
            seen = jax.tree.map(lambda leaf, i=i: leaf[i], batch_stats)
            running = update_running(running, seen, RUNNING_MOMENTUM)
        state = TrainState(
            step=state.step + num_members,
            coasting=jnp.ones((), bool),
            shared=shared,
            late_phase=late,
            batch_stats=running,
            opt_shared=opt_shared,
            opt_late=opt_late,
        )
        return state, metrics

    return train_step


def _where_member(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Chooses between two trees of [K, ...] leaves by a [K] condition."""
    return jax.tree.map(
        lambda a, b: jnp.where(condition.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), yes, no
    )


def update_running(running: Any, batch: Any, momentum: Any) -> Any:
    """Running statistics after a batch: (1 - momentum) * running + momentum * batch."""
    return jax.tree.map(lambda r, b: (1 - momentum) * r + momentum * b, running, batch)


def make_statistics_step(*, model: nn.Module, member_mode: str) -> Callable:
    """Builds `step(shared, late_phase, batch_stats, image, momentum) -> batch_stats`.

    `late_phase` and `batch_stats` have leaves [K, ...]. Every member sees the same `image`
    [B, H, W, C], normalised, in training mode; its batch statistics enter `batch_stats` with the
    scalar `momentum`: 1 for the first batch, b / (seen + b) for a cumulative mean.
    """

    def member_stats(shared, late, image):
        _, updated = model.apply(
            {"params": lp.merge(shared, late)}, image, train=True, mutable=["batch_stats"]
        )
        return updated["batch_stats"]

    members_stats = over_members(member_stats, member_mode, in_axes=(None, 0, None))

    def statistics_step(shared, late_phase, batch_stats, image, momentum):
        return update_running(batch_stats, members_stats(shared, late_phase, image), momentum)

    return statistics_step


def make_eval_step(*, model: nn.Module, member_mode: str) -> Callable:
    """Builds `step(collapsed, shared, late_phase, batch_stats, image) -> logits`.

    `collapsed` is the variables of one network, `late_phase` and `batch_stats` have leaves
    [K, ...] and `image` is [B, H, W, C], normalised. The result holds `collapsed` [B, classes] and
    `members` [K, B, classes].
    """

    def member_logits(shared, late, stats, image):
        variables = {"params": lp.merge(shared, late), "batch_stats": stats}
        return model.apply(variables, image, train=False)

    members_logits = over_members(member_logits, member_mode, in_axes=(None, 0, 0, None))

    def eval_step(collapsed, shared, late_phase, batch_stats, image):
        return {
            "collapsed": model.apply(collapsed, image, train=False),
            "members": members_logits(shared, late_phase, batch_stats, image),
        }

    return eval_step
