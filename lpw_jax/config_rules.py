"""The rules for the values of a configuration, once its fields are there and have their types."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lpw_jax import config_late_phase_rules, registry

_CHOICES = {
    "train.schedule": ("annealing", "cosine", "multistep"),
    "train.compute_dtype": ("float32", "bfloat16", "float64"),
    "train.matmul_precision": ("default", "high", "highest"),
    "train.remat": ("none", "batch_norm"),
    "train.on_nonfinite": ("stop", "warn"),
    "parallel.platform": ("", "cpu", "gpu", "tpu"),
    "parallel.backend": ("pmap", "shard_map"),
    "parallel.layout": ("auto", "data", "members", "groups"),
    "late_phase.coasting": ("reference", "every_minibatch", "none"),
    "late_phase.kind": ("copies", "rank_one", "low_rank", "templates"),
    "late_phase.member_mode": ("auto", "vmap", "scan", "unroll"),
}

# Rules for names; each gives the words of the rule that a name breaks, or ''.
_NAMES = {
    "model.name": registry.wrong_network,
    "data.name": registry.wrong_data,
    "train.optimizer": registry.wrong_optimizer,
}

_AT_LEAST = {
    "model.width": 1,
    "data.validation_examples": 0,
    "data.image_size": 0,
    "model.embedding": 1,
    "data.sequence_length": 1,
    "data.context": 0,
    "data.num_bytes": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.num_microbatches": 1,
    "train.end_learning_rate": 0,
    "train.anneal_start": 0,
    "train.warmup_epochs": 0,
    "train.weight_decay": 0,
    "train.crop_padding": 0,
    "train.random_erasing": 0,
    "late_phase.num_members": 1,
    "late_phase.sigma": 0,
    "late_phase.learning_rate": 0,
    "late_phase.weight_decay": 0,
    "late_phase.rank": 1,
    "late_phase.tied_learning_rate": 0,
    "late_phase.tied_weight_decay": 0,
    "parallel.num_devices": 0,
    "checkpoint.every_epochs": 0,
    "checkpoint.every_minutes": 0,
    "checkpoint.keep": 1,
    "evaluate.batch_size": 1,
    "evaluate.every_epochs": 0,
}

# Beyond these nothing fits any machine, and building it would not end.
_AT_MOST = {
    "model.depth": 10_000,
    "model.width": 1_000,
    "data.resize": 4_096,
    "model.embedding": 10_000,
    "data.sequence_length": 10_000,
    "data.context": 10_000,
    "data.num_bytes": 2_000_000_000,
    "train.epochs": 1_000_000,
    "train.batch_size": 1_000_000,
    "late_phase.num_members": 10_000,
    "evaluate.batch_size": 1_000_000,
}


# (fields, does it hold for their values?, the rule in words); the first field takes the blame. In
# the words {1} is the second field's value.
_RULES: tuple[tuple[tuple[str, ...], Callable[..., bool], str], ...] = (
    (("seed",), lambda seed: 0 <= seed < 2**32, "must be 0 to 2**32 - 1"),
    (
        ("model.depth", "model.name"),
        lambda depth, name: (
            not registry.network(name).is_reference or (depth >= 10 and depth % 6 == 4)
        ),
        "must be 6n + 4 with n >= 1: 10, 16, 22, 28, ...",
    ),
    (
        ("model.pretrained", "model.name"),
        lambda weights, name: not weights or registry.network(name).published,
        "must be '' for {1}, of which torchvision has no weights",
    ),
    (
        ("model.pretrained_key", "model.pretrained"),
        lambda key, file: bool(file or not key),
        "needs model.pretrained",
    ),
    (
        ("data.image_size", "data.name"),
        lambda side, name: not registry.data(name).is_known or (side >= 32 and side % 32 == 0),
        "must be >= 32 and a multiple of 32 for {1}",
    ),
    (
        ("model.name", "data.name"),
        lambda network, data: registry.network(network).reads_text == registry.data(data).is_text,
        "must be lstm for a text, and nothing but a text is for lstm",
    ),
    *(
        (
            (field, "data.name"),
            lambda value, name, wanted=wanted: value == wanted or not registry.data(name).is_text,
            f"must be {wanted} for {{1}}, a text{why}",
        )
        for field, wanted, why in (
            ("data.validation_examples", 0, ", of which a part is held out anyway"),
            ("train.num_microbatches", 1, ", whose sequences go on in the next minibatch"),
            ("late_phase.inner_training", True, ", of which every member reads its own part"),
        )
    ),
    *(
        ((field,), lambda values, low=low: all(low <= value <= 1 for value in values), rule)
        for field, low, rule in (
            ("data.mean", 0, "must be 0 to 1, the scale of pixels"),
            ("data.std", 1e-30, "must be > 0 and at most 1, on the scale 0..1 of pixels"),
        )
    ),
    (
        ("data.std", "data.mean"),
        lambda std, mean: len(std) == len(mean) and len(std) in (0, 1, 3),
        "must be, like data.mean, empty or one number for each channel (1 or 3)",
    ),
    (
        ("data.resize", "data.image_size"),
        lambda resize, crop: resize >= crop,
        "must be >= data.image_size",
    ),
    (
        ("train.num_microbatches", "train.batch_size"),
        lambda parts, size: size % parts == 0,
        "must divide train.batch_size",
    ),
    (("train.learning_rate",), lambda rate: rate > 0, "must be > 0"),
    (
        ("train.anneal_end", "train.anneal_start"),
        lambda end, start: start < end,
        "must be > train.anneal_start",
    ),
    (
        ("train.milestones",),
        lambda epochs: list(epochs) == sorted({epoch for epoch in epochs if epoch >= 0}),
        "must be increasing epochs >= 0",
    ),
    (("train.milestone_factor",), lambda factor: factor > 0, "must be > 0"),
    (
        ("train.warmup_epochs", "train.epochs"),
        lambda warmup, epochs: warmup < epochs,
        "must be < train.epochs",
    ),
    (
        ("train.freeze_epoch", "late_phase.release_epoch", "train.epochs"),
        lambda freeze, release, epochs: freeze == -1 or 0 <= release <= freeze < epochs,
        "must be -1 (never) or late_phase.release_epoch to train.epochs - 1, when there are "
        "members to be trained",
    ),
    (("train.momentum",), lambda momentum: 0 <= momentum < 1, "must be >= 0 and < 1"),
    (
        ("train.nesterov", "train.momentum"),
        lambda nesterov, momentum: momentum > 0 or not nesterov,
        "needs train.momentum > 0",
    ),
    (("train.crop_padding",), lambda pixels: pixels <= 32, "must be 0 (off) to 32 pixels"),
    (("train.cutout",), lambda side: 0 <= side <= 32, "must be 0 (off) to 32 pixels"),
    (("train.random_erasing",), lambda share: share <= 1, "must be 0 (off) to 1"),
    *(
        (
            (field, "data.name"),
            lambda pixels, name: pixels == 0 or not registry.data(name).has_crops,
            "must be 0 for {1}, whose only augmentations are crops of data.image_size and flips",
        )
        for field in ("train.crop_padding", "train.cutout", "train.random_erasing")
    ),
    (
        ("late_phase.release_epoch", "train.epochs"),
        lambda release, epochs: -1 <= release < epochs,
        "must be -1 (never) or 0 to train.epochs - 1; "
        "a release at or after the end of the last epoch never trains a member",
    ),
    (
        ("late_phase.reinitialize_head", "late_phase.release_epoch"),
        lambda anew, release: release >= 0 or not anew,
        "needs a release",
    ),
    (
        ("parallel.layout", "late_phase.inner_training"),
        lambda layout, inner: inner or layout in ("data", "auto"),
        "must be data or auto where each minibatch goes to a random member",
    ),
    (
        ("parallel.layout", "parallel.backend"),
        lambda layout, backend: layout != "groups" or backend == "shard_map",
        "needs parallel.backend = 'shard_map', since pmap has one axis only",
    ),
    (("late_phase.shared_grad_scale",), lambda scale: scale > 0, "must be > 0"),
    (
        ("swa.start_epoch", "train.epochs"),
        lambda start, epochs: 0 <= start <= epochs,
        "must be 0 (off) or 1 to train.epochs",
    ),
    (
        ("swa.start_epoch", "late_phase.release_epoch"),
        lambda start, release: start == 0 or start > release,
        "must be after late_phase.release_epoch, so that members are averaged, not their ancestor",
    ),
    (
        ("swa.decay", "swa.start_epoch"),
        lambda decay, start: decay == 0 or (0 < decay < 1 and start > 0),
        "must be 0, or > 0 and < 1 with swa.start_epoch > 0",
    ),
    (
        ("late_phase.same_minibatch", "late_phase.inner_training"),
        lambda same, inner: inner or not same,
        "must be False where each minibatch goes to a random member",
    ),
    (
        ("data.require_ood", "data.name"),
        lambda required, name: not required or registry.data(name).ood,
        "out-of-distribution sets are defined for CIFAR only",
    ),
    *config_late_phase_rules.RULES,
)


def check(values: Mapping[str, Any], errors: list[str]) -> None:
    """Adds a line for every broken rule, but none that only follows from another's line."""
    sound = dict(values)

    def refuse(field: str, rule: str) -> None:
        sound.pop(field)
        errors.append(f"{field} = {values[field]!r}: {rule}")

    for field, value in values.items():
        numbers_in = value if isinstance(value, tuple) else (value,)
        if any(isinstance(x, float) and not math.isfinite(x) for x in numbers_in):
            refuse(field, "must be finite")
        elif field in _NAMES and (broken := _NAMES[field](value)):
            refuse(field, broken)
        elif field in _CHOICES and value not in _CHOICES[field]:
            choices = ", ".join(choice or "''" for choice in _CHOICES[field])
            refuse(field, f"must be one of {choices}")
        elif field in _AT_LEAST and value < _AT_LEAST[field]:
            refuse(field, f"must be >= {_AT_LEAST[field]}")
        elif field in _AT_MOST and value > _AT_MOST[field]:
            refuse(field, f"must be <= {_AT_MOST[field]}")
    for fields, holds, rule in _RULES:
        if all(field in sound for field in fields) and not holds(*(sound[f] for f in fields)):
            others = ", ".join(f"{field} = {sound[field]!r}" for field in fields[1:])
            rule = rule.format(*(sound[field] for field in fields))
            refuse(fields[0], rule + (f" ({others})" if others else ""))
