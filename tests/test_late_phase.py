"""Which weights are late-phase, what a release copies, and what a collapse keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_jit import jit
from tiny_net import PATTERNS, TinyNet, images, released

from lpw_jax import models
from lpw_jax.method import late_phase as lp
from lpw_jax.method import optimizers, state
from lpw_jax.models.layers import BATCH_NORM_EPSILON

pytestmark = pytest.mark.usefixtures("float64")
TX = optimizers.sgd(momentum=0.9, nesterov=True)
BN_AND_HEAD = ("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)")


def random_tree(tree, seed):
    """Positive random leaves (variances must be)."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 2, leaf.shape), tree)


@pytest.fixture
def members(float64):
    start = released(TX, 3)
    return {
        "shared": start.shared,
        "late_phase": random_tree(start.late_phase, 1),
        "batch_stats": random_tree(start.batch_stats, 2),
    }


@jit
def outputs(variables, x):
    return TinyNet().apply(variables, x, train=False)


def copies(tree):
    """Three equal members."""
    return jax.tree.map(lambda leaf: np.stack([leaf] * 3), tree)


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
    shared, late_phase = lp.split(variables["params"], BN_AND_HEAD)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shared, late_phase)]
    assert sum(sizes) == parameters
    assert late is None or sizes[1] == late


def test_merge_undoes_split(members):
    params = lp.merge(members["shared"], lp.member(members["late_phase"], 0))
    shared, late = lp.split(params, PATTERNS)
    assert set(shared) == {"conv1", "conv2"} and set(late) == {"bn1", "bn2", "head"}
    assert jax.tree.all(jax.tree.map(np.array_equal, lp.merge(shared, late), params))


def test_a_pattern_that_matches_nothing_is_an_error(members):
    params = lp.merge(members["shared"], lp.member(members["late_phase"], 0))
    with pytest.raises(ValueError, match="late_phase.patterns.*'norm/scale' matches none"):
        lp.split(params, ("head/.*", "norm/scale"))


def layerwise_mean(weights, x):
    """The reference's averaged model: every late-phase layer returns its members' mean output."""
    shared, late, stats = weights["shared"], weights["late_phase"], weights["batch_stats"]

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


def test_collapse_is_the_mean_of_every_late_phase_layers_output(members):
    x = images(5, 4)
    collapsed = outputs(lp.collapse(**members), x)
    np.testing.assert_allclose(collapsed, layerwise_mean(members, x), rtol=0, atol=1e-12)


def test_collapse_of_equal_members_is_the_member(members):
    x = images(5, 4)
    late, stats = lp.member((members["late_phase"], members["batch_stats"]), 1)
    variables = {"params": lp.merge(members["shared"], late), "batch_stats": stats}
    collapsed = lp.collapse(members["shared"], copies(late), copies(stats))
    np.testing.assert_allclose(outputs(collapsed, x), outputs(variables, x), rtol=0, atol=1e-12)
    shapes = jax.tree.map(lambda leaf: leaf.shape, (collapsed, variables))
    assert shapes[0] == shapes[1]


def test_collapse_with_shared_batch_norm_averages_members_statistics(members):
    """Only the head late-phase: batch norms keep one scale, statistics are still per member."""
    shared = members["shared"] | lp.member(
        {name: members["late_phase"][name] for name in ("bn1", "bn2")}, 0
    )
    late = {"head": members["late_phase"]["head"]}
    x = images(5, 4)
    collapsed = outputs(lp.collapse(shared, late, members["batch_stats"]), x)
    same = copies({name: shared[name] for name in ("bn1", "bn2")})
    expanded = members | {"late_phase": late | same}
    np.testing.assert_allclose(collapsed, layerwise_mean(expanded, x), rtol=0, atol=1e-12)


def tied_state(members):
    return state.create(
        lp.merge(members["shared"], lp.member(members["late_phase"], 0)),
        lp.member(members["batch_stats"], 0),
        patterns=PATTERNS,
        tx=TX,
    )


def test_release_copies_weights_and_statistics_and_empties_momentum(members):
    tied = tied_state(members)
    tied = tied.replace(
        opt_shared=random_tree(tied.opt_shared, 3),
        opt_late=random_tree(tied.opt_late, 4),
        coasting=np.ones((), bool),
    )
    after = state.release(tied, jax.random.key(0), num_members=4, sigma=0.0, tx=TX)
    tied, after = jax.device_get((tied, after))
    for name in ("late_phase", "batch_stats"):
        for old, new in zip(
            *(jax.tree.leaves(getattr(s, name)) for s in (tied, after)), strict=True
        ):
            assert new.shape == (4, *old.shape[1:]) and (new == old).all()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(after.opt_late))
    assert jax.tree.all(jax.tree.map(np.array_equal, after.opt_shared, tied.opt_shared))
    assert not after.coasting


def test_a_release_with_sigma_perturbs_weights_and_copies_statistics(members):
    tied = tied_state(members)
    after = state.release(tied, jax.random.key(0), num_members=3, sigma=0.1, tx=TX)
    late, stats = jax.tree.map(
        lambda leaf: np.repeat(leaf, 3, axis=0), jax.device_get((tied.late_phase, tied.batch_stats))
    )
    noisy = jit(lambda tree: lp.perturb(jax.random.key(0), tree, 0.1))(late)
    for found, expected, copied in zip(
        *map(jax.tree.leaves, (after.late_phase, noisy, late)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        assert np.abs(np.asarray(found) - copied).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, stats)


def test_release_noise_is_scaled_by_each_leafs_rms():
    leaf = {"a": {"kernel": np.full((3, 300, 200), 2.0)}, "b": {"bias": np.zeros((3, 50))}}
    late = jax.device_get(jit(lambda tree: lp.perturb(jax.random.key(0), tree, 0.1))(leaf))
    noise = late["a"]["kernel"] - 2.0
    np.testing.assert_allclose(noise.std((1, 2)), 0.2, rtol=0.02)
    np.testing.assert_allclose(noise.mean((1, 2)), 0.0, atol=0.005)
    correlation = np.corrcoef(noise.reshape(3, -1)) - np.eye(3)
    assert np.abs(correlation).max() < 0.02  # every member has its own noise
    assert (late["b"]["bias"] == 0).all()
