"""How a config trains: its kinds of late-phase weights, its optimisers, its loss."""

from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax.method import optimizers
from lpw_jax.method.kinds.copies import copies
from lpw_jax.method.kinds.low_rank import low_rank
from lpw_jax.method.kinds.part import Kind
from lpw_jax.method.kinds.rank_one import rank_one
from lpw_jax.method.kinds.templates import Coefficients, mixed, templates
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.models import functions, wide_resnet
from lpw_jax.models.layers import BATCH_NORM_EPSILON
from lpw_jax.tasks import classification
from lpw_jax.tasks.task import Task
from lpw_jax.training.schedules import Rates


def method(
    config: ConfigDict,
    model: nn.Module,
    *,
    member_mode: str | None = None,
    batch_axis: str | None = None,
    member_axis: str | None = None,
) -> LatePhase:
    """How `config` trains `model`, which has no device axis.

    Every step takes `rate_arguments`.
    """
    sgd = optimizers.sgd(momentum=config.train.momentum, nesterov=config.train.nesterov)
    return LatePhase(
        # Batch norm takes its statistics over the whole minibatch, whoever shares it.
        functions.training_loss(functions.on_axis(model, batch_axis), task(config).loss),
        late_phase=kinds(config),
        shared_optimizer=_with_rates_of_coefficients(config, sgd),
        member_optimizer=sgd,
        coasting=config.late_phase.coasting,
        shared_grad_scale=config.late_phase.shared_grad_scale,
        member_mode=member_mode,
        num_microbatches=config.train.num_microbatches,
        batch_axis=batch_axis,
        member_axis=member_axis,
        batch_norm_epsilon=BATCH_NORM_EPSILON,
    )


def task(config: ConfigDict) -> Task:
    """What the network of `config` is trained for."""
    return classification.TASK


def kinds(config: ConfigDict) -> Sequence[Kind]:
    """The kinds of late-phase weights of `config`."""
    options = config.late_phase
    found: list[Kind] = [copies(*options.patterns)] if options.patterns else []
    if options.kind == "rank_one":
        found.append(rank_one(*options.kind_patterns, on_activations=True))
    elif options.kind == "low_rank":
        found.append(low_rank(options.rank, *options.kind_patterns))
    elif options.kind == "templates":
        layers = wide_resnet.template_layers(config.model.depth, config.model.width)
        found.append(
            templates(
                *(
                    mixed(layer.pattern, num_templates=layer.num_templates, split=layer.split)
                    for layer in layers
                    if layer.group in options.template_groups
                )
            )
        )
    return found


def rate_arguments(rates: Rates) -> dict[str, dict[str, Any]]:
    """What a step takes of an epoch's rates."""
    return {
        "shared_args": {
            "learning_rate": rates.shared_learning_rate,
            "weight_decay": rates.shared_weight_decay,
        },
        "member_args": {
            "learning_rate": rates.late_learning_rate,
            "weight_decay": rates.late_weight_decay,
        },
    }


def _with_rates_of_coefficients(
    config: ConfigDict, optimizer: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, but for tied coefficients of templates, which have rates of their own."""
    options, train = config.late_phase, config.train
    if options.kind != "templates":
        return optimizer

    def update(grads, state, params, *, learning_rate, weight_decay):
        factor = options.tied_learning_rate / train.learning_rate
        return optimizer.update(
            grads,
            state,
            params,
            learning_rate=factor * learning_rate,
            weight_decay=options.tied_weight_decay,
        )

    def labels(tree):
        def label(node):
            name = "coefficients" if isinstance(node, Coefficients) else "weights"
            return jax.tree.map(lambda _: name, node)

        return jax.tree.map(label, tree, is_leaf=lambda node: isinstance(node, Coefficients))

    of_coefficients = optax.GradientTransformationExtraArgs(optimizer.init, update)
    return optax.partition({"weights": optimizer, "coefficients": of_coefficients}, labels)
