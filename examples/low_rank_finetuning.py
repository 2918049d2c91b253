"""A network trained on the digits 0 to 4 learns 5 to 9 from 100 images, by K low-rank members.

Shared weights rest. Plain fine-tuning, of the head or of everything, has one member of its own.
"""

import flax.linen as nn
import jax
import numpy as np
import optax
import show

import lpw_jax

TUNE, BATCH = 100, 20  # images to fine-tune on, images in a minibatch
HEAD = lpw_jax.copies("head/.*")
TUNINGS = {  # what is trained, by how many members, their noise at the release, rate of Adam
    "head alone": (HEAD, 1, 0.0, 5e-3),
    "everything": (lpw_jax.copies(".*"), 1, 0.0, 1e-3),
    "low rank": ([lpw_jax.low_rank(2, "Dense_./kernel"), HEAD], 5, 0.3, 5e-3),
}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5, name="head")(nn.relu(nn.Dense(128)(nn.relu(nn.Dense(128)(x)))))


def forward(params, model_state, images):
    return Network().apply({"params": params}, images)


def loss_fn(params, model_state, batch, key):
    logits = forward(params, model_state, batch[0])
    return show.cross_entropy(logits, batch[1]), (model_state, {})


def train(method, state, images, labels, epochs):
    step, random = jax.jit(method.step), np.random.default_rng(0)
    for _ in range(epochs):
        for at in random.permutation(len(labels)).reshape(-1, state.num_members, BATCH):
            state, _ = step(state, (images[at], labels[at]))
        yield state


def main(argv=None):
    args = show.arguments(__doc__, argv)
    epochs = 30 if args.quick else 300
    images, labels = show.digits()
    images, key = images.reshape(-1, 64), jax.random.key(0)
    params = jax.jit(Network().init)(key, images[:1])["params"]
    before = lpw_jax.LatePhase(loss_fn, HEAD, optax.adam(1e-3), optax.adam(1e-3))
    old = np.flatnonzero(labels < 5)[:900]
    *_, state = train(before, before.init(params), images[old], labels[old], epochs // 10)
    params, _ = before.collapse(state)

    images, labels = images[labels >= 5], labels[labels >= 5] - 5
    history = [{} for _ in range(epochs)]
    for name, (kind, k, sigma, rate) in TUNINGS.items():
        late = lpw_jax.LatePhase(loss_fn, kind, optax.set_to_zero(), optax.adam(rate))
        state = late.release(late.init(params, key=key), key, num_members=k, sigma=sigma)
        size = sum(leaf[0].size for leaf in jax.tree.leaves(state.members))
        print(f"{name}: {k} x {size} numbers are trained")

        @jax.jit
        def evaluate(state, name=name, late=late):
            logits = lpw_jax.map_members(forward, state, images[TUNE:])
            mean, one = lpw_jax.ensemble(logits), forward(*late.collapse(state), images[TUNE:])
            views = {"members": logits, "ensemble": mean[None], "collapsed": one[None]}
            return show.scores(views if len(logits) > 1 else {name: logits}, labels[TUNE:])

        tuning = train(late, state, images[:TUNE], labels[:TUNE], epochs)
        for found, tuned in zip(history, tuning, strict=True):
            found.update(jax.device_get(evaluate(tuned)))
    show.curves(history, 0, args.plot)
    return show.results(history[-1])


if __name__ == "__main__":
    main()
