"""What can be counted without a clock: operations, collectives; and why a child failed."""

import math
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.extend import core as jax_core

_BYTES = {"pred": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
_BYTES |= {f"{sign}{bits}": bits // 8 for sign in "su" for bits in (8, 16, 32, 64)}
_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def training_flops(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Floating-point operations of a training step per image, counted from the layers' shapes.

    Two for each multiplication whose factors are both in the image (not in its padding), in
    convolutions and the head; the backward pass takes as many for the inputs' gradients, which the
    first convolution does not need, and again for the weights'. All else is left out.
    """
    model = model.clone(conv_general_dilated=None)
    images = jax.ShapeDtypeStruct((1, *image_shape), model.dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    first, *others = map(products, _equations(jax.make_jaxpr(model.apply)(variables, images)))
    return 2 * (2 * first + 3 * sum(others))


def _equations(program: Any) -> Iterator[Any]:
    """The convolutions and matrix products of a jaxpr and of what it calls, in their order."""
    for equation in program.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation
        for inner in jax_core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def products(equation: Any) -> int:
    """Multiplications of one equation, on one image."""
    left, right = (var.aval.shape for var in equation.invars)
    if equation.primitive.name == "dot_general":
        return left[-1] * right[-1]
    count = right[-2] * right[-1]  # NHWC images, HWIO kernels
    strides, padding = equation.params["window_strides"], equation.params["padding"]
    for size, taps, stride, (low, high) in zip(left[1:3], right[:2], strides, padding, strict=True):
        outputs = (size + low + high - taps) // stride + 1
        places = [o * stride + tap - low for o in range(outputs) for tap in range(taps)]
        count *= sum(0 <= place < size for place in places)
    return count


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Collectives of a compiled program's text: how many of each kind, and their results' bytes.

    Those in the body of a loop count once.
    """
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for results, kind in _COLLECTIVE.findall(hlo):
        found[kind]["count"] += 1
        for dtype, shape in _ARRAY.findall(results):
            sizes = [int(size) for size in shape.split(",") if size]
            found[kind]["bytes"] += math.prod(sizes) * _BYTES[dtype]
    return dict(found)


def last_line(child: subprocess.CompletedProcess[str]) -> str:
    """What a process said last before it failed."""
    lines = f"{child.stdout}\n{child.stderr}".strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {child.returncode}"
