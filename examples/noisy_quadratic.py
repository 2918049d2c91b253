"""A noisy quadratic problem: SGD, SWA, late-phase weights; see docs/noisy_quadratic.md."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import show

import lpw_jax

K, RATE, START = 10, 0.1, 6.0  # members, learning rate, every weight at the start
CURVATURES, NUMBERS = np.array([5.0, 0.02]), {"sharp": 5, "flat": 20}
RELEASE, MINIBATCHES = 100, 3000  # until the release, and then


def loss_fn(params, model_state, noise, key):  # summed over problems, arrays [problems, weights]
    parts = [jnp.square(params[name] - noise[name]).sum() for name in NUMBERS]
    return jnp.dot(CURVATURES / 2, jnp.stack(parts)), (model_state, {})


method = lpw_jax.LatePhase(loss_fn, lpw_jax.copies("sharp"), optax.sgd(RATE), optax.sgd(RATE))


@functools.partial(jax.jit, static_argnums=2)
def trained(state, key, cycles):
    """The state after `cycles`, and of each the excess loss of the weights and of their mean."""
    k, problems, _ = state.members["sharp"].shape

    def excess(state):  # of the collapsed network: the loss without noise
        return loss_fn(method.collapse(state)[0], None, dict.fromkeys(NUMBERS, 0.0), None)[0]

    def cycle(carry, keys):
        state, average = carry
        shapes = [(k, problems, number) for number in NUMBERS.values()]
        noise = dict(zip(NUMBERS, map(jax.random.normal, keys, shapes), strict=True))
        state, _ = method.step(state, noise)
        average = average.add(state)
        return (state, average), jnp.stack([excess(state), excess(average.state)]) / problems

    start = state, lpw_jax.Average.start(state)
    (state, _), found = jax.lax.scan(cycle, start, jax.random.split(key, (cycles, 2)))
    return state, found.T


def last(square, a, v, n):  # E w^2 after n steps from E w^2 = square
    return a ** (2 * n) * square + (1 - a ** (2 * n)) * v


def mean(square, a, v, n):  # of the mean of w after steps 1 to n
    sums = n - 2 * a * (1 - a**n) / (1 - a) + a**2 * (1 - a ** (2 * n)) / (1 - a**2)
    return square * (a * (1 - a**n) / (1 - a) / n) ** 2 + v * (1 + a) / (1 - a) * sums / n**2


def closed_forms(n):
    """Expected excess losses `n` minibatches after the release, by name."""
    scaled = [RATE * CURVATURES * np.array(by) for by in ((1, 1), (1, K), (1 / K, 1 / K))]
    sgd, (a, v), slow = [(1 - rate, rate / (2 - rate)) for rate in scaled]
    start, late = last(START**2, *sgd, RELEASE), (a, v / K, n / K)
    squares = {"SGD": last(start, *sgd, n), "SWA": mean(start, *sgd, n)}
    squares |= {"late-phase": last(start, *late), "late-phase SWA": mean(start, *late)}
    squares["SGD, rate / K"] = last(start, *slow, n)
    weights = CURVATURES / 2 * [*NUMBERS.values()]
    return {name: float(weights @ square) for name, square in squares.items()}


def main(argv=None):
    args = show.arguments(__doc__, argv)
    problems, keys = 200 if args.quick else 4000, jax.random.split(jax.random.key(0), 3)
    params = {name: jnp.full((problems, number), START) for name, number in NUMBERS.items()}
    state, _ = trained(method.init(params), keys[0], RELEASE)
    _, plain = trained(state, keys[1], MINIBATCHES)
    _, late = trained(method.release(state, num_members=K), keys[2], MINIBATCHES // K)
    found = {"SGD": plain[0], "SWA": plain[1], "late-phase": late[0], "late-phase SWA": late[1]}
    return show.expected_losses(found, closed_forms, MINIBATCHES, args.plot)


if __name__ == "__main__":
    main()
