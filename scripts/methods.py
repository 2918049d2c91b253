"""The tables that `run_table.py` makes: which methods, trained from which configs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A method: its folder under --runs, its file, and the fields that it changes.

    The file is a name in configs/, or a path if it has '.py' in it.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows that are compared with the first of them, in a folder NAME_comparison of their own.

    `fields` are those in which they differ, drawn as lines over their values; () if they are many.
    """

    name: str
    rows: tuple[str, ...]
    fields: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """Methods to be trained, and what is made of them afterwards.

    Attributes:
      rows: the methods.
      ensemble_of: names of those rows whose seeds become deep ensembles.
      ensemble_size: seeds in each, in disjoint groups one after the other, without a last group
        that is not full; None = all seeds in one.
      published: whether there are published figures to compare with.
      comparisons: () = of all rows together.
    """

    rows: tuple[Row, ...]
    ensemble_of: tuple[str, ...] = ()
    ensemble_size: int | None = None
    published: bool = False
    comparisons: tuple[Comparison, ...] = ()


NO_RELEASE = ("late_phase.release_epoch=-1",)
FROM_START = ("late_phase.release_epoch=0",)
MORE_DECAY = ("train.weight_decay=2e-3", "late_phase.weight_decay=2e-3")
ALL_WEIGHTS = ("late_phase.patterns=.*",)
# The published shape of SWA's schedule, in twelve epochs.
SWA_12 = (
    "train.end_learning_rate=0.05",
    "train.anneal_start=5",
    "train.anneal_end=9",
    "late_phase.release_epoch=6",
    "swa.start_epoch=10",
)

TABLES = {
    "cifar10": Table(
        rows=(
            Row("cifar10_sgd", "cifar10_sgd"),
            Row("cifar10_swa", "cifar10_swa"),
            Row("cifar10_bn", "cifar10_bn"),
            Row("cifar10_bn_swa", "cifar10_bn_swa"),
            Row("cifar10_bn_from_start", "cifar10_bn", FROM_START),
            Row("cifar10_all_weights", "cifar10_bn", ALL_WEIGHTS),
        ),
        ensemble_of=("cifar10_sgd",),
        published=True,
    ),
    "cifar100": Table(
        rows=(
            Row("cifar100_sgd", "cifar100_sgd"),
            Row("cifar100_swa", "cifar100_swa"),
            Row("cifar100_bn", "cifar100_bn"),
            Row("cifar100_bn_swa", "cifar100_bn_swa"),
            Row("cifar100_bn_from_start", "cifar100_bn", FROM_START),
            # Ten times the decay, as in cifar100_bn, is meant for batch norm and the head.
            Row(
                "cifar100_all_weights",
                "cifar100_bn",
                (*ALL_WEIGHTS, "late_phase.weight_decay=0.0005"),
            ),
        ),
        ensemble_of=("cifar100_sgd",),
        published=True,
    ),
    "cifar10_small": Table(
        rows=(
            Row("cifar10_small_sgd", "cifar10_small_sgd"),
            Row("cifar10_small_swa", "cifar10_small", (*SWA_12, *NO_RELEASE)),
            Row("cifar10_small", "cifar10_small"),
            Row("cifar10_small_bn_swa", "cifar10_small", SWA_12),
            Row("cifar10_small_from_start", "cifar10_small", FROM_START),
            Row("cifar10_small_all_weights", "cifar10_small", ALL_WEIGHTS),
        ),
        ensemble_of=("cifar10_small_sgd",),
    ),
    "digits": Table(
        rows=(
            Row("digits_sgd", "digits_bn", NO_RELEASE),
            Row("digits_swa", "digits_bn", (*SWA_12, *NO_RELEASE)),
            Row("digits_bn", "digits_bn"),
            Row("digits_bn_swa", "digits_bn", SWA_12),
            Row("digits_bn_from_start", "digits_bn", FROM_START),
            Row("digits_all_weights", "digits_bn", ALL_WEIGHTS),
        ),
        ensemble_of=("digits_sgd",),
    ),
    "effect": Table(
        rows=(
            Row("effect_sgd", "effect_cifar10", NO_RELEASE),
            Row("effect_swa", "configs/effect_cifar10.py:swa", NO_RELEASE),
            Row("effect_late_phase", "effect_cifar10"),
            Row("effect_late_phase_swa", "configs/effect_cifar10.py:swa"),
            # What else one can do: train longer, decay more, or spend it on several small networks.
            Row(
                "effect_sgd_long",
                "effect_cifar10",
                (*NO_RELEASE, "train.epochs=120", "train.anneal_start=60", "train.anneal_end=108"),
            ),
            Row("effect_sgd_decay", "effect_cifar10", (*NO_RELEASE, *MORE_DECAY)),
            Row("effect_late_phase_decay", "effect_cifar10", MORE_DECAY),
            Row("effect_sgd_small", "effect_cifar10", (*NO_RELEASE, "model.width=256")),
        ),
        ensemble_of=("effect_sgd", "effect_sgd_small"),
        ensemble_size=3,
    ),
    "text_small": Table(
        rows=tuple(
            Row(f"text_small_{name}", f"configs/text_small.py{variant}")
            for name, variant in (
                ("base", ":base"),
                ("base_swa", ":base_swa"),
                ("rank1", ":rank1"),
                ("rank1_swa", ":rank1_swa"),
                ("late_phase", ""),
                ("late_phase_swa", ":swa"),
            )
        ),
        ensemble_of=("text_small_base",),
        ensemble_size=3,
    ),
}

# Which values make a method what it is: no flag changes them.
METHOD = {
    "late_phase.release_epoch": lambda config: config.late_phase.release_epoch <= 0,
    "late_phase.patterns": lambda config: ".*" in config.late_phase.patterns,
    "swa.start_epoch": lambda config: config.swa.start_epoch == 0,
}
