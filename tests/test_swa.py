"""Weight averages and re-estimated statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_net import PATTERNS, TinyNet, labels

from lpw_jax.data import augment, in_memory
from lpw_jax.devices.parallel import Devices
from lpw_jax.method import late_phase as lp
from lpw_jax.method import optimizers, state, swa
from lpw_jax.training.runner import Runner

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
N, B, K = 44, 16, 2  # two full batches and a short one, which 8 devices cannot share


def released(tx):
    start = state.init(
        jax.random.key(0), TinyNet(), image_shape=(8, 8, 3), patterns=PATTERNS, tx=tx
    )
    return state.release(start, jax.random.key(1), num_members=K, sigma=0.5, tx=tx)


def test_averages_are_means_over_epochs(float64):
    start = released(optimizers.sgd(momentum=0.9, nesterov=True))
    epochs = [
        start.replace(
            shared=jax.tree.map(lambda leaf, i=i: leaf * i, start.shared),
            late_phase=jax.tree.map(lambda leaf, i=i: leaf - i, start.late_phase),
        )
        for i in (1.0, 4.0, 2.5)
    ]
    averages = swa.init(start)
    for epoch in epochs:
        averages = swa.update(averages, epoch)
    assert int(averages.count) == 3
    for name in ("shared", "late_phase"):
        mean = jax.tree.map(lambda *x: sum(x) / 3, *(getattr(epoch, name) for epoch in epochs))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), getattr(averages, name), mean
        )


@pytest.mark.parametrize(("num_devices", "layout"), [(1, "data"), (8, "data"), (K, "members")])
def test_statistics_are_the_size_weighted_mean_over_batches(float64, num_devices, layout):
    """Against a plain loop over batches: all members see all images, the short batch included."""
    tx = optimizers.sgd(momentum=0.9, nesterov=True)
    start = released(tx)
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    options = dict(
        crop_padding=2, flip=True, cutout=3, mean=MEAN, std=STD, dtype=np.dtype(np.float64)
    )
    key, order = jax.random.key(3), np.random.default_rng(1).permutation(N).astype(np.int32)
    runner = Runner(
        devices=Devices.over(jax.devices()[:num_devices]),
        layout=layout,
        model=TinyNet(),
        tx=tx,
        coasting="none",
        member_mode="vmap",
        source=in_memory.TrainingSet(images, labels(0, N), key=key, **options),
        batch_size=B,
    )
    averages = swa.update(swa.init(start), start)
    passes = runner.reestimate_statistics(
        runner.place(averages, num_members=K), order, epoch=1, first_step=1000, num_members=K
    )
    *_, last = (runner.fetch(averages, num_members=K) for averages in passes)
    ours = last.batch_stats
    for k in range(K):
        params = lp.merge(start.shared, lp.member(start.late_phase, k))
        total = None
        for i, index in enumerate(np.split(order, [16, 32])):
            x = augment.augment(
                augment.example_keys(key, 1000 + i, jnp.asarray(index)), images[index], **options
            )
            _, updated = TinyNet().apply({"params": params}, x, train=True, mutable=["batch_stats"])
            share = len(index) / N
            part = jax.tree.map(lambda s, share=share: s * share, updated["batch_stats"])
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
            lp.member(ours, k),
            total,
        )
