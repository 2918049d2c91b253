"""Algorithm 1 of the paper as a slow Python loop: what training by the library must equal.

No member axis, no vmap, no divided trees: a list of members, each with its own optimiser. The loop
knows of the library only how keys are derived.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import jit

import lpw_jax

NUM_MEMBERS, B, INPUTS, WIDTH = 2, 4, 3, 4  # of `check`


class Loop:
    """Trains theta and phi_1 .. phi_K, any pytrees.

    Args:
      loss_fn: as the library's, of (params, model_state, batch, key).
      combine: (theta, phi) -> params.
      theta, phi: at the start, where there is one phi.
      shared_optimizer, member_optimizer: functions that make them; they are given a function that
        makes a tree for what is optimised, such as a mask, from one for the parameters.
      model_state: a list of arrays, or None.
      own: for each of them, whether it is members' own.
    """

    def __init__(
        self,
        loss_fn,
        combine,
        theta,
        phi,
        *,
        shared_optimizer,
        member_optimizer,
        model_state=None,
        own=(),
        coasting="none",
        gamma=1.0,
        num_microbatches=1,
    ):
        self.theta, self.phis = jax.device_get((theta, [phi]))
        self.model_state = jax.device_get(model_state)
        self.own = list(own)
        self.own_states = [self._own_part(model_state)]
        self.coasting, self.gamma, self.num_microbatches = coasting, gamma, num_microbatches
        self.makers = shared_optimizer, member_optimizer
        self.step = 0
        self.cycles = None
        self.tied_update, init = _optimizer(
            shared_optimizer(lambda tree: {"theta": tree, "phi": tree})
        )
        self.shared_opt = init({"theta": self.theta, "phi": phi})

        def loss(theta, phi, state, batch, key):
            value, (state, metrics) = loss_fn(combine(theta, phi), state, batch, key)
            return value, (state, {"loss": value, **metrics})

        self.gradient = jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def _own_part(self, state):
        if state is None:
            return None
        return [leaf if own else None for leaf, own in zip(state, self.own, strict=True)]

    def _minibatch(self, k, batch, key):
        """Gradients and metrics of member `k`; its model state goes on."""
        if key is not None:
            key = jax.random.fold_in(jax.random.fold_in(key, self.step), k)
        size = len(jax.tree.leaves(batch)[0]) // self.num_microbatches
        grads, metrics = [], []
        for i in range(self.num_microbatches):
            part = jax.tree.map(lambda leaf, i=i: leaf[i * size : (i + 1) * size], batch)
            own_key = key
            if key is not None and self.num_microbatches > 1:
                own_key = jax.random.fold_in(key, i)
            state = self.model_state
            if state is not None:
                state = [
                    shared if member is None else member
                    for shared, member in zip(state, self.own_states[k], strict=True)
                ]
            found, (state, seen) = self.gradient(self.theta, self.phis[k], state, part, own_key)
            if state is not None:
                self.model_state, self.own_states[k] = state, self._own_part(state)
            grads.append(jax.device_get(found))
            metrics.append(jax.device_get(seen))
        total = jax.tree.map(lambda *leaves: sum(leaves), *grads)
        return *total, jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *metrics)

    def tied_step(self, batch, key=None, **args):
        """One update of everything, by a minibatch [1, B, ...]."""
        theta_grad, phi_grad, metrics = self._minibatch(0, _at(batch, 0), key)
        found, self.shared_opt = self.tied_update(
            {"theta": theta_grad, "phi": phi_grad},
            self.shared_opt,
            {"theta": self.theta, "phi": self.phis[0]},
            args,
        )
        self.theta, self.phis = found["theta"], [found["phi"]]
        self.step += 1
        return metrics

    def release(self, phis):
        """Members go apart, from these phi."""
        self.phis, self.cycles = list(phis), 0
        self.own_states = [self.own_states[0]] * len(self.phis)
        shared, member = self.makers
        self.shared_update, _ = _optimizer(shared(lambda tree: {"theta": tree}))
        self.member_update, init = _optimizer(member(lambda tree: tree))
        self.member_opts = [init(phi) for phi in self.phis]
        # The shared optimiser goes on, and forgets what it knew of phi.
        self.shared_opt = jax.tree.map(
            lambda tree: {"theta": tree["theta"]} if _is_tied(tree) else tree,
            self.shared_opt,
            is_leaf=_is_tied,
        )

    def cycle(self, batch, key=None, shared_args=(), member_args=()):
        """K minibatches [K, B, ...], one shared update."""
        num_members, total, metrics = len(self.phis), None, []
        for k in range(num_members):
            theta_grad, phi_grad, seen = self._minibatch(k, _at(batch, k), key)
            total = theta_grad if k == 0 else jax.tree.map(np.add, total, theta_grad)
            metrics.append(seen)
            for j in range(num_members):
                grad = phi_grad
                if j != k:
                    if not self._coasts(j, k):
                        continue
                    grad = jax.tree.map(np.zeros_like, phi_grad)
                self.phis[j], self.member_opts[j] = self.member_update(
                    grad, self.member_opts[j], self.phis[j], dict(member_args)
                )
        found, self.shared_opt = self.shared_update(
            {"theta": jax.tree.map(lambda g: self.gamma * g, total)},
            self.shared_opt,
            {"theta": self.theta},
            dict(shared_args),
        )
        self.theta = found["theta"]
        self.step += num_members
        self.cycles += 1
        return jax.tree.map(lambda *leaves: np.stack(leaves), *metrics)

    def _coasts(self, j, k):
        """Whether member `j`'s optimiser steps at the turn of another member `k`."""
        if self.coasting == "reference":
            return k == 0 and self.cycles > 0
        return self.coasting == "every_minibatch" and (self.cycles > 0 or j < k)


def _at(batch, k):
    return jax.tree.map(lambda leaf: leaf[k], batch)


def _is_tied(tree):
    return isinstance(tree, dict) and tree.keys() == {"theta", "phi"}


def _optimizer(tx):
    tx = optax.with_extra_args_support(tx)

    def update(grads, opt_state, weights, args):
        updates, opt_state = tx.update(grads, opt_state, weights, **args)
        return optax.apply_updates(weights, updates), opt_state

    return jit(update), jit(tx.init)


def paths_of(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]


def minibatches(seed, num_members):
    """Inputs [K, B, INPUTS] and wanted outputs [K, B, WIDTH]."""
    random = np.random.default_rng(seed)
    shape = (num_members, B)
    return random.standard_normal((*shape, INPUTS)), random.standard_normal((*shape, WIDTH))


def check(
    params,
    model_state,
    loss_fn,
    *,
    late,
    own,
    kind,
    key=None,
    tied=False,
    plain_loss=None,
    **settings,
):
    """Trains by the library and by the loop; all members' weights and states agree.

    Args:
      late, own: words in the paths of late-phase leaves, and of members' own model state.
      tied: whether there are some steps before the release.
      plain_loss: the loop's loss function, where it is another.
    """
    optimizers = optax.sgd(0.1, momentum=0.9), optax.sgd(0.2, momentum=0.5)
    method = lpw_jax.LatePhase(loss_fn, kind, *optimizers, **settings)
    leaves, treedef = jax.tree.flatten(params)
    states, state_treedef = jax.tree.flatten(model_state)
    is_late = [any(word in path for word in late) for path in paths_of(params)]
    is_own = [any(word in path for word in own) for path in paths_of(model_state)]
    assert any(is_late) and not all(is_late)

    def combine(theta, phi):
        theta, phi = iter(theta), iter(phi)
        return treedef.unflatten([next(phi if late else theta) for late in is_late])

    def loop_loss(params, states, batch, key):
        fn = plain_loss or loss_fn
        loss, (new, metrics) = fn(params, state_treedef.unflatten(states), batch, key)
        return loss, (jax.tree.leaves(new), metrics)

    loop = Loop(
        loop_loss,
        combine,
        [leaf for leaf, late in zip(leaves, is_late, strict=True) if not late],
        [leaf for leaf, late in zip(leaves, is_late, strict=True) if late],
        shared_optimizer=lambda of: optimizers[0],
        member_optimizer=lambda of: optimizers[1],
        model_state=states,
        own=is_own,
        num_microbatches=settings.get("num_microbatches", 1),
    )
    state = jit(method.init)(params, model_state)
    step = jit(method.step)
    if tied:
        for seed in range(2):
            state, metrics = step(state, minibatches(seed, 1), key)
            assert_close(metrics["loss"][0], loop.tied_step(minibatches(seed, 1), key)["loss"])
    state = jit(functools.partial(method.release, num_members=NUM_MEMBERS))(state)
    loop.release(loop.phis * NUM_MEMBERS)
    for seed in range(10, 13):
        state, metrics = step(state, minibatches(seed, NUM_MEMBERS), key)
        assert_close(metrics, loop.cycle(minibatches(seed, NUM_MEMBERS), key))
    state = jax.device_get(state)
    found = [lpw_jax.member(state, k) for k in range(NUM_MEMBERS)]
    for (weights, states), phi, own_states in zip(found, loop.phis, loop.own_states, strict=True):
        assert jax.tree.structure(weights) == treedef
        assert jax.tree.structure(states) == state_treedef
        assert_close(weights, combine(loop.theta, phi))
        whole = [a if b is None else b for a, b in zip(loop.model_state, own_states, strict=True)]
        assert_close(jax.tree.leaves(states), whole)
    first, second = (jax.tree.leaves(states) for _, states in found)
    for own, path, a, b in zip(is_own, paths_of(model_state), first, second, strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            assert bool((a != b).any()) == own, path


def assert_close(got, wanted):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), got, wanted)
