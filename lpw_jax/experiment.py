"""What a configuration describes: its data, its network, its devices."""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import console, models
from lpw_jax import late_phase as lp
from lpw_jax.data import Dataset, in_memory, load_dataset, ood
from lpw_jax.errors import UserError
from lpw_jax.models.convolution import cpu_conv_general_dilated


def build_model(
    config: ConfigDict, num_classes: int, *, member_mode: str | None = None
) -> nn.Module:
    """The network of `config`, without a device axis, to be trained in `member_mode`.

    `member_mode` is by default that of `config`.
    """
    mode = member_mode or config.late_phase.member_mode
    # Merged members would make grouped convolutions of the written-out gradients.
    on_cpu = jax.default_backend() == "cpu" and mode != "vmap"
    return models.create(
        config.model.name,
        depth=config.model.depth,
        width=config.model.width,
        num_classes=num_classes,
        dtype=jnp.dtype(config.train.compute_dtype),
        precision=config.train.matmul_precision,
        conv_general_dilated=cpu_conv_general_dilated if on_cpu else None,
    )


def purpose_key(seed: int, purpose: str) -> jax.Array:
    """Key for one use of randomness: 'init', 'augment' or 'release'."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def build_batch(config: ConfigDict, dataset: Dataset) -> Callable:
    """What a training step sees of `dataset`, as in `in_memory.make_batch`."""
    return in_memory.make_batch(
        key=purpose_key(config.seed, "augment"),
        crop_padding=config.train.crop_padding,
        flip=config.train.flip,
        cutout=config.train.cutout,
        mean=dataset.mean,
        std=dataset.std,
        dtype=jnp.dtype(config.train.compute_dtype),
    )


def check_patterns(config: ConfigDict) -> None:
    """Refuses late-phase patterns that match nothing; needs no data and computes nothing.

    Raises:
      UserError: naming the pattern and the parameters that there are.
    """
    _shapes(config, num_classes=10)


def check_weights(config: ConfigDict, weights: dict[str, Any], num_classes: int, where: str):
    """Refuses weights that are not those of the network of `config`.

    Raises:
      UserError: naming `where` they are from.
    """
    shared, *of_members = _shapes(config, num_classes)
    found = [weights.get(name) for name in ("shared", "late_phase", "batch_stats")]
    if jax.tree.map(jnp.shape, found) != [
        jax.tree.map(lambda leaf: leaf.shape, shared),
        *jax.tree.map(lambda leaf: (lp.num_members(found[1]), *leaf.shape), of_members),
    ]:
        raise UserError(f"{where}: must be weights of the network in config.json, they are not")


def _shapes(config: ConfigDict, num_classes: int) -> tuple[Any, Any, Any]:
    """Shapes of `shared`, and of one member's `late_phase` and `batch_stats`."""
    model = build_model(config, num_classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), model.dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return *lp.split(variables["params"], config.late_phase.patterns), variables["batch_stats"]


def load_data(config: ConfigDict) -> tuple[Dataset, dict[str, np.ndarray]]:
    """The data set, and images of the out-of-distribution sets that are there.

    Raises:
      UserError: data is missing or damaged; an OOD set is missing and `data.require_ood` is set.
    """
    data = config.data
    found, missing = ood.find_ood_sets(
        data.name, data_dir=data.dir, ood_dir=data.ood_dir, download=True
    )
    if missing and data.require_ood:
        raise UserError(
            "data.require_ood = True: "
            + "; ".join(f"OOD set {name} is missing, {remedy}" for name, remedy in missing.items())
        )
    dataset = load_dataset(
        data.name, data_dir=data.dir, validation_examples=data.validation_examples
    )
    for name, remedy in missing.items():
        console.warn(f"OOD set {name} is missing and will not be reported; {remedy}")
    if dataset.unofficial:
        console.warn(f"{data.name}: {dataset.unofficial}; results are marked with it")
    # Read now, so that a damaged archive is known before training.
    ood_images = {name: load() for name, load in found.items()}
    return dataclasses.replace(dataset, note=data.note or dataset.note), ood_images


def member_mode(config: ConfigDict, fits: Callable[[], bool]) -> str:
    """`late_phase.member_mode`, with 'auto' resolved for the default backend.

    On accelerators members are merged if `fits()` says that the memory suffices.
    """
    mode = config.late_phase.member_mode
    if mode != "auto":
        return mode
    return "scan" if jax.default_backend() == "cpu" or not fits() else "vmap"


def layout(config: ConfigDict, num_devices: int) -> str:
    """`parallel.layout` after the release, with 'auto' resolved.

    Members on devices of their own need no batch-norm communication, and reduce the shared
    gradient only.

    Raises:
      UserError: 'members' is asked for and the devices do not divide them.
    """
    asked, num_members = config.parallel.layout, config.late_phase.num_members
    divides = num_members % num_devices == 0
    if asked == "members" and not divides:
        raise UserError(
            "parallel.layout = 'members': late_phase.num_members must be divisible by the number "
            f"of devices, but {num_members} is not by {num_devices}; 'auto' uses 'data' then"
        )
    if asked == "auto":
        return "members" if divides and num_devices > 1 else "data"
    return asked
