"""Which weights are late-phase, what a release copies, and what a collapse keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from quick_jit import jit
from tiny_net import TinyNet, images, member, released

from lpw_jax import models
from lpw_jax.method import noise
from lpw_jax.method.trees import join
from lpw_jax.models import functions
from lpw_jax.models.layers import BATCH_NORM_EPSILON

pytestmark = pytest.mark.usefixtures("float64")
BN_AND_HEAD = ("(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)")
METHOD = tiny_net.method()
collapse = jit(METHOD.collapse)


def random_tree(tree, seed):
    """Positive random leaves (variances must be)."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 2, leaf.shape), tree)


def randomly_released(method):
    """Three members."""
    start = released(method, 3)
    return start.replace(
        members=random_tree(start.members, 1),
        shared_model_state=random_tree(start.shared_model_state, 2),
        member_model_state=random_tree(start.member_model_state, 3),
    )


@jit
def outputs(params, batch_stats, x):
    return TinyNet().apply({"params": params, "batch_stats": batch_stats}, x, train=False)


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
    method = tiny_net.method(model, patterns=BN_AND_HEAD)
    state = jax.eval_shape(method.init, *functions.divided(variables))
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.shared, state.members)
    ]
    assert sum(sizes) == parameters
    assert late is None or sizes[1] == late


def layerwise_mean(shared, late, stats, x):
    """The reference's averaged model: every late-phase layer returns its members' mean output."""

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


def test_collapse_is_the_mean_of_every_late_phase_layers_output():
    state, x = randomly_released(METHOD), images(5, 4)
    wanted = layerwise_mean(state.shared, state.members, state.member_model_state, x)
    np.testing.assert_allclose(outputs(*collapse(state), x), wanted, rtol=0, atol=1e-12)


def test_collapse_of_equal_members_is_the_member():
    state, x = randomly_released(METHOD), images(5, 4)
    own, stats = member((state.members, state.member_model_state), 1)
    network = join(state.shared, own), stats
    collapsed = collapse(state.replace(members=copies(own), member_model_state=copies(stats)))
    np.testing.assert_allclose(outputs(*collapsed, x), outputs(*network, x), rtol=0, atol=1e-12)
    shapes = jax.tree.map(lambda leaf: leaf.shape, (collapsed, network))
    assert shapes[0] == shapes[1]


def test_collapse_leaves_shared_batch_norm_as_it_is():
    """Only the head late-phase: batch norms have one scale and one pair of statistics."""
    state, x = randomly_released(tiny_net.method(patterns=("head/.*",))), images(5, 4)
    assert not jax.tree.leaves(state.member_model_state)
    params, stats = collapse(state)
    jax.tree.map(np.testing.assert_array_equal, stats, state.shared_model_state)
    for name in ("bn1", "bn2"):
        jax.tree.map(np.testing.assert_array_equal, params[name], state.shared[name])
    own = state.members | copies({name: state.shared[name] for name in ("bn1", "bn2")})
    wanted = layerwise_mean(state.shared, own, copies(state.shared_model_state), x)
    np.testing.assert_allclose(outputs(params, stats, x), wanted, rtol=0, atol=1e-12)


def tied_state():
    """With momentum, a head without bias, and coasting that a release must end."""
    variables = tiny_net.random_variables(TinyNet())
    variables["params"]["head"]["bias"][:] = 0
    tied = jax.device_get(jit(METHOD.init)(variables["params"], variables["batch_stats"]))
    return tied.replace(
        shared_opt_state=random_tree(tied.shared_opt_state, 3), coasting=np.ones((), bool)
    )


def test_release_copies_weights_and_statistics_and_empties_momentum():
    tied = tied_state()
    after = jax.device_get(jit(functools.partial(METHOD.release, num_members=4))(tied))
    for name in ("members", "member_model_state"):
        for old, new in zip(
            *(jax.tree.leaves(getattr(s, name)) for s in (tied, after)), strict=True
        ):
            assert new.shape == (4, *old.shape[1:]) and (new == old).all()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(after.member_opt_state))
    # The shared optimiser goes on, without what is members' own now.
    momentum = tied.shared_opt_state.trace
    kept = {name: momentum[name] for name in ("conv1", "conv2")}
    found = after.shared_opt_state.trace
    jax.tree.map(np.testing.assert_array_equal, {name: found[name] for name in kept}, kept)
    assert len(jax.tree.leaves(found)) == len(jax.tree.leaves(kept))
    assert not after.coasting


def test_a_release_with_sigma_perturbs_weights_and_copies_statistics():
    tied = tied_state()
    release = functools.partial(METHOD.release, num_members=3, sigma=0.1)
    after = jax.device_get(jit(release)(tied, jax.random.key(0)))
    own, stats = jax.tree.map(
        lambda leaf: np.repeat(leaf, 3, axis=0), (tied.members, tied.member_model_state)
    )
    noisy = jit(lambda tree: noise.perturb(jax.random.key(0), tree, 0.1))(own)
    for found, expected, copied in zip(
        *map(jax.tree.leaves, (after.members, noisy, own)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        assert np.abs(found - copied).max() > 1e-3 or not copied.any()
    assert not after.members["head"]["bias"].any()  # noise is of the size of what it is added to
    jax.tree.map(np.testing.assert_array_equal, after.member_model_state, stats)
