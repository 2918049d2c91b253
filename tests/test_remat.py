"""What is computed anew in the backward pass changes memory, and nothing else."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from jax import jit
from short_run import DIGITS

from lpw_jax import experiment
from lpw_jax.config import load_config
from lpw_jax.devices import preflight
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.errors import UserError
from lpw_jax.method.kinds.rank_one import rank_one
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.models import functions
from lpw_jax.models.densenet import DenseNet
from lpw_jax.models.resnet import ResNet
from lpw_jax.models.wide_resnet import WideResNet
from lpw_jax.tasks import classification

NETWORKS = {
    "wide_resnet": functools.partial(WideResNet, depth=10, width=1),
    "resnet": functools.partial(ResNet, stage_sizes=(1, 1)),
    "densenet": functools.partial(DenseNet, stage_sizes=(2, 1), growth=4, features_in=8),
}
SHAPE = (16, 16, 3)


def network(name, remat, dtype=jnp.float64):
    return NETWORKS[name](num_classes=tiny_net.CLASSES, dtype=dtype, remat=remat)


def trained(model, variables, batch):
    """Loss, gradients and what batch norm saw."""
    loss_fn = functions.training_loss(model, classification.loss)
    stats = variables["batch_stats"]
    return jax.value_and_grad(loss_fn, has_aux=True)(variables["params"], stats, batch, None)


def batch_of(size):
    images = np.random.default_rng(0).standard_normal((size, *SHAPE))
    return {"image": images, "label": tiny_net.labels(0, size)}


@pytest.mark.parametrize(
    "name",
    ["wide_resnet", *(pytest.param(x, marks=pytest.mark.slow) for x in ("resnet", "densenet"))],
)
def test_gradients_and_statistics_are_the_same(float64, name):
    batch = batch_of(4)
    variables = tiny_net.random_variables(network(name, "none"), SHAPE)
    one, other = (
        jit(functools.partial(trained, network(name, remat)))(variables, batch)
        for remat in ("none", "batch_norm")
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12 * max(np.abs(a).max(), 1e-3))


@pytest.mark.parametrize(
    ("name", "sizes", "most"),
    [
        ("wide_resnet", dict(depth=16, width=2), 0.5),
        ("resnet", dict(stage_sizes=(3, 3)), 0.95),
        ("densenet", dict(stage_sizes=(4, 4), growth=8, features_in=16), 0.85),
    ],
)
def test_less_is_kept_for_the_backward_pass(name, sizes, most):
    """By shapes: what the vector-Jacobian product of the forward pass holds."""
    kept = {
        remat: preflight.activation_bytes(
            NETWORKS[name](num_classes=5, remat=remat, **sizes), (8, 32, 32, 3), platform="gpu"
        )
        for remat in ("none", "batch_norm")
    }
    assert 0 < kept["batch_norm"] < most * kept["none"]


def test_no_convolution_is_repeated_and_of_communication_only_batch_norms_statistics():
    devices, model = Devices.over(jax.devices()[:2]), network("wide_resnet", "none", jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    batch = {
        "image": jax.ShapeDtypeStruct((2, 4, *SHAPE), jnp.float32),
        "label": jax.ShapeDtypeStruct((2, 4), jnp.int32),
    }

    def count(remat):
        model = functions.on_axis(network("wide_resnet", remat, jnp.float32), AXIS)
        step = devices.lift(functools.partial(trained, model), in_axes=(None, 0), out_axes=0)
        text = step.lower(variables, batch).as_text()
        return [len(re.findall(f"stablehlo.{op}", text)) for op in ("convolution", "all_reduce")]

    norms = len(jax.tree.leaves(variables["batch_stats"])) // 2
    convolutions, sums = count("none")
    assert convolutions > 20 and sums > 20
    # Mean and variance of all but the last batch norm, which is in no block.
    assert count("batch_norm") == [convolutions, sums + 2 * (norms - 1)]


def test_rank_one_factors_act_on_activations_inside_of_blocks():
    def shapes(remat):
        method = LatePhase(
            functions.training_loss(
                network("wide_resnet", remat, jnp.float32), classification.loss
            ),
            rank_one("(?!head/).*kernel", on_activations=True),
            *[tiny_net.method().shared_optimizer] * 2,
        )

        def train(images, key):
            variables = network("wide_resnet", remat, jnp.float32).init(key, images)
            state = method.init(variables["params"], variables["batch_stats"], key=key)
            batch = {"image": images[None], "label": jnp.zeros((1, 4), jnp.int32)}
            args = {"learning_rate": 0.1, "weight_decay": 0.0}
            return method.step(state, batch, shared_args=args, member_args=args)

        return jax.eval_shape(train, jnp.zeros((4, *SHAPE)), jax.random.key(0))

    assert shapes("none") == shapes("batch_norm")


def test_the_configs_field_reaches_the_network_and_others_than_ours_must_take_it():
    config = load_config(DIGITS, ["--config.train.remat=batch_norm"])
    assert experiment.build_model(config, 10).remat == "batch_norm"
    config = load_config(
        DIGITS, ["--config.train.remat=batch_norm", "--config.model.name=own_modules:plain"]
    )
    with pytest.raises(UserError, match="train.remat = 'batch_norm': must be 'none' for 'own_mod"):
        experiment.build_model(config, 10)
