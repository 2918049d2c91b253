"""Optimisers whose rates are given at every update rather than at construction.

`update` takes `learning_rate` and `weight_decay` besides, because they change with the epoch and
the phase while the compiled step does not.
"""

from collections.abc import Callable

import jax
import optax


def sgd(*, momentum: float, nesterov: bool) -> optax.GradientTransformationExtraArgs:
    """Momentum SGD with L2 weight decay added to the gradient before the momentum.

    d = g + weight_decay * p;  v = momentum * v + d;  p -= learning_rate * (d + momentum * v)
    (without Nesterov: p -= learning_rate * v). Decay acts on every weight, batch norm and biases
    included.
    """
    accumulate = optax.trace(decay=momentum, nesterov=nesterov)

    def update(grads, state, params, *, learning_rate, weight_decay):
        decayed = jax.tree.map(lambda g, p: g + weight_decay * p, grads, params)
        updates, state = accumulate.update(decayed, state)
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(accumulate.init, update)


def adam(*, decoupled: bool) -> optax.GradientTransformationExtraArgs:
    """Adam with PyTorch's constants, beta 0.9 and 0.999, eps 1e-8, in update t.

    d = g + weight_decay * p;  m = 0.9 m + 0.1 d;  v = 0.999 v + 0.001 d^2;
    p -= learning_rate * m / (1 - 0.9^t) / (sqrt(v / (1 - 0.999^t)) + eps)
    With `decoupled` decay (AdamW) d = g, and p is first multiplied by 1 - learning_rate *
    weight_decay. Decay acts on every weight.
    """
    scale = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)

    def update(grads, state, params, *, learning_rate, weight_decay):
        def decay(tree):
            return jax.tree.map(lambda u, p: u + weight_decay * p, tree, params)

        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            updates, state = scale.update(grads if decoupled else decay(grads), state)
        if decoupled:
            updates = decay(updates)
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(scale.init, update)


def with_rates(
    make: Callable[..., optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Any optimiser, made anew for the rates of every update.

    Args:
      make: called with `learning_rate` and `weight_decay` by name, numbers or arrays that are being
        traced; the structure of its state must not depend on them.
    """

    def init(params):
        return make(learning_rate=0.1, weight_decay=0.1).init(params)

    def update(grads, state, params, *, learning_rate, weight_decay):
        made = make(learning_rate=learning_rate, weight_decay=weight_decay)
        return made.update(grads, state, params)

    return optax.GradientTransformationExtraArgs(init, update)
