"""Convolutions whose gradients XLA computes fast on CPUs.

XLA's CPU library runs convolutions of NHWC images with HWIO kernels. The gradients that JAX derives
have other layouts: outside of loops XLA transposes for them, inside of loops it falls back to code
that is tens of times slower, and the weight gradient over a whole minibatch, whose "kernel" is the
minibatch, overflows the caches. Here both gradients are NHWC convolutions themselves, and the
weight gradient is summed over parts of the minibatch. Strided convolutions have gradients without
the zeros of a dilation, and few output channels are computed for two pixels at once.

XLA's library has no convolution of float64: there, products of matrices are faster.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Images whose weight gradient is computed at once: the fastest of 2 to 32 for 3x3 convolutions of
# 16 to 64 channels.
PART = 8
# Output channels up to which pairs of pixels pay: their zeros cost a third, and 16 channels reach
# half of the operations a second that 32 do.
NARROW = 16

Padding = tuple[tuple[int, int], ...]


def _as_flax_wants(convolution: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """What `flax.linen.Conv` takes as its `conv_general_dilated`, in 2-D, ungrouped, undilated.

    Raises:
      ValueError: another kind of convolution is asked for.
    """

    def conv_general_dilated(
        lhs: jax.Array,
        rhs: jax.Array,
        window_strides: Sequence[int],
        padding: str | Sequence[tuple[int, int]],
        lhs_dilation: Sequence[int],
        rhs_dilation: Sequence[int],
        dimension_numbers: lax.ConvDimensionNumbers,
        feature_group_count: int = 1,
        precision: lax.PrecisionLike = None,
        preferred_element_type: jax.typing.DTypeLike | None = None,
    ) -> jax.Array:
        if (
            lhs.ndim != 4
            or feature_group_count != 1
            or {*lhs_dilation, *rhs_dilation} != {1}
            or dimension_numbers != lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        ):
            raise ValueError("convolution on CPUs: must be 2-D, ungrouped, undilated, NHWC")
        if isinstance(padding, str):
            padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
        return convolution(lhs, rhs, tuple(window_strides), tuple(map(tuple, padding)), precision)

    return conv_general_dilated


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, precision):
    return _nhwc(x, kernel, padding=padding, precision=precision, strides=strides)


def _forward(x, kernel, strides, padding, precision):
    return _conv(x, kernel, strides, padding, precision), (x, kernel)


def _backward(strides, padding, precision, saved, grad):
    x, kernel = saved
    sizes = list(
        zip(x.shape[1:3], kernel.shape[:2], grad.shape[1:3], strides, padding, strict=True)
    )
    # Output pixel p meets input pixel p * stride + tap - low.
    if strides == (1, 1) or kernel.shape[:2] == (1, 1):
        back = tuple(
            (taps - 1 - low, size + low - 1 - (outputs - 1) * stride)
            for size, taps, outputs, stride, (low, _) in sizes
        )
        x_grad = _nhwc(
            grad,
            kernel[::-1, ::-1].swapaxes(2, 3),
            padding=back,
            precision=precision,
            lhs_dilation=strides,
        )
    else:
        x_grad = _by_phase(grad, kernel, x.shape[1:3], strides, padding, precision)
    # The transposed images are convolved with the transposed gradient: one output pixel per tap.
    tap = tuple(
        (low, (outputs - 1) * stride + taps - size - low)
        for size, taps, outputs, stride, (low, _) in sizes
    )

    def kernel_grad(x, grad):
        return _nhwc(
            x.transpose(3, 1, 2, 0),
            grad.transpose(1, 2, 0, 3),
            padding=tap,
            precision=precision,
            rhs_dilation=strides,
        ).transpose(1, 2, 0, 3)

    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        pixels, contract = x[:, :: strides[0], :: strides[1]], ((0, 1, 2), (0, 1, 2))
        return x_grad, lax.dot_general(
            pixels, grad, (contract, ((), ())), precision=precision
        ).reshape(kernel.shape)
    whole = len(x) // PART * PART
    total = jnp.zeros(kernel.shape, np.promote_types(kernel.dtype, np.float32))
    if len(x) > whole:
        total += kernel_grad(x[whole:], grad[whole:]).astype(total.dtype)
    if not whole:
        return x_grad, total.astype(kernel.dtype)

    # Sliced, not scanned over: reshaped to parts, the images would be computed once more.
    def add_part(i, total):
        part = [lax.dynamic_slice_in_dim(array, i * PART, PART) for array in (x, grad)]
        return total + kernel_grad(*part).astype(total.dtype)

    total = lax.fori_loop(0, whole // PART, add_part, total)
    return x_grad, total.astype(kernel.dtype)


_conv.defvjp(_forward, _backward)
cpu_conv_general_dilated = _as_flax_wants(_conv)


def _product(x, kernel, strides, padding, precision):
    """The patches of all images, their pixels side by side, times the kernel as one matrix."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (size - taps) // stride * stride + 1
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    patches = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i, j in np.ndindex(kernel.shape[:2])
    ]
    matrix = kernel.reshape(-1, kernel.shape[3])
    return jnp.dot(jnp.concatenate(patches, -1), matrix, precision=precision)


cpu_product_general_dilated = _as_flax_wants(_product)


def on_cpus(dtype: jax.typing.DTypeLike, *, merged: bool) -> Callable[..., jax.Array] | None:
    """What computes the convolutions of a network in `dtype` on CPUs, None for JAX's own.

    Args:
      merged: whether members are vmapped, which makes grouped convolutions of `_conv`'s gradients.
    """
    if np.dtype(dtype) == np.float64:
        return cpu_product_general_dilated
    return None if merged else cpu_conv_general_dilated


def _by_phase(grad, kernel, size, strides, padding, precision):
    """The gradient of the images of a strided convolution, without the zeros of a dilation.

    Input pixel `stride * q + phase` meets output pixel `q + offset` by the tap `phase + low -
    stride * offset`: phases are the channels of one convolution that is as large as the outputs.
    """
    taps, offsets = [], []
    for count, stride, (low, _) in zip(kernel.shape[:2], strides, padding, strict=True):
        phases = np.arange(stride)[:, None]
        first, last = -((count - 1 - low) // stride), (stride - 1 + low) // stride
        tap = phases + low - stride * np.arange(first, last + 1)
        taps.append(np.where((tap >= 0) & (tap < count), tap, count))  # `count` is a zero
        offsets.append((-first, last))
    padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    # From (phase, offset) of rows and of columns, inputs, outputs.
    by_offset = padded[taps[0][:, :, None, None], taps[1]].transpose(1, 3, 5, 0, 2, 4)
    blocks = [-(-pixels // stride) for pixels, stride in zip(size, strides, strict=True)]
    pads = tuple(
        (before, after + count - outputs)
        for (before, after), count, outputs in zip(offsets, blocks, grad.shape[1:3], strict=True)
    )
    y = _nhwc(grad, by_offset.reshape(*by_offset.shape[:3], -1), padding=pads, precision=precision)
    y = y.reshape(len(grad), *blocks, *strides, -1).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(len(grad), blocks[0] * strides[0], blocks[1] * strides[1], -1)
    return y[:, : size[0], : size[1]]


def _nhwc(x, kernel, *, padding, precision, strides=(1, 1), lhs_dilation=(1, 1), rhs_dilation=None):
    if (
        kernel.shape[1] > 1
        and kernel.shape[3] <= NARROW
        and strides == lhs_dilation == (1, 1)
        and rhs_dilation is None
        and not (x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1) % 2
    ):
        # Two neighbouring output pixels are computed as one of twice as many channels.
        pair = [jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in range(2)]
        y = _nhwc(
            x, jnp.concatenate(pair, -1), padding=padding, precision=precision, strides=(1, 2)
        )
        return y.reshape(*y.shape[:2], 2 * y.shape[2], kernel.shape[3])
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=LAYOUT,
        precision=precision,
    )
