"""What a configuration describes: its data, its network, its devices."""

import dataclasses
import pathlib
import sys
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import late_phase as lp
from lpw_jax import models
from lpw_jax.data import Dataset, in_memory, load_dataset, ood
from lpw_jax.errors import UserError


def build_model(config: ConfigDict, num_classes: int) -> nn.Module:
    """The network of `config`, without a device axis."""
    return models.create(
        config.model.name,
        depth=config.model.depth,
        width=config.model.width,
        num_classes=num_classes,
        dtype=jnp.dtype(config.train.compute_dtype),
        precision=config.train.matmul_precision,
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
    model = build_model(config, num_classes=10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), model.dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    lp.split(variables["params"], config.late_phase.patterns)


def load_data(config: ConfigDict) -> tuple[Dataset, dict[str, np.ndarray]]:
    """The data set, and images of the out-of-distribution sets that are there.

    Raises:
      UserError: data is missing or damaged; an OOD set is missing and `data.require_ood` is set.
    """
    data = config.data
    if data.ood_dir and not pathlib.Path(data.ood_dir).expanduser().is_dir():
        raise UserError(f"data.ood_dir = {data.ood_dir!r}: must be a folder, or '' for none")
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
        message = f"warning: OOD set {name} is missing and will not be reported; {remedy}"
        print(message, file=sys.stderr)
    # Read now, so that a damaged archive is known before training.
    ood_images = {name: load() for name, load in found.items()}
    return dataclasses.replace(dataset, note=data.note or dataset.note), ood_images


def member_mode(config: ConfigDict) -> str:
    """`late_phase.member_mode`, with 'auto' resolved for the default backend."""
    mode = config.late_phase.member_mode
    if mode != "auto":
        return mode
    return "unroll" if jax.default_backend() == "cpu" else "vmap"
