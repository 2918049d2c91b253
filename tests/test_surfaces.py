"""Curvature, lines, planes and perturbations against full Hessians and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_net
from jax import jit
from jax.flatten_util import ravel_pytree

from lpw_jax.method.collapse import collapse
from lpw_jax.method.members import member
from lpw_jax.method.trees import stack
from lpw_jax.models import functions
from lpw_jax.models.layers import BATCH_NORM_EPSILON
from lpw_jax.surfaces import hessian, points
from lpw_jax.surfaces.alike import alike, common_statistics
from lpw_jax.tasks import classification

EIGENVALUES = np.array([9.0, 4.0, 3.0, 1.0, 0.5, *np.linspace(-0.3, 0.3, 25)])


def quadratic(seed=0):
    """A symmetric matrix with `EIGENVALUES`."""
    random = np.random.default_rng(seed).standard_normal((len(EIGENVALUES),) * 2)
    basis = np.linalg.qr(random)[0]
    return basis * EIGENVALUES @ basis.T


def of(matrix):
    return lambda vector: matrix @ vector


def test_eigenvalues_of_a_quadratic_are_found_and_bounded_by_their_residuals():
    found = hessian.top_eigenvalues(of(quadratic()), len(EIGENVALUES), count=4, tolerance=0)
    np.testing.assert_allclose(found.values, EIGENVALUES[:4], rtol=1e-10)
    assert found.residuals.max() < 1e-9
    rough = hessian.top_eigenvalues(of(quadratic()), len(EIGENVALUES), count=4, tolerance=0.1)
    assert (np.abs(rough.values - EIGENVALUES[:4]) <= rough.residuals + 1e-12).all()


def test_what_does_not_converge_is_left_out(monkeypatch):
    monkeypatch.setattr(hessian, "_RESTARTS", 1)
    crowded = np.linspace(1, 1 + 1e-6, 2000)
    found = hessian.top_eigenvalues(lambda v: crowded * v, 2000, count=3, tolerance=0)
    assert len(found.values) < 3 and len(found.values) == len(found.residuals)


def test_the_trace_of_a_diagonal_matrix_has_no_error():
    assert hessian.trace(lambda v: EIGENVALUES * v, len(EIGENVALUES), probes=2) == (
        pytest.approx(EIGENVALUES.sum(), abs=1e-12),
        pytest.approx(0, abs=1e-12),
    )


def test_the_trace_is_within_its_standard_error():
    """Of signs z, z'Hz has the variance 2 sum of H_ij^2 over i != j."""
    matrix = quadratic()
    exact = np.sqrt(2 * (np.square(matrix).sum() - np.square(np.diag(matrix)).sum()) / 4000)
    found, error = hessian.trace(of(matrix), len(matrix), probes=4000)
    assert error == pytest.approx(exact, rel=0.05)
    assert abs(found - EIGENVALUES.sum()) < 4 * exact


def tiny_loss():
    """The loss (params, stats) of a network of 171 weights in evaluation mode, and two of them."""
    network = tiny_net.TinyNet(features=(2, 3))
    variables = tiny_net.random_variables(network)
    forward, image, label = functions.forward(network), tiny_net.images(3, 4), tiny_net.labels(4, 4)

    def loss(params, stats):
        return classification.loss(forward(params, stats, image), {"label": label})[0]

    return loss, *functions.divided(variables)


@pytest.mark.slow
def test_a_networks_hessian_is_that_of_jax(float64):
    loss, params, stats = tiny_loss()
    flat, unravel = ravel_pytree(params)
    full = np.asarray(jit(jax.hessian(lambda flat: loss(unravel(flat), stats)))(flat))
    product = hessian.vector_product(loss)

    def times(vector):
        return np.asarray(product(params, vector, stats))

    vector = np.random.default_rng(0).standard_normal(flat.size)
    np.testing.assert_allclose(times(vector), full @ vector, rtol=1e-9, atol=1e-12)
    found = hessian.top_eigenvalues(times, hessian.num_weights(params), count=5, tolerance=0)
    expected = np.linalg.eigvalsh(full)[::-1][:5]
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (3, flat.size))
    each = np.einsum("pi,ij,pj->p", signs, full, signs)
    trace, error = hessian.trace(times, flat.size, probes=3)
    assert trace == pytest.approx(each.mean(), rel=1e-6)
    assert error == pytest.approx(each.std(ddof=1) / np.sqrt(3), rel=1e-6)


@pytest.mark.slow
def test_networks_written_alike_predict_as_before_and_average_to_the_collapsed_one(float64):
    network = tiny_net.TinyNet()
    method = tiny_net.method(network)
    state = tiny_net.released(method, num_members=3)
    forward, image = functions.forward(network), tiny_net.images(5, 4)

    @jit
    def compute(state):
        before = [collapse(state, batch_norm_epsilon=BATCH_NORM_EPSILON)]
        before += [member(state, k) for k in range(3)]
        statistics = common_statistics(state)
        after = [alike(*one, statistics, epsilon=BATCH_NORM_EPSILON) for one in before]
        outputs = [[forward(*one, image) for one in networks] for networks in (before, after)]
        return outputs, stack(after)

    (before, after), (params, stats) = compute(state)
    np.testing.assert_allclose(after, before, rtol=1e-10)
    for leaf in jax.tree.leaves(stats):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    for leaf in jax.tree.leaves(params):
        np.testing.assert_allclose(leaf[0], leaf[1:].mean(0), rtol=1e-10, atol=1e-12)


def test_lines_begin_and_end_at_their_networks():
    networks = {"w": np.arange(12, dtype=np.float32).reshape(3, 4) / 7, "n": np.array([5, 6, 7])}
    on_line = points.line(2, 0, 3, [0, 0.25, 1, 1.5])
    np.testing.assert_allclose(on_line.sum(1), 1)
    found = [points.affine(networks, jnp.float32(row)) for row in on_line]
    first, last = networks["w"][2], networks["w"][0]
    np.testing.assert_array_equal(found[0]["w"], first)
    np.testing.assert_array_equal(found[2]["w"], last)
    np.testing.assert_allclose(found[1]["w"], 0.75 * first + 0.25 * last, rtol=1e-6)
    np.testing.assert_allclose(found[3]["w"], 1.5 * last - 0.5 * first, rtol=1e-5)
    assert all(point["n"] == 5 for point in found)  # a counter is no weight


def test_a_plane_keeps_lengths_and_places_what_is_outside_of_it():
    corners = np.array([[0, 0], [4, 0], [1, 3.0]])  # in their own plane
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 3)))[0].T
    above = np.array([2, 1, 5.0])  # 5 away from the plane
    flat = np.concatenate([corners @ basis[:2], (above @ basis)[None]]) + 0.7
    networks = {"a": flat[:, :2].reshape(4, 2, 1), "b": flat[:, 2:]}
    found = points.plane(networks, (0, 1, 2), side=5, shown=[3])
    np.testing.assert_allclose(found.positions, [*corners, above[:2]], atol=1e-12)
    np.testing.assert_allclose(found.distances, [0, 0, 0, 5], atol=1e-12)
    np.testing.assert_allclose(found.x[[0, -1]], [-1.2, 5.2])
    np.testing.assert_allclose(found.y[[0, -1]], [-0.9, 3.9])
    for row, y in enumerate(found.y):
        for column, x in enumerate(found.x):
            point = found.coefficients[row, column] @ flat
            np.testing.assert_allclose(point, np.array([x, y]) @ basis[:2] + 0.7, atol=1e-12)


@pytest.mark.parametrize("last", [[2.0, 2], [0, 0], [1, 1]])
def test_three_networks_on_a_line_have_no_plane(last):
    with pytest.raises(ValueError, match="networks 0, 1, 2: must not lie on a line"):
        points.plane({"w": np.array([[0.0, 0], [1, 1], last])}, (0, 1, 2), side=3)


def test_perturbations_are_relative_to_each_array(float64):
    random = np.random.default_rng(0)
    params = {"a": random.standard_normal(20_000), "b": 1e-3 * random.standard_normal((200, 100))}
    noisy = jax.jit(points.perturbed)(params, jax.random.key(1), 0.1)
    for name, leaf in params.items():
        relative = np.std(noisy[name] - leaf) / np.sqrt(np.mean(leaf**2))
        assert relative == pytest.approx(0.1, rel=0.03)
    same = jax.jit(points.perturbed)(params, jax.random.key(1), 0.0)
    jax.tree.map(np.testing.assert_array_equal, same, params)
