"""The CPU's convolutions are XLA's, in value and gradients, and gradients have fast layouts."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from lpw_jax.models.convolution import (
    LAYOUT,
    PART,
    cpu_conv_general_dilated,
    cpu_product_general_dilated,
)

KERNELS, STRIDES = [1, 3, 5], [(1, 1), (2, 2), (2, 1), (3, 3)]
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((1, 2), (0, 1))]
SIZES = [(8, 7), (9, 6)]
UNDILATED = (1, 1)


def plain(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT, precision="highest"
    )


def ours(x, kernel, strides, padding, convolution=cpu_conv_general_dilated):
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)
    return convolution(
        x, kernel, strides, padding, UNDILATED, UNDILATED, numbers, precision="highest"
    )


product = functools.partial(ours, convolution=cpu_product_general_dilated)


def assert_equal(*cases):
    """Value and gradients, to rounding of the largest value, of all convolutions in every case.

    Cases are ((convolution, ...), operands), compiled as one program.
    """
    random = np.random.default_rng(1)
    along = [
        random.standard_normal(jax.eval_shape(convolutions[0], *operands).shape)
        for convolutions, operands in cases
    ]

    @jit
    def results(along, operands):
        def of(convolution, along, operands):
            value, gradients = jax.vjp(convolution, *operands)
            return value, *gradients(along)

        return [
            [of(convolution, *arguments) for convolution in convolutions]
            for (convolutions, _), *arguments in zip(cases, along, operands, strict=True)
        ]

    for i, found in enumerate(jax.device_get(results(along, [own for _, own in cases]))):
        *others, expected = found
        for other in others:
            jax.tree.map(lambda a, b, i=i: assert_close(a, b, f"case {i}"), other, expected)


def assert_close(found, expected, case):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tolerance = 1e-12 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=case)


def operands(batch, size, taps, *, channels=(3, 4)):
    random = np.random.default_rng(0)
    return random.standard_normal((batch, *size, channels[0])), random.standard_normal(
        (taps, taps, *channels)
    )


def all_of(strides, padding):
    return [lambda *xk, conv=conv: conv(*xk, strides, padding) for conv in (ours, product, plain)]


@pytest.mark.parametrize(("i", "taps"), list(enumerate(KERNELS)))
def test_value_and_gradients_are_xlas(float64, i, taps):
    """Among the three, every pair of kernel size, strides, padding and images' size."""
    cases = []
    for j, strides in enumerate(STRIDES):
        padding, size = PADDINGS[(i + j) % 3], SIZES[(i + j) % 2]
        cases.append((all_of(strides, padding), operands(PART + 1, size, taps)))
    assert_equal(*cases)


@pytest.mark.parametrize(
    ("taps", "batches"),
    [(3, [1, PART - 1, PART]), (3, [3 * PART, 3 * PART + 1, 4 * PART - 1]), (1, [1, 3 * PART + 1])],
)
def test_the_batch_may_have_any_size(float64, taps, batches):
    convolutions = all_of((2, 2), PADDINGS[1])
    assert_equal(*((convolutions, operands(batch, (6, 5), taps)) for batch in batches))


def test_bfloat16_gradients_are_the_float32_ones_rounded_once():
    x, kernel = operands(64 * PART, (4, 4), 3)
    along = np.random.default_rng(1).standard_normal((len(x), 4, 4, 4))
    # Of one sign: sums grow, and sums in bfloat16 would lose the last parts.
    along, x, kernel = (np.abs(a).astype(jnp.bfloat16) for a in (along, x, kernel))

    @jit
    def gradients(along, *operands):
        return jax.vjp(lambda *xk: ours(*xk, (1, 1), PADDINGS[1]), *operands)[1](along)

    wide = gradients(*(a.astype(np.float32) for a in (along, x, kernel)))
    narrow = gradients(along, x, kernel)
    for found, expected in zip(*jax.device_get((narrow, wide)), strict=True):
        assert found.dtype == jnp.bfloat16
        error = np.abs(found.astype(np.float32) - expected).max()
        assert error < 2**-8 * np.abs(expected).max()  # a bfloat16 has 8 bits


def test_flax_takes_it_as_its_convolution(float64):
    x, kernel = operands(PART + 3, (7, 8), 3)
    params = {"params": {"kernel": kernel, "bias": np.arange(4.0)}}
    cases = []
    for options in ({}, {"strides": 2, "padding": 1}, {"padding": "VALID"}):
        options |= dict(features=4, kernel_size=(3, 3), dtype=jnp.float64, param_dtype=jnp.float64)
        layers = [
            nn.Conv(**options, conv_general_dilated=convolution)
            for convolution in (cpu_conv_general_dilated, cpu_product_general_dilated, None)
        ]
        cases.append(
            ([lambda x, p, layer=layer: layer.apply(p, x) for layer in layers], (x, params))
        )
    assert_equal(*cases)


@pytest.mark.parametrize(
    "options",
    [{"feature_group_count": 3}, {"kernel_dilation": 2}, {"input_dilation": 2}, {"kernel_size": 3}],
)
def test_other_convolutions_of_flax_are_refused(options):
    options = {"features": 6, "kernel_size": (3, 3)} | options
    shape = (2, 6, 6, 3)[: 4 if options["kernel_size"] != 3 else 3]
    layer = nn.Conv(**options, conv_general_dilated=cpu_conv_general_dilated)
    with pytest.raises(ValueError, match="convolution on CPUs: must be 2-D, ungrouped"):
        jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros(shape))


def test_a_product_merges_members(float64):
    """Their images are one batch, and the gradient of their sum is a product too."""
    x, kernel = operands(2 * 3, (6, 5), 3)
    members = x.reshape(2, 3, *x.shape[1:])

    def total(convolution, kernel):
        def member(x):
            return jnp.square(convolution(x, kernel, (2, 1), PADDINGS[1])).sum()

        return jax.vmap(member)(members).sum()

    program = jax.jit(jax.grad(functools.partial(total, product)))
    assert not layouts(program.lower(kernel).as_text("hlo"))
    assert_close(program(kernel), jit(jax.grad(functools.partial(total, plain)))(kernel), "")


def test_another_layout_is_refused():
    x, kernel = np.zeros((2, 3, 8, 8)), np.zeros((4, 3, 3, 3))
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NCHW", "OIHW", "NCHW"))
    with pytest.raises(ValueError, match="NHWC"):
        cpu_conv_general_dilated(x, kernel, (1, 1), PADDINGS[0], UNDILATED, UNDILATED, numbers)


def gradients_in_a_loop(convolution):
    """HLO, as XLA gets it, of the gradient inside `jax.lax.scan`."""
    x, kernel = operands(2 * PART + 1, (8, 8), 3)

    def loss(x, kernel):
        return jnp.square(convolution(x, kernel, (2, 2), PADDINGS[1])).sum()

    def body(total, x):
        return total, jax.grad(loss, argnums=(0, 1))(x, kernel)

    return jax.jit(lambda x: jax.lax.scan(body, 0, x)).lower(np.stack([x, x])).as_text("hlo")


def layouts(hlo):
    return re.findall(r"convolution\(.*?dim_labels=([\w>-]+)", hlo)


def test_gradients_in_a_loop_are_convolutions_of_the_fast_layout():
    found = layouts(gradients_in_a_loop(ours))
    # Forward, images' gradient, kernel's gradient of whole parts and of the rest.
    assert len(found) == 4 and set(found) == {"b01f_01io->b01f"}
    assert set(layouts(gradients_in_a_loop(plain))) != {"b01f_01io->b01f"}


def test_no_zeros_of_a_dilation_are_multiplied(float64):
    """The images' gradient under strides has the outputs' size, and all phases as channels."""
    x, kernel = operands(PART, (8, 8), 3)
    gradient = jax.grad(lambda x: jnp.square(ours(x, kernel, (2, 2), PADDINGS[1])).sum())
    hlo = jax.jit(gradient).lower(x).as_text("hlo")
    assert len(layouts(hlo)) == 2 and "lhs_dilate" not in hlo


@pytest.mark.parametrize(("outputs", "width", "pairs"), [(16, 8, 1), (17, 8, 0), (16, 7, 0)])
def test_few_channels_are_computed_for_two_pixels_at_once(float64, outputs, width, pairs):
    x, kernel = operands(2, (4, width), 3, channels=(3, outputs))
    program = jax.jit(lambda *xk: ours(*xk, (1, 1), PADDINGS[1])).lower(x, kernel)
    assert program.as_text("hlo").count("stride=1x2") == pairs
    assert_equal((all_of((1, 1), PADDINGS[1]), (x, kernel)))


def test_a_weight_gradient_takes_the_images_that_the_forward_pass_took(float64):
    """They lie in memory once: in a compiled program one operation makes them, not one a use."""
    x, kernel = operands(2 * PART, (8, 8), 3, channels=(4, 4))

    def loss(kernel):
        images = jnp.tanh(x * kernel[:1, :1, :1, :1])
        return jnp.square(ours(images, kernel, (1, 1), PADDINGS[1])).sum()

    program = jax.jit(jax.grad(loss)).lower(kernel).compile().as_text()
    assert len(re.findall(r"f64\[16,8,8,4\]\S* tanh\(", program)) == 1
    assert not re.search(r"f64\[2,8,8,8,4\]", program)  # in parts
