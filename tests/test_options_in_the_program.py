"""Options of the published code that none of its configs uses, in trainings of a tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_run import DIGITS, subset

from lpw_jax import experiment, networks, recipe
from lpw_jax.config import load_config
from lpw_jax.data import epoch_order
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import ConfigError, UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.training import train

SHORT = (
    "train.epochs=6", "train.batch_size=8", "train.anneal_start=1", "train.anneal_end=6",
    "late_phase.release_epoch=1", "late_phase.num_members=2", "late_phase.member_mode=vmap",
)  # fmt: skip


def configured(*fields):
    return load_config(DIGITS, [f"--config.{field}" for field in (*SHORT, *fields)])


def training(*fields):
    return train.Training(configured(*fields), subset(48), Devices.over(jax.devices()[:1]))


def states(run, epochs):
    """The released state at the start and after each of `epochs`, on the host."""
    state = run.runner.place(run.released(run.initial_state), num_members=2)
    yield run.runner.fetch(state, num_members=2)
    for epoch in epochs:
        order = epoch_order(0, epoch, run.num_examples)
        for after, _ in run.runner.cycles(
            state, order, run.timeline.rates(epoch), epoch=epoch, num_members=2
        ):
            state = after
        yield run.runner.fetch(state, num_members=2)


def changed(one, other):
    return [(a != b).any() for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize(
    "optimizer",
    ["sgd", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adam", "adamw", "optax:lion"))],
)
def test_frozen_shared_weights_stay_bit_for_bit_and_members_go_on(optimizer, monkeypatch):
    """In the program that moved them before."""
    traces, step = [], LatePhase.step
    monkeypatch.setattr(LatePhase, "step", lambda *a, **k: traces.append(1) or step(*a, **k))
    run = training(
        f"train.optimizer={optimizer}", "train.freeze_epoch=3", "train.schedule=multistep",
        "train.milestones=4", "train.warmup_epochs=2",
    )  # fmt: skip
    start, *after = states(run, range(2, 7))
    assert traces == [1]
    for epoch, (old, new) in enumerate(zip([start, *after[:-1]], after, strict=True), 2):
        assert changed(old.shared, new.shared) == [epoch <= 3]
        assert all(changed(old.members, new.members))


@pytest.mark.usefixtures("tiny_network")
def test_a_head_that_starts_anew_is_another_for_each_member():
    plain, anew = (
        jax.device_get(run.released(run.initial_state))
        for run in (training(), training("late_phase.reinitialize_head=True"))
    )
    head = anew.members["head"]
    np.testing.assert_array_equal(head["bias"], np.zeros((2, 10)))
    one, other = head["kernel"].reshape(2, -1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5
    assert abs(np.corrcoef(one, plain.members["head"]["kernel"][0].reshape(-1))[0, 1]) < 0.5
    wanted = (2 / head["kernel"].shape[1]) ** 0.5
    assert np.std(head["kernel"]) == pytest.approx(wanted, rel=0.25)
    without = [state.replace(members={**state.members, "head": None}) for state in (plain, anew)]
    jax.tree.map(np.testing.assert_array_equal, *without)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("patterns", [".*bn.*", ".*bn.*,head/bias"])
def test_a_head_that_is_shared_cannot_start_anew(patterns):
    fields = ("late_phase.reinitialize_head=True", f"late_phase.patterns={patterns}")
    message = "late_phase.reinitialize_head = True: every weight of the head must be late-phase"
    with pytest.raises(UserError, match=message):
        networks.check(configured(*fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("reinitialize_head=True", "release_epoch=-1"), "reinitialize_head = True: needs a rel"),
        (("release_epoch=4", "train.freeze_epoch=3"), "train.freeze_epoch = 3: must be -1 .never"),
        (("train.freeze_epoch=6",), r"train.freeze_epoch = 6: .*epochs = 6\)"),
        (("release_epoch=-1", "train.freeze_epoch=3"), "train.freeze_epoch = 3: .* members"),
        (("train.schedule=step",), "train.schedule = 'step': must be one of annealing, cosine,"),
        (("train.milestones=5,2",), r"train.milestones = \(5, 2\): must be increasing epochs"),
        (("train.milestones=-1",), r"train.milestones = \(-1,\): must be increasing"),
        (("train.milestones=1.5,2",), "train.milestones = '1.5,2': expected tuple of int"),
        (("train.milestone_factor=0",), "train.milestone_factor = 0.0: must be > 0"),
        (("train.warmup_epochs=6",), "train.warmup_epochs = 6: must be < train.epochs"),
        (("train.warmup_epochs=-1",), "train.warmup_epochs = -1: must be >= 0"),
    ],
)  # fmt: skip
def test_impossible_options_are_refused(fields, message):
    fields = [
        field if "." in field.partition("=")[0] else f"late_phase.{field}" for field in fields
    ]
    with pytest.raises(ConfigError, match=message):
        configured(*fields)


def test_tied_coefficients_of_templates_have_their_own_rate_with_any_optimiser():
    """Adam's first step is as long as the rate."""
    config = configured(
        "late_phase.kind=templates", "model.depth=10", "model.width=1", "train.optimizer=adam",
        "late_phase.tied_learning_rate=0.01", "train.weight_decay=0.1",
    )  # fmt: skip
    coefficients = recipe.Coefficients(np.ones((2, 1), np.float32), bank="w")
    weights = {"w": np.ones(3, np.float32), "layer": coefficients}
    model = experiment.build_model(config, 10)
    tx = recipe.method(config, model).shared_optimizer
    updates, _ = tx.update(
        jax.tree.map(jnp.ones_like, weights), tx.init(weights), weights,
        learning_rate=0.05, weight_decay=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(updates["w"], np.full(3, -0.05), rtol=1e-4)
    np.testing.assert_allclose(updates["layer"].values, np.full((2, 1), -0.005), rtol=1e-4)


@pytest.mark.usefixtures("tiny_network")
@pytest.mark.slow
def test_a_run_with_all_of_them_is_resumed_bit_for_bit(tmp_path):
    config = configured(
        "train.optimizer=adam", "train.schedule=cosine", "train.warmup_epochs=1",
        "train.learning_rate=1e-3", "train.end_learning_rate=1e-4", "train.freeze_epoch=4",
        "train.random_erasing=0.5", "late_phase.reinitialize_head=True", "checkpoint.keep=9",
        "late_phase.learning_rate=1e-3", "checkpoint.every_epochs=1",
    )  # fmt: skip
    devices = Devices.over(jax.devices()[:1])
    whole, _ = train.Training(config, subset(48), devices).run(Workdir(tmp_path / "run"))
    saved = sorted((tmp_path / "run/checkpoints").iterdir(), key=lambda path: int(path.name))
    (tmp_path / "cut/checkpoints").mkdir(parents=True)
    saved[2].rename(tmp_path / "cut/checkpoints" / saved[2].name)
    resumed, _ = train.Training(config, subset(48), devices).run(Workdir(tmp_path / "cut"))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
