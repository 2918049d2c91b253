"""A regression ensemble in equinox, with dropout: heads are late-phase; means and spreads.

Members' heads start apart (sigma); the ensemble's spread is that of their means and their noise.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import show

import lpw_jax

K, TRAIN, BATCH = 8, 160, 20  # members, training points, points in a minibatch


class Network(eqx.Module):
    body: eqx.nn.MLP
    dropout: eqx.nn.Dropout
    head: eqx.nn.MLP

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.body = eqx.nn.MLP(1, 64, 64, 1, jnp.tanh, jnp.tanh, key=one)
        self.dropout = eqx.nn.Dropout(0.05)
        self.head = eqx.nn.MLP(64, 2, 32, 1, key=two)

    def __call__(self, x, key=None):
        mean, raw = self.head(self.dropout(self.body(x), key=key, inference=key is None))
        return mean, 0.05 + jax.nn.softplus(raw)


def points(random, n, gap):
    """n of a noisy wave over [-2, 2]; none of them in the middle where there is a gap."""
    x = random.uniform(0.5, 2, n) * random.choice([-1, 1], n) if gap else random.uniform(-2, 2, n)
    return np.float32(x)[:, None], np.float32(np.sin(3 * x) + 0.1 * random.standard_normal(n))


def main(argv=None):
    args = show.arguments(__doc__, argv)
    epochs, released = (60, 10) if args.quick else (1000, 100)
    random, key = np.random.default_rng(0), jax.random.key(0)
    (x, y), (test_x, test_y) = points(random, TRAIN, True), points(random, 400, False)
    params, static = eqx.partition(Network(key), eqx.is_inexact_array)

    def loss_fn(params, model_state, batch, key):
        x, y = batch
        mean, std = jax.vmap(eqx.combine(params, static))(x, jax.random.split(key, len(x)))
        return -jax.scipy.stats.norm.logpdf(y, mean, std).mean(), (model_state, {})

    def forward(params, model_state, x):
        return jax.vmap(eqx.combine(params, static))(x)

    adam = optax.adam(3e-3)
    method = lpw_jax.LatePhase(loss_fn, lpw_jax.copies("head/.*"), adam, adam)
    step = jax.jit(method.step)

    @jax.jit
    def predict(plain, late, x):  # (mean, standard deviation) of each view
        mean, std = lpw_jax.map_members(forward, late, x)
        spread = jnp.sqrt(jnp.square(std).mean(0) + mean.var(0))
        views = {"plain": forward(*method.collapse(plain), x), "members": (mean, std)}
        collapsed = forward(*method.collapse(late), x)
        return views | {"ensemble": (mean.mean(0), spread), "collapsed": collapsed}

    plain = late = method.init(params)
    for epoch in range(epochs):
        if epoch == released:
            late = method.release(plain, key, num_members=K, sigma=0.5)
        order = random.permutation(TRAIN)
        for at in order.reshape(-1, 1, BATCH):
            plain, _ = step(plain, (x[at], y[at]), key)
        for at in order.reshape(-1, K, BATCH) if epoch >= released else ():
            late, _ = step(late, (x[at], y[at]), key)
    return show.regression(predict, (plain, late), (x, y), (test_x, test_y), args.plot)


if __name__ == "__main__":
    main()
