"""What can be known before the first step: devices, room on disk, room in memory."""

import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import linen as nn

from lpw_jax.errors import UserError
from lpw_jax.files import storage

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_PLATFORM_NAMES = {"gpu": ("gpu", "cuda", "rocm")}  # others have one name
# Results that stay in memory from the forward to the backward pass: those of convolutions and
# matrix products, and of activation functions (`jax.nn.relu` has its own derivative). Compilers
# compute cheap element-wise arithmetic anew, inside the operation that needs it.
_KEPT = ("conv_general_dilated", "dot_general", "custom_jvp_call", "concatenate")


# What XLA plans is up to this many times the estimate.
_MARGIN = 1.5


def check_devices(*, num_devices: int, platform: str, found: Sequence[jax.Device]) -> None:
    """Refuses other devices than were asked for.

    Args:
      num_devices: `parallel.num_devices`, 0 for any number.
      platform: `parallel.platform`: 'cpu', 'gpu', 'tpu', or '' for any.
      found: all devices, over all hosts.

    Raises:
      UserError: naming the field, what it asks for and what is there.
    """
    kinds = Counter(device.platform for device in found)
    there = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())) or "none"
    if platform and (not kinds or not set(kinds) <= {*_PLATFORM_NAMES.get(platform, (platform,))}):
        raise UserError(
            f"parallel.platform = {platform!r}: must be the kind of the devices, found {there}; "
            f"{_remedy(platform, set(kinds))}, or set parallel.platform = '' to use what is there"
        )
    if num_devices and num_devices != len(found):
        raise UserError(
            f"parallel.num_devices = {num_devices}: must be the number of devices over all hosts, "
            f"found {len(found)} ({there}); set it to {len(found)}, or to 0 to use what is there"
        )


def _remedy(platform: str, found: set[str]) -> str:
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen:
        return f"unset JAX_PLATFORMS, which is {chosen!r}"
    if platform != "cpu" and found == {"cpu"}:
        extra = {"gpu": "cuda"}.get(platform, platform)
        return f"install JAX for it with pip install '.[{extra}]'"
    return f"set JAX_PLATFORMS={'cuda' if platform == 'gpu' else platform} in the environment"


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of `tree`; shapes (`jax.ShapeDtypeStruct`) count like arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def run_bytes(*, checkpoint: Any, weights: Any, keep: int, predictions: int = 0) -> int:
    """Bytes that a run has on disk at most; what is compressed on disk takes less.

    Args:
      checkpoint: tree of arrays or shapes: all that one checkpoint holds, members released.
      weights: likewise, the final weights.
      keep: `checkpoint.keep`; an old checkpoint goes only when the one after it is whole.
      predictions: bytes of the predictions of all test and out-of-distribution images.
    """
    return (keep + 1) * tree_bytes(checkpoint) + tree_bytes(weights) + predictions


def check_disk(path: epath.PathLike, *, num_bytes: int, free: int | None = None) -> None:
    """Refuses a folder whose disk has no room for a run; one with a scheme (gs://) is not checked.

    Args:
      path: the work directory; need not exist. What it holds already counts as part of the run.
      num_bytes: what the run writes, for example from `run_bytes`.
      free: bytes free there; None asks the file system.

    Raises:
      UserError: with the bytes needed and those free.
    """
    if storage.is_remote(path):
        return
    folder = Path(path).absolute()
    if free is None:
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    needed = num_bytes - sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if needed > free:
        raise UserError(
            f"--workdir = {os.fspath(path)!r}: its disk must have room for what the run writes, "
            f"{in_words(needed)}, but {in_words(free)} are free; free some, choose another "
            "folder, or keep fewer checkpoints (checkpoint.keep)"
        )


def activation_bytes(model: nn.Module, image_shape: Sequence[int], *, platform: str) -> int:
    """Estimates what the forward pass of a batch keeps in memory for its backward pass, in bytes.

    Shapes are followed through the network, nothing is computed. Measured against XLA's own plan
    for wide residual networks, ResNet-50 and DenseNet-161 on the CPU: 0.8 to 1.2 times it in
    float32, 0.65 to 1 (wide residual networks only) in bfloat16. Too low in float64 on CPUs.
    Left out: weights and images, gradients of activations (each needed while the backward pass
    frees the rest), work space of convolutions, padding and fragmentation of a device's memory.

    Args:
      model: network without a device axis.
      image_shape: [B, H, W, C] of the images that one device sees at once.
      platform: 'cpu', whose convolutions widen bfloat16 to float32, or another.
    """
    # Whoever computes them, convolutions keep the same (but patches in float64 on CPUs); JAX's own
    # are those it can tell apart.
    if hasattr(model, "conv_general_dilated"):
        model = model.clone(conv_general_dilated=None)
    if platform == "cpu":
        model = model.clone(dtype=np.promote_types(model.dtype, np.float32))
    images = jax.ShapeDtypeStruct(tuple(image_shape), model.dtype)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def kept(params, images):
        def forward(params):
            options = {"mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(0)}}
            return model.apply({"params": params}, images, train=True, **options)

        if getattr(model, "remat", "none") == "none":  # else its blocks say what they keep
            forward = jax.checkpoint(forward, policy=lambda op, *_, **__: op.name in _KEPT)
        return jax.vjp(forward, params, has_aux=True)[1]

    # The function that vjp returns is a tree of what it needs, the arguments among them.
    residuals = _shapes(jax.eval_shape(kept, params, images)) - _shapes((params, images))
    return sum(
        count * math.prod(shape) * dtype.itemsize for (shape, dtype), count in residuals.items()
    )


def _shapes(tree: Any) -> Counter:
    return Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def step_bytes(state: Any, *, activations: int, data: int) -> int:
    """Estimates the memory of one device in a training step, in bytes.

    Args:
      state: `State` of arrays or shapes, as the device holds it: with its K members.
      activations: from `activation_bytes`, of the images whose gradients are computed at once.
      data: bytes of the training set on the device.
    """
    gradients = tree_bytes((state.shared, state.members))
    return tree_bytes(state) + gradients + activations + data


def peak_memory() -> int | None:
    """Most bytes that the fullest own device has held so far, None if JAX does not say.

    On CPUs the most that this process has held, whatever for.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    return None if None in peaks else max(peaks)


def device_memory(device: jax.Device) -> int | None:
    """Bytes that `device` can hold, or None if neither JAX nor the system says.

    CPU devices divide among themselves what is free in the machine now.
    """
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    devices = jax.local_device_count("cpu")
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return 1024 * int(fields["MemAvailable"].split()[0]) // devices
    except (OSError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def has_room(estimate: int, limit: int | None) -> bool:
    """Whether `estimate` bytes are by far less than the `limit` of a device, or that is unknown."""
    return limit is None or _MARGIN * estimate <= limit


def memory_warning(estimate: int, limit: int | None, *, platform: str) -> str:
    """One line if `estimate` bytes are more than the `limit` of a device, otherwise ''."""
    if limit is None or estimate <= limit:
        return ""
    remedies = ["a smaller train.batch_size", "fewer late_phase.num_members"]
    if platform != "cpu":  # whose devices share one memory, and which widens bfloat16
        remedies += ["more devices", "train.compute_dtype = 'bfloat16'"]
    return (
        f"training is estimated to need {in_words(estimate)} of memory on a device, and "
        f"{in_words(limit)} are there; if it fails, try {', '.join(remedies)}"
    )


def in_words(num_bytes: int) -> str:
    """For people: '2.5 GB'."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
