"""Weight averages and re-estimated statistics."""

import functools

import jax
import numpy as np
import pytest
from quick_jit import jit
from tiny_net import TinyNet, labels, released

from lpw_jax.data import augment, in_memory
from lpw_jax.devices.parallel import Devices
from lpw_jax.method import late_phase as lp
from lpw_jax.method import optimizers, swa
from lpw_jax.training.runner import Runner

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
N, B, K = 44, 16, 2  # two full batches and a short one, which 8 devices cannot share
TX = optimizers.sgd(momentum=0.9, nesterov=True)
OPTIONS = dict(crop_padding=2, flip=True, cutout=3, mean=MEAN, std=STD, dtype=np.dtype(np.float64))


def test_averages_are_means_over_epochs(float64):
    start = released(TX, K)
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
    averages = jax.device_get(averages)
    assert int(averages.count) == 3
    for name in ("shared", "late_phase"):
        mean = jax.tree.map(lambda *x: sum(x) / 3, *(getattr(epoch, name) for epoch in epochs))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), getattr(averages, name), mean
        )


@functools.cache
def training_set():
    """Images, their order in an epoch, and the seed's key."""
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(N).astype(np.int32)
    return images, order, jax.random.key(3)


@functools.cache
def expected_statistics():
    """By a plain loop over batches: all members see all images, the short batch included."""
    start, (images, order, key) = released(TX, K), training_set()

    @jit
    def statistics(step, index, images):
        """Of all members in training mode."""
        x = augment.augment(augment.example_keys(key, step, index), images, **OPTIONS)

        def of_member(late):
            params = lp.merge(start.shared, late)
            return TinyNet().apply({"params": params}, x, train=True, mutable=["batch_stats"])[1]

        return [of_member(lp.member(start.late_phase, k))["batch_stats"] for k in range(K)]

    total = None
    for i, index in enumerate(np.split(order, [16, 32])):
        found = jax.device_get(statistics(1000 + i, index, images[index]))
        share = len(index) / N
        part = jax.tree.map(lambda s, share=share: s * share, found)
        total = part if total is None else jax.tree.map(np.add, total, part)
    return total


@pytest.mark.parametrize(
    ("num_devices", "layout"),
    [pytest.param(1, "data", marks=pytest.mark.slow), (8, "data"), (K, "members")],
)
def test_statistics_are_the_size_weighted_mean_over_batches(float64, num_devices, layout):
    start, (images, order, key) = released(TX, K), training_set()
    runner = Runner(
        devices=Devices.over(jax.devices()[:num_devices]),
        layout=layout,
        model=TinyNet(),
        tx=TX,
        coasting="none",
        member_mode="vmap",
        source=in_memory.TrainingSet(images, labels(0, N), key=key, **OPTIONS),
        batch_size=B,
    )
    averages = swa.update(swa.init(start), start)
    passes = runner.reestimate_statistics(
        runner.place(averages, num_members=K), order, epoch=1, first_step=1000, num_members=K
    )
    *_, last = (runner.fetch(averages, num_members=K) for averages in passes)
    for k, expected in enumerate(expected_statistics()):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
            lp.member(last.batch_stats, k),
            expected,
        )
