"""Statistics that a run re-estimates after SWA."""

import functools

import jax
import numpy as np
import pytest
from jax import jit
from tiny_net import PATTERNS, TinyNet, labels, method, released

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
def seen(patterns):
    """By a plain loop: images in each batch, and what its batch norms see in every member."""
    start = released(method(patterns=patterns), K)
    images, order, key = training_set()

    @jit
    def statistics(step, index, images):
        """Of all members in training mode."""
        x = augment.augment(augment.example_keys(key, step, index), images, **OPTIONS)

        def of_member(k):
            params, _ = member(start, k)
            _, seen = TinyNet().apply({"params": params}, x, train=True, mutable=["batch_stats"])
            return jax.tree.map(lambda found: found.value, seen, is_leaf=is_observed)

        return [of_member(k)["batch_stats"] for k in range(K)]

    return [
        (len(index), jax.device_get(statistics(1000 + i, index, images[index])))
        for i, index in enumerate(np.split(order, [16, 32]))
    ]


def reestimated(patterns, num_devices, num_groups):
    """The state after the program's pass over all images."""
    start = released(method(patterns=patterns), K)
    images, order, key = training_set()
    runner = Runner(
        devices=Devices.over(jax.devices()[:num_devices], backend="shard_map").in_groups(
            num_groups
        ),
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
    return last.state


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), found, expected
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "num_groups"),
    [
        (8, 1),
        (K, K),
        (2 * K, K),
    ],
)
def test_statistics_are_the_size_weighted_mean_over_batches(float64, num_devices, num_groups):
    """All members see all images, the short batch included."""
    state = reestimated(PATTERNS, num_devices, num_groups)
    for k in range(K):
        shares = [
            jax.tree.map(lambda s, size=size: s * size / N, members[k])
            for size, members in seen(PATTERNS)
        ]
        expected = jax.tree.map(lambda *parts: sum(parts), *shares)
        assert_close(jax.tree.map(lambda leaf, k=k: leaf[k], state.member_model_state), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("num_devices", "num_groups"), [(8, 1), (2 * K, K)])
def test_statistics_of_shared_batch_norm_follow_members_in_turn(float64, num_devices, num_groups):
    patterns = ("bn1/.*",)
    running, done = {"mean": 0.0, "var": 0.0}, 0
    for size, members in seen(patterns):
        done += size
        for found in members:
            running = {
                name: old + size / done * (found["bn2"][name] - old)
                for name, old in running.items()
            }
    state = reestimated(patterns, num_devices, num_groups)
    assert_close(state.shared_model_state["bn2"], running)
    assert state.member_model_state["bn2"] == {"mean": None, "var": None}
