"""A flax nnx network with batch norm on digits; batch norms and head are late-phase.

`collapse` folds members' norms into one. SGD keeps its rates: shared gradients are summed over K.
"""

import jax
import numpy as np
import optax
import show
from flax import nnx

import lpw_jax

K, TRAIN, BATCH = 5, 600, 20  # members, training images, images in a minibatch


class Network(nnx.Module):
    def __init__(self, rngs):
        self.layer1 = nnx.Linear(64, 64, use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(64, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.layer2 = nnx.Linear(64, 64, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(64, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm1(self.layer1(x)))
        return self.head(nnx.relu(self.norm2(self.layer2(x))))


def main(argv=None):
    args = show.arguments(__doc__, argv)
    epochs, released = (8, 5) if args.quick else (100, 50)
    (images, labels), random = show.digits(), np.random.default_rng(0)
    images = images.reshape(-1, 64)
    graph, params, model_state = nnx.split(Network(nnx.Rngs(0)), nnx.Param, ...)

    def loss_fn(params, model_state, batch, key):
        model = nnx.merge(graph, params, model_state)
        loss = show.cross_entropy(model(batch[0]), batch[1])
        return loss, (nnx.state(model, nnx.BatchStat), {})

    def forward(params, model_state):
        model = nnx.merge(graph, params, model_state)
        model.eval()
        return model(images[TRAIN:])

    rate = optax.cosine_decay_schedule(0.05, epochs * TRAIN // BATCH)
    count = dict(release_step=released * TRAIN // BATCH, num_members=K)
    shared = optax.sgd(lpw_jax.per_shared_update(rate, **count), momentum=0.9)
    own = optax.sgd(lpw_jax.per_member_update(rate, **count), momentum=0.9)
    kind = lpw_jax.copies("norm./.*", "head/.*")
    plain = lpw_jax.LatePhase(loss_fn, kind, optax.sgd(rate, momentum=0.9), own)
    late = lpw_jax.LatePhase(loss_fn, kind, shared, own, batch_norm_epsilon=1e-5)
    plain_step, late_step = jax.jit(plain.step), jax.jit(late.step)

    @jax.jit
    def evaluate(plain_state, state):
        views = {"plain": lpw_jax.map_members(forward, plain_state)}
        if state is not None:
            views["members"] = lpw_jax.map_members(forward, state)
            views["ensemble"] = lpw_jax.ensemble(views["members"])[None]
            views["collapsed"] = forward(*late.collapse(state))[None]
        return show.scores(views, labels[TRAIN:])

    plain_state, state, history = plain.init(params, model_state), None, []
    for epoch in range(epochs):
        if epoch == released:
            state = late.release(plain_state, jax.random.key(0), num_members=K, sigma=0.3)
        order = random.permutation(TRAIN)
        for at in order.reshape(-1, 1, BATCH):
            plain_state, _ = plain_step(plain_state, (images[at], labels[at]))
        for at in order.reshape(-1, K, BATCH) if state is not None else ():
            state, _ = late_step(state, (images[at], labels[at]))
        history.append(jax.device_get(evaluate(plain_state, state)))
    show.curves(history, released, args.plot)
    return show.results(history[-1])


if __name__ == "__main__":
    main()
