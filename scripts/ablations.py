"""Sweeps around a base config, and baselines beside it, as a table for `run_table.py`."""

from collections.abc import Callable, Iterator, Sequence

from methods import Comparison, Row, Table
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax.errors import ConfigError, UserError

BASE = "ablation_base"
BATCH_NORM, HEAD = r"(.*/)?bn[^/]*/(scale|bias)", "head/(kernel|bias)"

# A value in the name of a folder, and the fields that it sets.
Value = tuple[str, tuple[str, ...]]


def _field(field: str, values: Sequence[object]) -> Iterator[Value]:
    for value in dict.fromkeys(values):
        yield str(value), (f"{field}={value}",)


def _releases(config: ConfigDict) -> Iterator[Value]:
    epochs = config.train.epochs
    shares = (0, 0.25, 0.5, 0.6, 0.75, 0.9)
    return _field("late_phase.release_epoch", [round(share * epochs) for share in shares])


def _kinds(_: ConfigDict) -> Iterator[Value]:
    for name, kind, patterns in (
        ("batch_norm", "copies", (BATCH_NORM,)),
        ("head", "copies", (HEAD,)),
        ("both", "copies", (BATCH_NORM, HEAD)),
        ("rank_one", "rank_one", ()),
        ("rank_one_batch_norm", "rank_one", (BATCH_NORM,)),
        ("low_rank", "low_rank", ()),
        ("low_rank_batch_norm", "low_rank", (BATCH_NORM,)),
        ("templates", "templates", (HEAD,)),  # as published
        ("all_weights", "copies", (".*",)),
    ):
        yield name, (f"late_phase.kind={kind}", f"late_phase.patterns={patterns!r}")


def _baselines(config: ConfigDict) -> Iterator[Value]:
    """Other ways to get several networks, or one averaged one, out of a training."""
    epochs, members = config.train.epochs, config.late_phase.num_members
    once = ("late_phase.release_epoch=-1", "late_phase.reinitialize_head=False")
    from_start = ("late_phase.release_epoch=0", "late_phase.kind=copies")
    yield "sgd", (*once, "swa.start_epoch=0", "swa.decay=0")
    yield "ema", (*once, "swa.start_epoch=1", "swa.decay=0.99")
    lawa = epochs + 1 - min(epochs, max(2, round(0.1 * epochs)))
    yield "lawa", (*once, f"swa.start_epoch={lawa}", "swa.decay=0")
    yield (
        "last_layer",
        (*from_start, f"late_phase.patterns={(HEAD,)!r}", "late_phase.reinitialize_head=True"),
    )
    yield (
        "batch_ensemble",
        (
            "late_phase.release_epoch=0",
            "late_phase.reinitialize_head=False",
            "late_phase.kind=rank_one",
            # One pair of running statistics fits no member of those that differ this much.
            f"late_phase.patterns={(BATCH_NORM,)!r}",
            "late_phase.sigma=0.5",  # members that begin equal would stay so
            "late_phase.same_minibatch=True",
            f"late_phase.shared_grad_scale={1 / members!r}",
            "late_phase.coasting=none",
            "late_phase.inner_training=True",
        ),
    )


# By the name of --only: the swept fields, and their values around a config.
SWEEPS: dict[str, tuple[tuple[str, ...], Callable[[ConfigDict], Iterator[Value]]]] = {
    "num_members": (
        ("late_phase.num_members",),
        lambda _: _field("late_phase.num_members", (1, 2, 5, 10, 20)),
    ),
    "release": (("late_phase.release_epoch",), _releases),
    "sigma": (
        ("late_phase.sigma",),
        lambda _: _field("late_phase.sigma", (0.0, 0.1, 0.25, 0.5, 1.0)),
    ),
    "kind": (("late_phase.kind", "late_phase.patterns"), _kinds),
    "coasting": (
        ("late_phase.coasting",),
        lambda _: _field("late_phase.coasting", ("reference", "every_minibatch", "none")),
    ),
    "baselines": ((), _baselines),
}


def table(base: str, flags: Sequence[str], names: Sequence[str]) -> tuple[Table, list[str]]:
    """The trainings and comparisons of the sweeps `names`, and a line for each value left out.

    Args:
      base: file of the config that they start from. A value that is its own is trained once.
      flags: '--config.FIELD=VALUE', for the base and all others.

    Raises:
      ConfigError: the base refuses the flags.
    """
    config = config_lib.load_config(base, flags)
    if config.late_phase.release_epoch < 0:
        raise ConfigError(
            f"late_phase.release_epoch = {config.late_phase.release_epoch}: must be >= 0 in "
            f"{base}, since without a release the other values change nothing"
        )
    given = tuple(flag.removeprefix("--config.") for flag in flags)
    rows = {BASE: Row(BASE, base, given)}
    comparisons, left_out = [], []
    for name in names:
        fields, values = SWEEPS[name]
        compared = [BASE]
        for value, changes in values(config):
            row = f"ablation_{name}_{value}" if fields else f"baseline_{value}"
            try:
                changed = config_lib.override(config, [f"--config.{each}" for each in changes])
                if name in ("kind", "baselines"):
                    _check_network(changed)
            except UserError as error:
                left_out.append(f"{row} is left out: {error}")
                continue
            if config_lib.digest(changed) != config_lib.digest(config):
                rows[row] = Row(row, base, (*_without(given, changes), *changes))
                compared.append(row)
        folder = f"ablation_{name}" if fields else name
        comparisons.append(Comparison(folder, tuple(compared), fields))
    return Table(tuple(rows.values()), comparisons=tuple(comparisons)), left_out


def _check_network(config: ConfigDict) -> None:
    """Refuses late-phase weights that the network does not have."""
    from lpw_jax import networks  # takes JAX with it

    networks.check(config)


def _without(given: Sequence[str], changes: Sequence[str]) -> list[str]:
    changed = {change.partition("=")[0] for change in changes}
    return [each for each in given if each.partition("=")[0] not in changed]
