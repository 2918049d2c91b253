"""How a config trains: its kinds of late-phase weights, its optimisers, its loss."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import registry
from lpw_jax.errors import UserError
from lpw_jax.method import optimizers
from lpw_jax.method.kinds.copies import copies
from lpw_jax.method.kinds.low_rank import low_rank
from lpw_jax.method.kinds.part import Kind
from lpw_jax.method.kinds.rank_one import rank_one
from lpw_jax.method.kinds.templates import Coefficients, mixed, templates
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.method.random_member import RandomMember
from lpw_jax.models import functions, wide_resnet
from lpw_jax.tasks import classification, language
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
    plain = optimizer(config)
    kind_of_cycle = LatePhase if config.late_phase.inner_training else RandomMember
    return kind_of_cycle(
        # Batch norm takes its statistics over the whole minibatch, whoever shares it.
        functions.training_loss(functions.on_axis(model, batch_axis), task(config).loss),
        late_phase=kinds(config),
        shared_optimizer=_with_rates_of_coefficients(config, plain),
        member_optimizer=plain,
        coasting=config.late_phase.coasting,
        shared_grad_scale=config.late_phase.shared_grad_scale,
        member_mode=member_mode,
        num_microbatches=config.train.num_microbatches,
        batch_axis=batch_axis,
        member_axis=member_axis,
        # Every member reads a text of its own.
        member_state=True if registry.network(config.model.name).reads_text else None,
    )


def optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """What trains the weights of `config`; each update takes `learning_rate`, `weight_decay`.

    Raises:
      UserError: naming what an optimiser of one's own does not do.
    """
    train, field = config.train, "train.optimizer"
    if train.optimizer == "sgd":
        return optimizers.sgd(momentum=train.momentum, nesterov=train.nesterov)
    if train.optimizer in ("adam", "adamw"):
        return optimizers.adam(decoupled=train.optimizer == "adamw")
    function = registry.resolve(train.optimizer, field)
    decays = train.weight_decay or config.late_phase.weight_decay
    rates = {"learning_rate": 0.1, "weight_decay": 0.1}
    taken = registry.accepted(function, rates)
    if "learning_rate" not in taken or (decays and "weight_decay" not in taken):
        raise UserError(
            f"{field} = {train.optimizer!r}: must take the arguments learning_rate and, unless "
            "train.weight_decay and late_phase.weight_decay are 0, weight_decay; it takes "
            f"{', '.join(inspect.signature(function).parameters) or 'none'}"
        )
    found = optimizers.with_rates(lambda **rates: function(**{name: rates[name] for name in taken}))

    def one_update(rates):
        weight = {"kernel": jnp.zeros((2, 2))}
        state = found.init(weight)
        updates, after = found.update(weight, state, weight, **rates)
        if jax.tree.structure(after) != jax.tree.structure(state):
            raise ValueError("its update gives a state of another structure than its init")
        return updates

    with registry.speaking_of(field, train.optimizer), jax.numpy_dtype_promotion("standard"):
        jax.eval_shape(one_update, jax.tree.map(jnp.asarray, rates))
    return found


def task(config: ConfigDict) -> Task:
    """What the network of `config` is trained for."""
    is_text = registry.data(config.data.name).is_text
    return language.TASK if is_text else classification.TASK


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
                    mixed(
                        layer.pattern,
                        num_templates=layer.num_templates,
                        split=layer.split,
                        biases=layer.biases,
                        late_phase=layer.group in options.late_template_groups,
                    )
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
    """`optimizer`, but for tied and shared coefficients, which have rates of their own."""
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
