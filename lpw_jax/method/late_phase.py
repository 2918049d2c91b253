"""Late-phase weights (von Oswald, Kobayashi et al., 2021) for any model, loss and optimiser."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from lpw_jax.method import arguments, devices, trees
from lpw_jax.method import model_state as ms
from lpw_jax.method.coasting import coast, coasting_steps
from lpw_jax.method.collapse import collapse
from lpw_jax.method.cycle import check_mode
from lpw_jax.method.gradients import check_batch, gradients
from lpw_jax.method.kinds.divide import divide
from lpw_jax.method.kinds.part import Kind
from lpw_jax.method.optimizer_trees import joint, separate, update_members, update_weights
from lpw_jax.method.release import released_state, tied_state
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree

_collapse = jax.jit(collapse, static_argnames="batch_norm_epsilon")
LossFn = Callable[[Tree, Tree, Tree, jax.Array | None], tuple[jax.Array, tuple[Tree, dict]]]


@dataclasses.dataclass(frozen=True, eq=False)
class LatePhase:
    """Training with late-phase weights: pure functions of a `State`.

        method = LatePhase(
            loss_fn,
            late_phase=copies(".*/norm.*/scale", "head/.*"),
            shared_optimizer=optax.adamw(1e-3),
            member_optimizer=optax.sgd(0.1, momentum=0.9),
        )
        step = jax.jit(method.step, donate_argnums=0)
        state = method.init(params)
        state, metrics = step(state, batch, key)        # tied: batches [1, B, ...]
        state = method.release(state, key, num_members=10)
        state, metrics = step(state, batch, key)        # a cycle: batches [10, B, ...]
        params, model_state = method.collapse(state)    # one ordinary network

    Before the release the network is trained as it would be without late-phase weights: by
    `shared_optimizer` alone, one update a minibatch. Afterwards a step is a cycle of K minibatches,
    one for each member (paper, Algorithm 1): every member is updated by its own gradient, the
    shared weights once, by the sum of all K.

    Rates. Schedules of `shared_optimizer` count minibatches before the release and cycles after it,
    those of `member_optimizer` a member's updates from the release on; `per_shared_update` and
    `per_member_update` translate. The sum of K gradients makes up for the fewer updates with SGD;
    optimisers such as Adam ignore its size, and may need a higher shared rate after the release.
    The paper releases at 50 to 60 % of the epochs, with K = 10 and sigma = 0.

    To compare with plain training, copy the tied state (`jax.tree.map(jnp.copy, state)`, since a
    step may donate it) and go on with batches [1, B, ...].

    Attributes:
      loss_fn: (params, model_state, batch, key) -> (loss, (model_state, metrics)) of one member's
        minibatch: a scalar to be minimised, the new model state, a dict of arrays of any shape.
        Without such state `model_state` is None on both sides.
      late_phase: a kind of late-phase weights, such as `copies`, or several of them.
      shared_optimizer: of the shared weights. It sees a tree of the structure of the parameters,
        with None in place of late-phase weights.
      member_optimizer: of each member's weights, on their own (so that clipping is by member).
      coasting: zero-gradient steps of members that wait, as the published code takes them:
        'reference' (its CIFAR code: members 1 to K - 1 take one before their own in each cycle),
        'every_minibatch' (its ImageNet code: all others take one at each member's turn), or 'none'.
      shared_grad_scale: gamma of Algorithm 1; scales the shared gradient after the release.
      member_mode: 'vmap' (members as one large batch), 'scan' (one after the other, with the
        memory of one), 'unroll' (so with K copies of the program). None chooses: 'vmap', unless
        members change the state of shared layers in turn.
      num_microbatches: parts of each minibatch, computed one after the other. Their gradients are
        summed (published code), so that with a mean loss rates are to be divided by their number;
        metrics are their means.
      batch_axis: name of the device axis (of `pmap` or `shard_map`) over which every minibatch is
        divided; gradients and metrics are means over it. None under `jit` alone.
      member_axis: name of the device axis over which members are divided; members' arrays and
        batches are [K / D, ...] there, metrics always those of all K.
      member_state: which of the model state is members' own: True, False, or as the argument of
        `copies`. None goes by paths: state of a module with late-phase parameters.
      batch_norm_epsilon: of the batch norms that `collapse` folds: a number, or a function of a
        module's path.
    """

    loss_fn: LossFn
    late_phase: Kind | Sequence[Kind]
    shared_optimizer: optax.GradientTransformation
    member_optimizer: optax.GradientTransformation
    coasting: str = "none"
    shared_grad_scale: float = 1.0
    member_mode: str | None = None
    num_microbatches: int = 1
    batch_axis: str | None = None
    member_axis: str | None = None
    member_state: Any = None
    batch_norm_epsilon: float | Callable[[str], float] | None = None

    def __post_init__(self):
        coasting_steps(self.coasting, 1)
        check_mode(self.member_mode or "vmap")
        if self.num_microbatches < 1:
            raise ValueError(f"num_microbatches: must be >= 1, got {self.num_microbatches}")
        several = self.late_phase if isinstance(self.late_phase, Sequence) else [self.late_phase]
        if not several or not all(isinstance(kind, Kind) for kind in several):
            raise TypeError(
                "late_phase: must be a kind, such as lpw_jax.copies('head/.*'), or several, got "
                f"{self.late_phase!r}"
            )
        object.__setattr__(self, "late_phase", tuple(several))

    def init(
        self, params: Tree, model_state: Tree = None, *, key: jax.Array | None = None
    ) -> State:
        """The tied state: one copy of the late-phase weights, so members' arrays are [1, ...].

        Args:
          params: what is trained; any pytree of floating arrays.
          model_state: what the model changes by itself; any pytree.
          key: for kinds that draw numbers.

        Raises:
          TypeError, ValueError: late-phase weights that cannot be, named by path.
        """
        arguments.check_key(key, "init")
        shared, members = divide(params, cast(tuple[Kind, ...], self.late_phase), key)
        own = ms.whose(params, members, model_state, self.member_state)
        member_model_state, shared_model_state = trees.divide(model_state, own)
        begin = functools.partial(tied_state, self.shared_optimizer)
        return jax.jit(begin)(shared, members, shared_model_state, member_model_state)

    def release(
        self, state: State, key: jax.Array | None = None, *, num_members: int, sigma: float = 0.0
    ) -> State:
        """Copies the tied late-phase weights and their model state to K members.

        Member k starts from the tied weights plus noise of standard deviation sigma * rms(array),
        with a new optimiser; the shared optimiser goes on. To be called without device axes.

        Raises:
          ValueError: a released state, no member, a negative sigma, or noise without a key.
        """
        arguments.check_call("release", state, key)
        for rule, holds, got in (
            ("state: must be tied, not released before", not state.is_released, "a released one"),
            ("num_members: must be >= 1", num_members >= 1, num_members),
            ("sigma: must be >= 0", sigma >= 0, sigma),
            ("key: must be given for noise", not sigma or key is not None, key),
        ):
            if not holds:
                raise ValueError(f"release: {rule}, got {got}")
        optimizers = self.shared_optimizer, self.member_optimizer
        begin = functools.partial(released_state, *optimizers, num_members=num_members, sigma=sigma)
        return jax.jit(begin)(state, key)

    def step(
        self,
        state: State,
        batch: Tree,
        key: jax.Array | None = None,
        *,
        shared_args: Mapping[str, Any] | None = None,
        member_args: Mapping[str, Any] | None = None,
    ) -> tuple[State, dict[str, Any]]:
        """One cycle: a minibatch for every member. To be compiled, `state` may be donated.

        Args:
          batch: arrays [K, B, ...]; K is 1 before the release.
          key: `loss_fn` gets another one for every member and step, made of this and the number of
            the step, so this may be the same every time. None: it gets None.
          shared_args: what the shared optimiser's `update` takes besides.
          member_args: the same of the members' optimiser, for all members alike.

        Returns:
          The state, and the metrics of `loss_fn` with `loss` among them, [K, ...].

        Raises:
          ValueError: a batch without the axis K, and what `loss_fn` must return.
        """
        arguments.check_call("step", state, key)
        with jax.named_scope("members"):
            members, num_members = devices.members_here(state.num_members, self.member_axis)
            check_batch(batch, state.num_members, self.num_microbatches)
        if not state.is_released:
            return self._tied_step(state, batch, key, members, num_members, shared_args)
        before, after = coasting_steps(self.coasting, num_members)
        update = functools.partial(update_members, self.member_optimizer, member_args or {})
        with jax.named_scope("coast"):
            own, opt = coast(
                update,
                state.members,
                state.member_opt_state,
                times=before,
                members=members,
                allowed=state.coasting,
            )
        shared_grads, member_grads, metrics, states = gradients(
            self, state.replace(members=own), batch, key, members, num_members
        )
        with jax.named_scope("update_members"):
            own, opt = update(member_grads, own, opt)
        with jax.named_scope("coast"):
            yes = jnp.ones((), bool)
            own, opt = coast(update, own, opt, times=after, members=members, allowed=yes)
        with jax.named_scope("update_shared"):
            scaled = jax.tree.map(lambda g: self.shared_grad_scale * g, shared_grads)
            shared, _, shared_opt = self._update_shared(
                state, (scaled, member_grads), own, shared_args, tied=False
            )
        return (
            state.replace(
                step=state.step + num_members,
                coasting=yes,
                shared=shared,
                members=own,
                shared_opt_state=shared_opt,
                member_opt_state=opt,
                **states,
            ),
            metrics,
        )

    def collapse(self, state: State) -> tuple[Tree, Tree]:
        """One ordinary network, (params, model_state): what members average to, by kind.

        Late-phase batch norms become the mean of members' effective affine maps, as in the
        published code (`batch_norm.fold`). Other model state of late-phase layers becomes the mean
        over members, or member 0's where it is not floating; state of shared layers stays.

        Raises:
          ValueError: batch norms are to be folded, and there is no `batch_norm_epsilon`.
        """
        arguments.check_state(state, "collapse")
        return _collapse(state, batch_norm_epsilon=self.batch_norm_epsilon)

    def _tied_step(self, state, batch, key, members, num_members, shared_args):
        shared_grads, member_grads, metrics, states = gradients(
            self, state, batch, key, members, num_members
        )
        with jax.named_scope("update_shared"):
            tied, tied_grads = jax.tree.map(lambda leaf: leaf[0], (state.members, member_grads))
            shared, tied, shared_opt = self._update_shared(
                state, (shared_grads, tied_grads), tied, shared_args, tied=True
            )
        return (
            state.replace(
                step=state.step + 1,
                shared=shared,
                members=jax.tree.map(lambda leaf: leaf[None], tied),
                shared_opt_state=shared_opt,
                **states,
            ),
            metrics,
        )

    def _update_shared(self, state, grads, own, args, *, tied):
        """Shared weights, `own` (updated if `tied`) and the optimiser's state after one update."""
        weights, opt_state = update_weights(
            self.shared_optimizer,
            args or {},
            joint(*grads, tied=tied),
            joint(state.shared, own, tied=tied),
            state.shared_opt_state,
        )
        return *separate(weights, state.shared, own), opt_state
