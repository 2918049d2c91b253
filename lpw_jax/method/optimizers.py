"""SGD with PyTorch's rule, its rates given at every update rather than at construction."""

import jax
import optax


def sgd(*, momentum: float, nesterov: bool) -> optax.GradientTransformationExtraArgs:
    """Momentum SGD with L2 weight decay added to the gradient before the momentum.

    d = g + weight_decay * p;  v = momentum * v + d;  p -= learning_rate * (d + momentum * v)
    (without Nesterov: p -= learning_rate * v). Decay acts on every weight, batch norm and biases
    included. Rates are arguments of `update`, because they change with the epoch and the phase
    while the compiled step does not.
    """
    accumulate = optax.trace(decay=momentum, nesterov=nesterov)

    def update(grads, state, params, *, learning_rate, weight_decay):
        decayed = jax.tree.map(lambda g, p: g + weight_decay * p, grads, params)
        updates, state = accumulate.update(decayed, state)
        return jax.tree.map(lambda u: -learning_rate * u, updates), state

    return optax.GradientTransformationExtraArgs(accumulate.init, update)
