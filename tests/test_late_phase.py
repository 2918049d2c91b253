"""Which weights are late-phase, what a release copies, and what a collapse keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from tiny_net import TinyNet, images, method, released

from lpw_jax import models, networks
from lpw_jax.method.kinds.copies import copies
from lpw_jax.method.kinds.divide import divide
from lpw_jax.method.members import member
from lpw_jax.method.noise import perturb
from lpw_jax.models.layers import BATCH_NORM_EPSILON

pytestmark = pytest.mark.usefixtures("float64")
BN_AND_HEAD = ("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)")


def random_tree(tree, seed):
    """Positive random leaves (variances must be)."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 2, leaf.shape), tree)


@pytest.fixture
def state(float64):
    """Released, of three members that differ."""
    start = released(method(), 3)
    return start.replace(
        members=random_tree(start.members, 1),
        member_model_state=random_tree(start.member_model_state, 2),
    )


@jit
def outputs(network, x):
    params, batch_stats = network
    return TinyNet().apply({"params": params, "batch_stats": batch_stats}, x, train=False)


@pytest.mark.parametrize(
    ("depth", "width", "classes", "parameters", "late"),
    [
        (28, 10, 10, 36_479_194, 24_362),
        (28, 10, 100, 36_536_884, None),
        (28, 14, 10, 71_470_810, None),
        (28, 14, 100, 71_551_540, None),
    ],
)
def test_parameter_counts_are_the_published_ones(depth, width, classes, parameters, late):
    model = models.create("wide_resnet", depth=depth, width=width, num_classes=classes)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables)
    shared, late_phase = divide(variables["params"], [copies(*BN_AND_HEAD)], None)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shared, late_phase)]
    assert sum(sizes) == parameters
    assert late is None or sizes[1] == late


def layerwise_mean(state, x):
    """The reference's averaged model: every late-phase layer returns its members' mean output."""
    shared, late, stats = state.shared, state.members, state.member_model_state

    def conv(x, layer, stride):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], (3, 3), (stride,) * 2, "SAME")
        x = np.pad(x, ((0, 0), *padding, (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]
        y = np.einsum("nyxcij,ijco->nyxo", patches, layer["kernel"])
        return y + layer.get("bias", np.zeros(y.shape[-1])).reshape(1, 1, 1, -1)

    def norm(x, name):
        outputs = []
        for k in range(3):
            mean, var = (stats[name][s][k].reshape(1, 1, 1, -1) for s in ("mean", "var"))
            scale, bias = (late[name][s][k].reshape(1, 1, 1, -1) for s in ("scale", "bias"))
            outputs.append((x - mean) / np.sqrt(var + BATCH_NORM_EPSILON) * scale + bias)
        return np.mean(outputs, 0)

    x = np.maximum(norm(conv(x, shared["conv1"], 2), "bn1"), 0)
    x = np.maximum(norm(conv(x, shared["conv2"], 1), "bn2"), 0).mean((1, 2))
    heads = zip(late["head"]["kernel"], late["head"]["bias"], strict=True)
    return np.mean([x @ kernel + bias for kernel, bias in heads], 0)


def test_collapse_is_the_mean_of_every_late_phase_layers_output(state):
    x = images(5, 4)
    collapsed = outputs(networks.collapse_of(TinyNet())(state), x)
    np.testing.assert_allclose(collapsed, layerwise_mean(state, x), rtol=0, atol=1e-12)


def test_collapse_with_shared_batch_norm_leaves_it_as_it_is():
    """Only the head late-phase: batch norms have one scale and one pair of statistics."""
    start = released(method(patterns=("head/.*",)), 3)
    assert not jax.tree.leaves(start.member_model_state)
    params, batch_stats = networks.collapse_of(TinyNet())(start)
    jax.tree.map(np.testing.assert_array_equal, batch_stats, start.shared_model_state)
    for norm in ("bn1", "bn2"):
        jax.tree.map(np.testing.assert_array_equal, params[norm], start.shared[norm])
    head = jax.tree.map(lambda leaf: leaf.mean(0), start.members["head"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-15), params["head"], head)


def test_release_copies_weights_and_statistics_and_begins_new_optimisers(state):
    tied = method().init(*member(state, 0))
    tied = tied.replace(
        shared_opt_state=random_tree(tied.shared_opt_state, 3), coasting=np.ones((), bool)
    )
    after = method().release(tied, num_members=4)
    tied, after = jax.device_get((tied, after))
    for name in ("members", "member_model_state"):
        for old, new in zip(
            *(jax.tree.leaves(getattr(s, name)) for s in (tied, after)), strict=True
        ):
            assert new.shape == (4, *old.shape[1:]) and (new == old).all()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(after.member_opt_state))
    momentum = {
        jax.tree_util.keystr(p): leaf
        for p, leaf in jax.tree.leaves_with_path(tied.shared_opt_state)
    }
    kept = jax.tree.leaves_with_path(after.shared_opt_state)
    assert len(kept) == len(jax.tree.leaves(after.shared))
    for path, leaf in kept:
        np.testing.assert_array_equal(leaf, momentum[jax.tree_util.keystr(path)])
    assert not after.coasting


def test_a_release_with_sigma_perturbs_weights_and_copies_statistics(state):
    tied = method().init(*member(state, 0))
    after = method().release(tied, jax.random.key(0), num_members=3, sigma=0.1)
    late, stats = jax.tree.map(
        lambda leaf: np.repeat(leaf, 3, axis=0),
        jax.device_get((tied.members, tied.member_model_state)),
    )
    noisy = jit(lambda tree: perturb(jax.random.key(0), tree, 0.1))(late)
    for found, expected, copied in zip(
        *map(jax.tree.leaves, (after.members, noisy, late)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        assert np.abs(np.asarray(found) - copied).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, after.member_model_state, stats)


def test_release_noise_is_scaled_by_each_leafs_rms():
    leaf = {"a": {"kernel": np.full((3, 300, 200), 2.0)}, "b": {"bias": np.zeros((3, 50))}}
    late = jax.device_get(jit(lambda tree: perturb(jax.random.key(0), tree, 0.1))(leaf))
    noise = late["a"]["kernel"] - 2.0
    np.testing.assert_allclose(noise.std((1, 2)), 0.2, rtol=0.02)
    np.testing.assert_allclose(noise.mean((1, 2)), 0.0, atol=0.005)
    correlation = np.corrcoef(noise.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlation).max() < 0.02  # every member has its own noise
    assert (late["b"]["bias"] == 0).all()
