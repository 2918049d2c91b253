"""A flax network as the pure functions that training and evaluation take."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from lpw_jax import linen
from lpw_jax.errors import UserError
from lpw_jax.models.own import OwnNetwork

Tree = Any


def on_axis(model: nn.Module, axis: str | None) -> nn.Module:
    """The network with batch norm over the devices of `axis`, if it has an `axis_name`."""
    return model.clone(axis_name=axis) if hasattr(model, "axis_name") else model


def divided(variables: dict[str, Tree]) -> tuple[Tree, Tree]:
    """A network's parameters and model state; the latter is `batch_stats`, {} without any.

    Raises:
      UserError: there are other collections, which training would lose.
    """
    variables = dict(variables)
    params, batch_stats = variables.pop("params"), variables.pop("batch_stats", {})
    if variables:
        raise UserError(
            "model.name: a network must have no other variables than 'params' and 'batch_stats', "
            f"got {', '.join(map(repr, sorted(variables)))}"
        )
    return params, batch_stats


def forward(model: nn.Module) -> Callable[[Tree, Tree, jax.Array], Any]:
    """(params, batch_stats, inputs) -> outputs, in evaluation mode."""

    def apply(params, batch_stats, inputs):
        variables = {"params": params, "batch_stats": batch_stats}
        return _apply(model, variables, inputs, train=False)

    return apply


def statistics(model: nn.Module) -> Callable[..., Tree]:
    """(params, batch_stats, inputs, key) -> what batch norm saw, in training mode."""

    def apply(params, batch_stats, inputs, key):
        return _trained(model, params, batch_stats, inputs, key)[1]

    return apply


def training_loss(model: nn.Module, loss: Callable[..., Any]) -> Callable[..., Any]:
    """What `LatePhase` takes as `loss_fn`, of batches with `image` and what `loss` needs."""

    def loss_fn(params, batch_stats, batch, key):
        outputs, batch_stats = _trained(model, params, batch_stats, batch["image"], key)
        value, metrics = loss(outputs, batch)
        return value, (batch_stats, metrics)

    return loss_fn


def _trained(model, params, batch_stats, inputs, key):
    outputs, updated = _apply(
        model,
        {"params": params, "batch_stats": batch_stats},
        inputs,
        train=True,
        mutable=["batch_stats"],
        rngs=None if key is None else {"dropout": key},
    )
    return outputs, updated.get("batch_stats", {})


def _apply(model, variables, *args, **options):
    own = isinstance(model, OwnNetwork)
    return (model.apply if own else functools.partial(linen.apply, model))(
        variables, *args, **options
    )
