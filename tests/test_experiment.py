"""What a configuration resolves to: how members are gone over, from the backend and its memory."""

import functools

import jax
import jax.numpy as jnp
import pytest
from short_run import CONFIGS, DIGITS, subset

from lpw_jax import experiment, models, networks, recipe, registry
from lpw_jax.config import load_config
from lpw_jax.devices import preflight
from lpw_jax.models import convolution
from lpw_jax.weights.pretrained import PUBLISHED

GB = 10**9
TEXT = str(CONFIGS / "text_small.py")


def test_every_network_of_the_registry_is_there():
    assert set(registry.NETWORKS) == {"wide_resnet", "lstm", *PUBLISHED}
    of_text = {"embedding": 2, "batch_size": 1}
    for name in registry.NETWORKS:
        assert models.create(name, num_classes=3, **of_text).num_classes == 3


def test_the_registry_tells_classes_and_shapes_before_data_are_loaded():
    known = {"cifar10": 10, "cifar100": 100, "digits": subset(4).num_classes, "imagenet2012": 1000}
    texts = dict.fromkeys(("enwik8", "python_sources", "text"), 256)
    found = {n: data.num_classes for n, data in registry.DATA.items() if data.is_known}
    assert known | texts == found
    for name, number in found.items():
        file = TEXT if name in texts else DIGITS
        config = load_config(file, [f"--config.data.name={name}", "--config.train.crop_padding=0"])
        assert experiment.num_classes(config) == number
        shape = experiment.image_shape(config)
        if name in texts:
            assert shape == (config.data.sequence_length,)
        else:
            assert shape[0] == (224 if name == "imagenet2012" else 32)


def test_every_loader_of_the_registry_is_there():
    for data in {registry.data("mnist"), registry.data("my.data:load"), *registry.DATA.values()}:
        assert callable(registry.resolve(data.loader, "data.name"))


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
    ("backend", "mode", "dtype", "expected"),
    [
        ("cpu", "auto", "float32", convolution.cpu_conv_general_dilated),
        ("cpu", "vmap", "float32", None),
        ("cpu", "auto", "float64", convolution.cpu_product_general_dilated),
        ("cpu", "vmap", "float64", convolution.cpu_product_general_dilated),
        ("gpu", "auto", "float32", None),
        ("gpu", "auto", "float64", None),
    ],
)
def test_cpus_have_convolutions_for_members_in_loops_and_for_float64(
    backend, mode, dtype, expected, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    fields = f"late_phase.member_mode={mode}", f"train.compute_dtype={dtype}"
    config = load_config(DIGITS, [f"--config.{field}" for field in fields])
    model = experiment.build_model(config, num_classes=10)
    assert model.conv_general_dilated is expected


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
    assert 3 * weights < estimate and preflight.has_room(estimate, int(limit))
