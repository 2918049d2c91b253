"""Trained runs as Python objects."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment
from lpw_jax.data import augment
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint
from lpw_jax.files.workdir import Workdir
from lpw_jax.method import late_phase as lp


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to apply.

    Attributes:
      config: its configuration.
      model: Flax module; `model.apply(collapsed, normalize(images))` gives logits [N, classes].
      collapsed: variables of the one network that the members average to.
      stacked: `shared`, `late_phase` ([K, ...]) and `batch_stats` ([K, ...]) as trained.
      mean, std: of the training data, per channel, on the 0..1 scale.
    """

    config: ConfigDict
    model: nn.Module
    collapsed: dict[str, Any] = dataclasses.field(repr=False)
    stacked: dict[str, Any] = dataclasses.field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, images: np.ndarray) -> jax.Array:
        """uint8 [N, H, W, C] to the network's input.

        Raises:
          UserError: images of another type.
        """
        if images.dtype != np.uint8:
            raise UserError(f"images: must be uint8, 0 to 255, got {images.dtype}")
        return augment.normalize(
            jnp.asarray(images), mean=self.mean, std=self.std, dtype=self.model.dtype
        )

    def member(self, k: int) -> dict[str, Any]:
        """Variables of member `k`.

        Raises:
          UserError: there is no such member.
        """
        num_members = lp.num_members(self.stacked["late_phase"])
        if not 0 <= k < num_members:
            raise UserError(f"k = {k}: must be 0 to {num_members - 1}, the members of this run")
        late, stats = lp.member((self.stacked["late_phase"], self.stacked["batch_stats"]), k)
        return {"params": lp.merge(self.stacked["shared"], late), "batch_stats": stats}


def load_weights(workdir: epath.PathLike, step: int | None = None) -> dict[str, Any]:
    """The weights of a run as plain nested dicts of numpy arrays.

    Args:
      workdir: the run's folder.
      step: number of a checkpoint in it; None for the final weights.

    Returns:
      `shared`, `late_phase` and `batch_stats`, the last two with leaves [K, ...]; of a checkpoint
      the current ones, not those of SWA.

    Raises:
      UserError: there are none, or they are damaged.
    """
    folder = Workdir(workdir)
    if step is None:
        return folder.load_weights()
    state = checkpoint.load_arrays(folder.checkpoints, step)["state"]
    return {name: state[name] for name in ("shared", "late_phase", "batch_stats")}


def load(workdir: epath.PathLike) -> Run:
    """The trained network of a finished run.

    Raises:
      UserError: `workdir` holds no finished training, or one in float64 that JAX would round.
    """
    folder = Workdir(workdir)
    config, results = folder.read_trained()
    config, data = config_lib.from_dict(config), results["data"]
    if config.train.compute_dtype == "float64" and not jax.config.jax_enable_x64:
        raise UserError(
            "train.compute_dtype = 'float64': loading it needs JAX_ENABLE_X64=1 in the environment"
        )
    weights = folder.load_weights()
    experiment.check_weights(config, weights, data["num_classes"], str(folder.path / "weights"))
    return Run(
        config=config,
        model=experiment.build_model(config, data["num_classes"]),
        collapsed=lp.collapse(**weights),
        stacked=weights,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
