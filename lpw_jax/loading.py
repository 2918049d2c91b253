"""Trained runs as Python objects."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import experiment, networks
from lpw_jax.data import augment
from lpw_jax.data.dataset import check_scale
from lpw_jax.devices import parallel
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.arguments import described
from lpw_jax.method.members import member
from lpw_jax.method.state import State
from lpw_jax.weights import soundness


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to apply.

    Attributes:
      config: its configuration.
      model: a flax.linen module, or `models.OwnNetwork`, which is called as one;
        `model.apply(collapsed, normalize(images))` gives logits [N, classes].
      collapsed: variables of the one network that the members average to.
      stacked: what was trained, as in `load_weights`.
      mean, std: of the training data, per channel, on the 0..1 scale.
    """

    config: ConfigDict
    model: nn.Module
    collapsed: dict[str, Any] = dataclasses.field(repr=False)
    stacked: dict[str, Any] = dataclasses.field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _state: State = dataclasses.field(repr=False)

    @property
    def num_members(self) -> int:
        """K."""
        return self._state.num_members

    @property
    def banks(self) -> dict[str, str]:
        """As in `networks.banks`."""
        return networks.banks(self._state)

    def normalize(self, images: np.ndarray) -> jax.Array:
        """uint8 [N, H, W, C] to the network's input.

        Raises:
          UserError: images of another type or shape.
        """
        channels = len(self.mean)
        shape: tuple[int, ...] = getattr(images, "shape", ())
        is_uint8 = getattr(images, "dtype", None) == np.uint8
        if not is_uint8 or len(shape) != 4 or shape[3] != channels:
            raise UserError(
                f"images: must be [N, H, W, {channels}] uint8, 0 to 255, got {described(images)}"
            )
        return augment.normalize(
            jnp.asarray(images), mean=self.mean, std=self.std, dtype=self.model.dtype
        )

    def member(self, k: int) -> dict[str, Any]:
        """Variables of member `k`.

        Raises:
          UserError: there is no such member.
        """
        try:
            params, batch_stats = member(self._state, k)
        except (IndexError, TypeError) as error:
            last = self._state.num_members - 1
            raise UserError(f"k = {k!r}: must be 0 to {last}, the members of this run") from error
        return {"params": params, "batch_stats": batch_stats}


def load_weights(workdir: epath.PathLike, step: int | None = None) -> dict[str, Any]:
    """The weights of a run as plain nested dicts of numpy arrays.

    Args:
      workdir: the run's folder.
      step: number of a checkpoint in it; None for the final weights.

    Returns:
      `shared`, and with leaves [K, ...] `late_phase` and `batch_stats`; where batch norm is shared,
      `shared_batch_stats`. Of a checkpoint the current ones, not those of SWA.

    Raises:
      UserError: there are none, or they are damaged, or not those of a trained network.
    """
    folder = Workdir(workdir)
    if step is None:
        return folder.load_weights()
    state = checkpoint.load_arrays(folder.checkpoints, step)["state"]
    weights = networks.weights_of_nested(state)
    soundness.check(folder.checkpoints / str(step), weights)
    return weights


def load(workdir: epath.PathLike) -> Run:
    """The trained network of a finished run.

    Raises:
      UserError: `workdir` holds no finished training, or one in float64 that JAX would round.
    """
    folder = Workdir(workdir)
    config, results = folder.read_trained()
    data = results.data
    x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    if config.train.compute_dtype == "float64" and not x64:
        raise UserError(
            "train.compute_dtype = 'float64': loading it needs JAX_ENABLE_X64=1 in the environment"
        )
    parallel.found()
    weights = folder.load_weights()
    where, model = str(folder.path / "weights"), experiment.build_model(config, data.num_classes)
    with experiment.pinned(config):
        state = networks.from_weights(config, weights, data.num_classes, where, data.image_shape)
        params, batch_stats = networks.collapse_of(model, data.image_shape)(state)
    collapsed = {"params": params, "batch_stats": batch_stats}
    soundness.check(f"{folder.path}: the collapsed network", collapsed)
    check_scale(data.mean, data.std, where=f"{folder.path / 'results.json'}: data.")
    return Run(
        config=config,
        model=model,
        collapsed=collapsed,
        stacked=weights,
        mean=data.mean,
        std=data.std,
        _state=state,
    )
