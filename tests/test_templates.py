"""Mixtures of templates: how banks and coefficients begin, and what weights they make."""

import jax
import numpy as np
import optax
import pytest
import small_models
from jax import jit

import lpw_jax
from lpw_jax.method.kinds.part import Places
from lpw_jax.method.kinds.templates import Coefficients


def made(params, *layers):
    kind = lpw_jax.templates(*layers)
    return jax.device_get(jit(lambda key: kind.make(params, key))(jax.random.key(0)))


@pytest.fixture(scope="module")
def mixtures():
    """Shared banks and coefficients of many layers, by path."""
    shapes = dict(
        a=(2, 4, 3),
        b=(2, 8, 3),
        c=(2, 4, 3),
        d=(2, 4, 3),
        e=(2, 8, 3),
        f=(4, 3),
        g=(4, 3),
        h=(9, 8, 40),
    )
    with jax.enable_x64(True):
        return made(
            {path: np.zeros(shape) for path, shape in shapes.items()},
            lpw_jax.mixed("a", "c", "d", num_templates=5),
            lpw_jax.mixed("b", "e", num_templates=5, split=2),
            lpw_jax.mixed("f", num_templates=2),
            lpw_jax.mixed("g", num_templates=3),
            lpw_jax.mixed("h", num_templates=30, split=2),
        )


def test_weights_of_templates_are_the_published_sums(float64):
    random = np.random.default_rng(0)
    bank = random.standard_normal((3, 3, 4, 5, 6))  # [y, x, in / S, out, T]
    values = random.standard_normal((6, 2))
    weight = jit(lambda part: part.combine(None, Places({"bank": bank}.get, {}.get)))(
        Coefficients(values, "bank")
    )
    assert weight.shape == (3, 3, 8, 5)
    for j in range(4):
        for s in range(2):
            np.testing.assert_allclose(weight[:, :, j * 2 + s], bank[:, :, j] @ values[:, s])


def test_layers_of_equal_template_shapes_and_numbers_share_one_bank(mixtures):
    banks = {path: own.bank for path, (_, own) in mixtures.items()}
    assert banks == dict(a="a", b="a", c="a", d="a", e="a", f="f", g="g", h="h")
    shapes = {path: bank.shape for path, (bank, _) in mixtures.items() if bank is not None}
    assert shapes == dict(a=(2, 4, 3, 5), f=(4, 3, 2), g=(4, 3, 3), h=(9, 4, 40, 30))
    shapes = {path: own.values.shape for path, (_, own) in mixtures.items()}
    one, two = (5, 1), (5, 2)
    assert shapes == dict(a=one, b=two, c=one, d=one, e=two, f=(2, 1), g=(3, 1), h=(30, 2))


def test_coefficients_are_orthogonal_between_layers_and_their_columns_of_norm_one(mixtures):
    for paths in ("acd", "be", "f", "h"):  # of one bank and shape
        values = np.stack([mixtures[path][1].values for path in paths])
        np.testing.assert_allclose(np.linalg.norm(values, axis=1).mean(1), 1)
        rows = values.reshape(len(values), -1)
        products = rows @ rows.T
        np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-13)


def test_templates_start_he_normal_of_the_whole_layer(mixtures):
    bank, _ = mixtures["h"]
    np.testing.assert_allclose(bank.std(), np.sqrt(2 / (9 * 8)), rtol=0.02)
    np.testing.assert_allclose(bank.mean(), 0, atol=0.01)


@pytest.mark.slow
def test_templates_do_not_depend_on_the_order_of_arguments(float64):
    params = {"l0": np.zeros((4, 3)), "l1": np.zeros((6, 3))}
    some, others = (lpw_jax.mixed(name, num_templates=2) for name in ("l0", "l1"))
    jax.tree.map(
        np.testing.assert_array_equal, made(params, some, others), made(params, others, some)
    )


def test_a_shared_mixture_has_one_weight_and_one_bias_for_all_members(float64):
    params = {"a": {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}, "b": np.zeros((4, 3))}
    kind = lpw_jax.templates(
        lpw_jax.mixed("a/kernel", num_templates=2, biases=True, late_phase=False),
        lpw_jax.mixed("b", num_templates=2),
    )
    method = lpw_jax.LatePhase(lambda *_: None, kind, optax.sgd(0.1), optax.sgd(0.1))
    state = small_models.released(method, 3, params, key=jax.random.key(0))
    shared, bias = state.shared["a"]["kernel"], np.arange(6.0).reshape(3, 2)
    state.shared["a"]["bias"] = bias
    (params, _), values = jit(lpw_jax.members)(state), shared.coefficients.values[:, 0]
    for k, own in enumerate(state.members["b"].values[..., 0]):
        np.testing.assert_allclose(params["a"]["kernel"][k], shared.templates @ values)
        np.testing.assert_allclose(params["a"]["bias"][k], bias @ values)
        np.testing.assert_allclose(params["b"][k], shared.templates @ own)


def test_a_weight_has_one_mixture_only():
    both = (lpw_jax.mixed("l0", num_templates=2), lpw_jax.mixed("l.", num_templates=3))
    with pytest.raises(ValueError, match="'l0' is chosen by two calls of `mixed`"):
        lpw_jax.templates(*both).make({"l0": np.zeros((4, 3))}, jax.random.key(0))
