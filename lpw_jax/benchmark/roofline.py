"""How fast a training step can be at most: its operations and bytes, against published peaks."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import linen as nn
from jax.extend import core as jax_core

from lpw_jax.benchmark import counts
from lpw_jax.devices.published_peaks import Peaks

PRECISIONS = ("bfloat16", "tf32", "float32")
_PASSES = ("custom_vjp_call", "add", "reduce_window_max")  # the first: batch norm


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over activations of one image, in training.

    Attributes:
      kind: 'convolution', 'batch norm', 'addition', 'pooling' or 'head'.
      flops: floating-point operations of products.
      values: activations and their gradients that are read or written.
    """

    kind: str
    flops: int
    values: int


def passes(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Pass]:
    """All passes of a training step of one image, from the shapes in the network's own program.

    A convolution has three: forward, gradient of the inputs (not the first one's), gradient of the
    weights, each of which reads or writes inputs and outputs once. Batch norm is computed as
    `layers.BatchNorm` writes it: mean, variance and map read their input, and the map writes; the
    two sums of the backward pass read input and gradient, and so does the gradient of the input,
    which is written: nine values each. An addition (of a shortcut) reads two values and writes one,
    and so does the sum of the two gradients before it. ReLUs are part of the pass before them.
    Weights, of which a minibatch needs one copy, and optimisers are left out.
    """
    model = model.clone(conv_general_dilated=None)
    images = jax.ShapeDtypeStruct((2, *image_shape), model.dtype)  # of one there is no variance
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def forward(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0]

    found, is_first = [], True
    for equation in _equations(jax.make_jaxpr(forward)(variables, images)):
        name, shape = equation.primitive.name, equation.invars[0].aval.shape
        ends = (equation.invars[0], equation.outvars[0])
        size, result = (var.aval.size // images.shape[0] for var in ends)
        if name in ("conv_general_dilated", "dot_general"):
            kind = "convolution" if len(shape) == 4 else "head"
            flops, times = 2 * counts.products(equation), 2 if is_first else 3
            found += times * [Pass(kind, flops, size + result)]
            is_first = False
        elif name == "custom_vjp_call":
            found += [Pass("batch norm", 0, part * size) for part in (1, 1, 2, 2, 3)]
        elif name == "add":
            found += 2 * [Pass("addition", 0, 3 * size)]
        else:
            found += [Pass("pooling", 0, part * (size + result)) for part in (1, 2)]
    return found


def _equations(program: Any) -> Iterator[Any]:
    """Those of a jaxpr, and of what it calls, that are passes over activations [B, H, W, C]."""
    for equation in program.eqns:
        name = equation.primitive.name
        is_product = name in ("conv_general_dilated", "dot_general")
        over_images = any(len(getattr(var.aval, "shape", ())) == 4 for var in equation.invars[:1])
        if is_product or (over_images and name in _PASSES):
            yield equation
        elif not name.startswith("custom_"):
            for inner in jax_core.jaxprs_in_params(equation.params):
                yield from _equations(inner)


def bounds(found: list[Pass], peaks: Peaks, precision: str) -> dict[str, float] | None:
    """Images/s of one device at most; None if it has no such precision.

    Returns:
      operations: with all bytes for nothing.
      fused: with batch norm and additions for nothing, as parts of the convolutions, of which each
        takes the longer of its operations and its bytes.
      passes: with each in passes of its own.
    """
    rate = getattr(peaks, precision)
    if rate is None:
        return None
    width = 2 if precision == "bfloat16" else 4
    seconds = {
        one: max(one.flops / rate, one.values * width / peaks.bandwidth) for one in set(found)
    }
    return {
        "operations": rate / sum(one.flops for one in found),
        "fused": 1 / sum(seconds[one] for one in found if one.flops),
        "passes": 1 / sum(seconds[one] for one in found),
    }


def reached(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """(device_kind, network, precision, images/s of a device) of a benchmark's bare cycles."""
    if "environment" not in results:
        return
    config, made = results["config"], results["environment"]
    model, train = config["model"], config["train"]
    is_wide = model["name"] == "wide_resnet"
    network = f"WRN-{model['depth']}-{model['width']}" if is_wide else model["name"]
    precision = train["compute_dtype"]
    if precision == "float32" and train["matmul_precision"] != "highest":
        precision = "tf32"
    for contender in results.get("step", {}).get("contenders", []):
        if "num_members" in contender and "images_per_second" in contender:
            speed = contender["images_per_second"] / made["num_devices"]
            yield made["device_kind"], network, precision, speed
