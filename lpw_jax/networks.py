"""The network of a config: its state at the start, and its weights on disk."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from lpw_jax import experiment, registry
from lpw_jax.devices.compilation import Program, jit_once
from lpw_jax.errors import UserError
from lpw_jax.files.nested import from_nested, to_nested
from lpw_jax.method.collapse import collapse
from lpw_jax.method.kinds.templates import Coefficients
from lpw_jax.method.state import State
from lpw_jax.method.trees import path_name, places
from lpw_jax.models import functions
from lpw_jax.models.layers import BATCH_NORM_EPSILON
from lpw_jax.models.own import OwnNetwork
from lpw_jax.models.recurrent import without_carried
from lpw_jax.models.wide_resnet import he_normal
from lpw_jax.recipe import method
from lpw_jax.weights import pretrained

# What is in the folder `weights` of a run, and where it is in a `State`.
WEIGHTS = {
    "shared": "shared",
    "late_phase": "members",
    "batch_stats": "member_model_state",
    "shared_batch_stats": "shared_model_state",
}


def initial(
    config: ConfigDict, model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[Program, tuple[Any, ...], dict[str, Any] | None]:
    """What makes the tied state, its arguments, and what is known of pretrained weights.

    That is what `pretrained.load_variables` says of them, and `published_accuracy`, the fraction
    that torchvision states for its own weights of this network.

    Raises:
      UserError: the pretrained weights cannot be read, or are not those of `model`. Traced, the
        program raises it where late-phase patterns match nothing.
    """
    found = experiment.pretrained_weights(config, num_classes=model.num_classes)
    key = experiment.purpose_key(config.seed, "init")
    if found is None:
        init = functools.partial(random_state, config, model, image_shape)
        return Program(jit_once(init)), (key,), None
    variables, origin = found
    param_dtype = np.promote_types(config.train.compute_dtype, np.float32)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, param_dtype), variables)
    origin["published_accuracy"] = pretrained.PUBLISHED[config.model.name].accuracy / 100
    return Program(jit_once(functools.partial(tied_of, config, model))), (variables, key), origin


def random_state(
    config: ConfigDict, model: nn.Module, image_shape: tuple[int, int, int], key: jax.Array
) -> State:
    """The tied state of freshly initialised weights; best compiled as a whole."""
    variables = model.init(key, jnp.zeros((1, *image_shape), model.dtype))
    return tied_of(config, model, variables, jax.random.fold_in(key, 1))


def released(config: ConfigDict, model: nn.Module, tied: State) -> State:
    """The state at the release: members, made of the tied copy."""
    return jit_once(functools.partial(_release, config, model))(tied, *_release_keys(config))


def _release_keys(config):
    return [experiment.purpose_key(config.seed, purpose) for purpose in ("release", "head")]


def _release(config, model, tied, key, head_key):
    options, trained_by = config.late_phase, method(config, model)
    state = trained_by.release(tied, key, num_members=options.num_members, sigma=options.sigma)
    if options.reinitialize_head:
        state = _with_new_heads(trained_by.member_optimizer, state, head_key)
    return state


def like(config: ConfigDict, model: nn.Module, tied: State, *, is_released: bool) -> State:
    """Shapes of a state, of the tied one or of that which it is released to."""
    make = functools.partial(_release, config, model) if is_released else lambda state, *_: state
    return jax.eval_shape(make, tied, *_release_keys(config))


def check(config: ConfigDict, dataset: experiment.AnyDataset | None = None) -> None:
    """Refuses an own network that cannot be trained, and late-phase patterns that match nothing.

    Computes nothing, and needs no data but where only they tell classes and image shape: without
    `dataset` an own network is then just built.

    Raises:
      UserError: naming what is wrong with the network, or the pattern and the parameters there are.
    """
    if dataset is not None:
        state, changed = _shapes(config, dataset.num_classes, dataset.image_shape)
    elif registry.data(config.data.name).is_known:
        state, changed = _shapes(config, experiment.num_classes(config))
    else:
        experiment.build_model(config, num_classes=2)
        return
    shared = (path for path, leaf in places(state.shared_model_state) if leaf is not None)
    if in_turn := next((path for path in shared if path in changed), None):
        _check_in_turn(config, in_turn)


def _check_in_turn(config, path):
    """Refuses a config by which members could not change a shared statistic in turn."""
    mode, layout = config.late_phase.member_mode, config.parallel.layout
    merged = mode == "vmap" or (mode == "auto" and jax.default_backend() != "cpu")
    divided = experiment.num_groups(config, jax.device_count()) > 1
    parts = config.train.num_microbatches
    for field, value, broken, wanted in (
        ("late_phase.member_mode", mode, merged, "'scan'"),
        ("parallel.layout", layout, divided, "'data'"),
        ("train.num_microbatches", parts, parts > 1, "1"),
    ):
        if broken:
            raise UserError(
                f"{field} = {value!r}: must be {wanted}, since members' minibatches change "
                f"{path!r} of a shared layer in turn; or let the layer return lpw_jax.Observed"
            )


def shapes(config: ConfigDict, num_classes: int, image_shape: Sequence[int] | None = None) -> State:
    """The tied state's arrays as `jax.ShapeDtypeStruct`s; computes nothing.

    `image_shape` [H, W, C] is by default that of the data set's name.

    Raises:
      UserError: late-phase patterns match nothing, or an own network cannot be trained.
    """
    return _shapes(config, num_classes, image_shape)[0]


def _shapes(config, num_classes, image_shape=None):
    """The state, and what `OwnNetwork.check` returns."""
    model, changed = experiment.build_model(config, num_classes), []
    image_shape = image_shape or experiment.image_shape(config)
    if isinstance(model, OwnNetwork):
        changed = model.check(image_shape, averages=config.swa.start_epoch > 0)
    init = functools.partial(random_state, config, model, image_shape)
    state = jax.eval_shape(init, jax.random.key(0))
    if isinstance(model, OwnNetwork):
        jax.eval_shape(collapse_of(model, image_shape), state)
    return state, changed


def to_weights(state: State) -> dict[str, Any]:
    """What of a state makes networks, as nested dicts: `shared`, and of members [K, ...]
    `late_phase` and `batch_stats`; where batch norm is shared, `shared_batch_stats`.
    """
    return weights_of_nested(to_nested(without_optimisers(state)))


def weights_of_nested(nested: dict[str, Any]) -> dict[str, Any]:
    """`to_weights` of a state that was made nested dicts."""
    weights = {name: nested.get(field, {}) for name, field in WEIGHTS.items()}
    if not weights["shared_batch_stats"]:
        del weights["shared_batch_stats"]
    return weights


def from_weights(
    config: ConfigDict,
    weights: dict[str, Any],
    num_classes: int,
    where: str,
    image_shape: Sequence[int] | None = None,
) -> State:
    """Inverse of `to_weights`: a state without optimisers.

    Raises:
      UserError: they are not those of the network of `config`, naming `where` they are from.
    """
    like = without_optimisers(shapes(config, num_classes, image_shape))
    try:
        parts = {
            field: from_nested(weights.get(name, {}), getattr(like, field))
            for name, field in WEIGHTS.items()
        }
        _check_shapes(parts, like)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: must be weights of the network in config.json, they are not ({error})"
        ) from error
    return like.replace(**parts)


def of_one_member(state: State) -> State:
    """Shapes of `state` without the member axis."""

    def without_axis(leaf):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    members = jax.tree.map(without_axis, (state.members, state.member_model_state))
    return state.replace(members=members[0], member_model_state=members[1])


def banks(state: State) -> dict[str, str]:
    """For the kernels that are mixtures of templates, by path, the path of their bank's place."""
    parts = jax.tree_util.tree_leaves_with_path(
        state.members, is_leaf=lambda part: isinstance(part, Coefficients)
    )
    return {path_name(path): part.bank for path, part in parts if isinstance(part, Coefficients)}


def without_optimisers(state: State) -> State:
    """What of a state makes networks."""
    return state.replace(
        step=None,
        coasting=None,
        member_model_state=without_carried(state.member_model_state),
        shared_opt_state=None,
        member_opt_state=None,
    )


def collapse_of(
    model: nn.Module | OwnNetwork, image_shape: Sequence[int] | None = None
) -> Callable[[State], tuple[Any, Any]]:
    """Makes of a state the one network that members average to, (params, batch_stats); compiled.

    `image_shape` [H, W, C] must be given for an own network.

    Raises (the returned function):
      UserError: an own network does not tell what a late-phase batch norm adds to the variance.
    """
    epsilon = batch_norm_epsilon(model, image_shape)
    return jax.jit(functools.partial(collapse, batch_norm_epsilon=epsilon))


def batch_norm_epsilon(
    model: nn.Module | OwnNetwork, image_shape: Sequence[int] | None = None
) -> float | Callable[[str], float]:
    """What batch norms add to the variance; arguments as `collapse_of`."""
    own = isinstance(model, OwnNetwork)
    return model.epsilon(image_shape) if own else BATCH_NORM_EPSILON


def tied_of(
    config: ConfigDict, model: nn.Module, variables: dict[str, Any], key: jax.Array
) -> State:
    """The tied state with these variables; `key` is for what a kind of weights draws."""
    try:
        params, batch_stats = functions.divided(variables)
        tied = method(config, model).init(params, batch_stats, key=key)
    except UserError:
        raise
    except ValueError as error:
        kind, _, rule = str(error).partition(": ")
        field = "late_phase.patterns" if kind == "copies" else "late_phase.kind_patterns"
        raise UserError(f"{field}: {rule}") from error
    if config.late_phase.reinitialize_head:
        head = tied.members.get("head") or {"": None}
        if "kernel" not in head or not all(hasattr(leaf, "shape") for leaf in head.values()):
            raise UserError(
                "late_phase.reinitialize_head = True: every weight of the head must be late-phase, "
                f"by late_phase.patterns = {config.late_phase.patterns}; the network has "
                f"{', '.join(path_name(path) for path, _ in jax.tree.leaves_with_path(params))}"
            )
    return tied


def _with_new_heads(optimizer, state, key):
    """Members with random heads, each with its own, and optimisers that know no others."""
    head = state.members["head"]

    def draw(key):
        new = {name: jnp.zeros_like(leaf[0]) for name, leaf in head.items()}
        kernel = new["kernel"]
        return new | {"kernel": he_normal(key, kernel.shape, kernel.dtype)}

    new = jax.vmap(draw)(jax.random.split(key, len(head["kernel"])))
    members = {**state.members, "head": new}
    return state.replace(members=members, member_opt_state=jax.vmap(optimizer.init)(members))


def _check_shapes(parts, like):
    num_members = jax.tree.leaves(parts["members"])[0].shape[0]
    for field, tree in parts.items():
        of_members = field.startswith("member")

        def check(path, found, expected, of_members=of_members):
            shape = (num_members, *expected.shape[1:]) if of_members else expected.shape
            for what, here, there in (
                ("shape", found.shape, shape),
                ("type", found.dtype, expected.dtype),
            ):
                if here != there:
                    raise ValueError(f"{path_name(path)} has {what} {here} instead of {there}")

        jax.tree_util.tree_map_with_path(check, tree, getattr(like, field))
