"""Statistics that a run re-estimates after SWA."""

import functools

import jax
import numpy as np
import pytest
from quick_jit import jit
from tiny_net import TinyNet, labels, method, released

from lpw_jax.data import augment, in_memory
from lpw_jax.devices.parallel import Devices
from lpw_jax.method.average import Average
from lpw_jax.method.members import member
from lpw_jax.method.model_state import is_observed
from lpw_jax.models import functions
from lpw_jax.training.runner import Runner

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
N, B, K = 44, 16, 2  # two full batches and a short one, which 8 devices cannot share
OPTIONS = dict(crop_padding=2, flip=True, cutout=3, mean=MEAN, std=STD, dtype=np.dtype(np.float64))


@functools.cache
def training_set():
    """Images, their order in an epoch, and the seed's key."""
    images = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(N).astype(np.int32)
    return images, order, jax.random.key(3)


@functools.cache
def expected_statistics():
    """By a plain loop over batches: all members see all images, the short batch included."""
    start, (images, order, key) = released(method(), K), training_set()

    @jit
    def statistics(step, index, images):
        """Of all members in training mode."""
        x = augment.augment(augment.example_keys(key, step, index), images, **OPTIONS)

        def of_member(k):
            params, _ = member(start, k)
            _, seen = TinyNet().apply({"params": params}, x, train=True, mutable=["batch_stats"])
            return jax.tree.map(lambda found: found.value, seen, is_leaf=is_observed)

        return [of_member(k)["batch_stats"] for k in range(K)]

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
    start, (images, order, key) = released(method(), K), training_set()
    runner = Runner(
        devices=Devices.over(jax.devices()[:num_devices]),
        layout=layout,
        method=method,
        statistics=lambda axis: functions.statistics(functions.on_axis(TinyNet(), axis)),
        source=in_memory.TrainingSet(images, labels(0, N), key=key, **OPTIONS),
        key=key,
        batch_size=B,
        num_microbatches=1,
        member_mode="vmap",
    )
    average = runner.place_average(Average.start(start).add(start), num_members=K)
    passes = runner.reestimate_statistics(average, order, epoch=1, first_step=1000, num_members=K)
    *_, last = (runner.fetch_average(average, num_members=K) for average in passes)
    for k, expected in enumerate(expected_statistics()):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12),
            jax.tree.map(lambda leaf, k=k: leaf[k], last.state.member_model_state),
            expected,
        )
