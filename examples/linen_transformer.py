"""A flax linen transformer reads digits row by row; LayerNorm scales and head are late-phase.

At the release the training forks: one goes on plainly, in the other K members share the same
minibatches. Adam then makes one update where it made K: hence its higher rates.
"""

import flax.linen as nn
import jax
import numpy as np
import optax
import show

import lpw_jax

K, TRAIN, BATCH = 5, 600, 20  # members, training images, images in a minibatch


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, rows, train=False):
        x = nn.Dense(32)(rows)
        x += self.param("positions", nn.initializers.normal(0.1), (1, 8, 32))
        drop = nn.Dropout(0.1, deterministic=not train)
        for _ in range(2):
            x += drop(nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x)))
            x += drop(nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x)))))
        return nn.Dense(10, name="head")(nn.LayerNorm()(x).mean(-2))


def loss_fn(params, model_state, batch, key):
    rows, labels = batch
    logits = Transformer().apply({"params": params}, rows, train=True, rngs={"dropout": key})
    return show.cross_entropy(logits, labels), (model_state, {})


def main(argv=None):
    args = show.arguments(__doc__, argv)
    epochs, released = (8, 5) if args.quick else (60, 30)
    rows, labels = show.digits()
    random = np.random.default_rng(0)
    # A schedule over minibatches; the helpers read it at each optimiser's own updates.
    rate = optax.cosine_decay_schedule(3e-3, epochs * TRAIN // BATCH)
    count = dict(release_step=released * TRAIN // BATCH, num_members=K)
    shared = optax.adamw(lpw_jax.per_shared_update(lambda i: K**0.5 * rate(i), **count))
    own = optax.adamw(lpw_jax.per_member_update(lambda i: K * rate(i), **count))
    late_phase = lpw_jax.copies(".*LayerNorm.*/scale", "head/.*")
    plain = lpw_jax.LatePhase(loss_fn, late_phase, optax.adamw(rate), own)
    late = lpw_jax.LatePhase(loss_fn, late_phase, shared, own)
    plain_step, late_step = jax.jit(plain.step), jax.jit(late.step)

    def forward(params, model_state):
        return Transformer().apply({"params": params}, rows[TRAIN:])

    @jax.jit
    def evaluate(plain_state, state):
        views = {"plain": lpw_jax.map_members(forward, plain_state)}
        if state is not None:
            views["members"] = lpw_jax.map_members(forward, state)
            views["ensemble"] = lpw_jax.ensemble(views["members"])[None]
            views["collapsed"] = forward(*late.collapse(state))[None]
        return show.scores(views, labels[TRAIN:])

    key, state, history = jax.random.key(0), None, []
    plain_state = plain.init(jax.jit(Transformer().init)(key, rows[:1])["params"])
    for epoch in range(epochs):
        if epoch == released:
            state = late.release(plain_state, key, num_members=K, sigma=0.3)
        order = random.permutation(TRAIN)
        for at in order.reshape(-1, 1, BATCH):
            plain_state, _ = plain_step(plain_state, (rows[at], labels[at]), key)
        for at in order.reshape(-1, K, BATCH) if state is not None else ():
            state, _ = late_step(state, (rows[at], labels[at]), key)
        history.append(jax.device_get(evaluate(plain_state, state)))
    show.curves(history, released, args.plot)
    return show.results(history[-1])


if __name__ == "__main__":
    main()
