"""Devices are driven by pmap or by shard_map, and nothing else can tell by which."""

import json

import jax
import numpy as np
import pytest
from short_run import DIGITS, SHORT, subset

from lpw_jax.config import load_config
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import train

BACKENDS = ("pmap", "shard_map")


def outcome(folder, backend, num_devices, layout, **options):
    """Weights, and losses and all else of every epoch but its time, of a short run."""
    fields = {
        "train.batch_size": 16,
        "train.crop_padding": 2,
        "late_phase.num_members": 8,
        "late_phase.member_mode": "vmap",  # compiles soonest
        "evaluate.every_epochs": 2,
        "parallel.backend": backend,
        "parallel.layout": layout,
    } | options
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    devices = Devices.over(jax.devices()[:num_devices], backend=backend)
    folder.mkdir()
    # 150 images: a cycle an epoch, and a last batch of the pass after SWA that is short.
    training = train.Training(load_config(DIGITS, [*SHORT, *flags]), subset(150), devices)
    state, _ = training.run(Workdir(folder))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "per_second")
    return state, [{k: v for k, v in line.items() if not k.endswith(timed)} for line in lines]


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "layout"),
    [
        (2, "members"),
        (8, "data"),
    ],
)
def test_a_run_is_the_same_bit_for_bit_by_pmap_and_by_shard_map(num_devices, layout, tmp_path):
    """Release, SWA, evaluation and a short last batch included."""
    one, other = (outcome(tmp_path / name, name, num_devices, layout) for name in BACKENDS)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert [line["phase"] for line in one[1]] == ["tied", "SWA", "SWA"] and "loss" in one[1][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_weights_that_all_devices_have_are_each_devices_own(backend):
    """By its defaults shard_map sums them, and their mean is then too large."""
    devices = Devices.over(jax.devices()[:4], backend=backend)
    grad = jax.grad(lambda weight, x: (weight * x).sum())
    mean = devices.lift(
        lambda weight, x: jax.lax.pmean(grad(weight, x), AXIS), in_axes=(None, 0), out_axes=None
    )
    weight, x = devices.replicate(np.float32(3)), devices.shard(np.arange(4, dtype=np.float32))
    assert mean(weight, x) == 1.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_are_placed_lifted_and_brought_back(backend):
    devices = Devices.over(jax.devices()[:4], backend=backend)
    host = {"a": np.arange(8.0, dtype=np.float32).reshape(4, 2), "b": np.arange(4)}
    placed, factor = devices.shard(host), devices.replicate(np.float32(2))
    host["a"][:] += 1  # the placed ones are copies
    times = devices.lift(
        lambda tree, factor: ({**tree, "a": factor * tree["a"]}, jax.lax.axis_index(AXIS)),
        in_axes=({"a": 0, "b": 0}, None),
        out_axes=(0, 0),
        donate_argnums=(0,),
    )
    found, numbers = devices.unshard(times(placed, factor))
    np.testing.assert_array_equal(found["a"], 2 * (host["a"] - 1))
    np.testing.assert_array_equal(found["b"], host["b"])
    np.testing.assert_array_equal(numbers, np.arange(4))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed))
