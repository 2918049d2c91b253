"""What a configuration resolves to: how members are gone over, from the backend and its memory."""

import functools

import jax
import jax.numpy as jnp
import pytest
from short_run import CONFIGS, DIGITS, subset

from lpw_jax import config_schema, experiment, models, networks, recipe
from lpw_jax.config import load_config
from lpw_jax.data import cifar, imagenet
from lpw_jax.devices import preflight
from lpw_jax.weights.pretrained import PUBLISHED

GB = 10**9


def test_every_network_that_a_config_may_name_is_there():
    names = config_schema._CHOICES["model.name"]
    assert names == models.NAMES and set(names) == {"wide_resnet", *PUBLISHED}
    for name in names:
        assert models.create(name, num_classes=3).num_classes == 3


def test_the_numbers_of_classes_are_those_of_the_data_sets():
    known = {name: spec.num_classes for name, spec in cifar.SPECS.items()}
    known |= {"digits": subset(4).num_classes, "imagenet2012": imagenet.NUM_CLASSES}
    assert known.keys() == set(config_schema._CHOICES["data.name"])
    for name, number in known.items():
        config = load_config(
            DIGITS, [f"--config.data.name={name}", "--config.train.crop_padding=0"]
        )
        assert experiment.num_classes(config) == number


def chosen(mode, *, fits):
    config = load_config(DIGITS, [f"--config.late_phase.member_mode={mode}"])
    return experiment.member_mode(config, lambda: fits)


def test_members_are_scanned_on_the_cpu():
    assert chosen("auto", fits=True) == "scan"


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_members_are_merged_on_accelerators_if_the_memory_suffices(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert chosen("auto", fits=True) == "vmap"
    assert chosen("auto", fits=False) == "scan"


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("mode", ["vmap", "scan", "unroll"])
def test_a_member_mode_that_is_asked_for_is_taken(mode, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert chosen(mode, fits=True) == chosen(mode, fits=False) == mode


@pytest.mark.parametrize(
    ("backend", "mode", "by_hand"),
    [("cpu", "auto", True), ("cpu", "vmap", False), ("gpu", "auto", False)],
)
def test_the_cpus_convolution_is_for_members_in_loops_on_cpus(backend, mode, by_hand, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = load_config(DIGITS, [f"--config.late_phase.member_mode={mode}"])
    model = experiment.build_model(config, num_classes=10)
    assert (model.conv_general_dilated is not None) == by_hand


@pytest.mark.parametrize(
    ("limit", "num_devices"), [(80 * GB, 1), (16 * GB, 8)], ids=["one GPU", "8 TPU cores"]
)
@pytest.mark.parametrize("mode", ["scan", "vmap"])
def test_wrn_28_14_with_ten_members_fits_in_bfloat16(mode, limit, num_devices, monkeypatch):
    """By the estimate, with the margin that 'auto' wants."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = load_config(
        str(CONFIGS / "cifar10_bn.py"),
        ["--config.model.width=14", "--config.train.compute_dtype=bfloat16"],
    )
    batch_size, num_members = config.train.batch_size, config.late_phase.num_members
    assert (config.model.depth, batch_size, num_members) == (28, 128, 10)
    model = experiment.build_model(config, num_classes=10)
    release = functools.partial(recipe.method(config, model).release, num_members=num_members)
    shapes = jax.eval_shape(release, networks.shapes(config, num_classes=10))
    weights = preflight.tree_bytes((shapes.shared, shapes.members))
    assert weights > 4 * 70_000_000 and shapes.members["head"]["bias"].dtype == jnp.float32
    at_once = batch_size // num_devices * (1 if mode == "scan" else num_members)
    activations = preflight.activation_bytes(model, (at_once, 32, 32, 3), platform="gpu")
    cifar = 50_000 * (32 * 32 * 3 + 4)
    estimate = preflight.step_bytes(shapes, activations=activations, data=cifar)
    assert 3 * weights < estimate < limit / preflight.MARGIN
