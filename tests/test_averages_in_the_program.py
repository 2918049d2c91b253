"""Averages and minibatches of the baselines, in trainings of a tiny network, against slow loops."""

import jax
import numpy as np
import pytest
from short_run import DIGITS, subset

from lpw_jax.config import load_config
from lpw_jax.data import epoch_order, split_order
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import ConfigError
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import train

pytestmark = pytest.mark.usefixtures("tiny_network")
# Without augmentation, which is another at every step.
SHORT = (
    "train.epochs=4", "train.batch_size=8", "train.anneal_start=1", "train.anneal_end=4",
    "train.crop_padding=0", "late_phase.release_epoch=0", "late_phase.num_members=2",
    "late_phase.coasting=none", "late_phase.member_mode=vmap", "checkpoint.keep=9",
)  # fmt: skip


def training(*fields):
    config = load_config(DIGITS, [f"--config.{field}" for field in (*SHORT, *fields)])
    return train.Training(config, subset(48), Devices.over(jax.devices()[:1]))


def states(run, first_epoch=1):
    """The states after every cycle, from `first_epoch` on, in lists by epoch."""
    state, found, members = run.runner.place(run.initial_state, num_members=1), [], 1
    for epoch in range(1, run.timeline.epochs + 1):
        if run.timeline.begins_release(epoch):
            tied = run.runner.fetch(state, num_members=members)
            members = run.timeline.members(epoch)
            state = run.runner.place(run.released(tied), num_members=members)
        order, after = epoch_order(0, epoch, run.num_examples), []
        for placed, _ in run.runner.cycles(
            state, order, run.timeline.rates(epoch), epoch=epoch, num_members=members
        ):
            state = placed
            after.append(run.runner.fetch(state, num_members=members))
        found.append(after)
    return found[first_epoch - 1 :]


def weights(state):
    return state.shared, state.members


def trained_weights(run, folder):
    final, _ = run.run(Workdir(folder))
    return weights(final)


def assert_close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), found, wanted)


@pytest.mark.slow
def test_a_moving_average_is_that_of_a_slow_loop_over_cycles(tmp_path):
    run = training("swa.start_epoch=3", "swa.decay=0.8")
    wanted = None
    for state in sum(states(run, first_epoch=3), []):
        if wanted is None:
            wanted = weights(state)
        wanted = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, wanted, weights(state))
    assert_close(trained_weights(run, tmp_path), wanted)


@pytest.mark.slow
def test_the_mean_of_the_last_epochs_is_that_of_the_saved_weights(tmp_path):
    """Latest weight averaging over k epochs: SWA from the k-th to last one on."""
    run = training("swa.start_epoch=3")
    last = [weights(epoch[-1]) for epoch in states(run, first_epoch=3)]
    assert len(last) == 2
    assert_close(trained_weights(run, tmp_path), jax.tree.map(lambda a, b: (a + b) / 2, *last))


@pytest.mark.slow
def test_a_moving_average_is_resumed_bit_for_bit(tmp_path):
    """Also in the middle of an epoch that is averaged."""
    fields = ("swa.start_epoch=3", "swa.decay=0.8", "checkpoint.every_minutes=1e-9")
    whole = trained_weights(training(*fields, "checkpoint.keep=99"), tmp_path / "run")
    saved = sorted((tmp_path / "run/checkpoints").iterdir(), key=lambda path: int(path.name))
    assert len(saved) > 12
    for number in (len(saved) // 2, len(saved) - 8):
        folder = tmp_path / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        saved[number].rename(folder / saved[number].name)
        resumed = trained_weights(training(*fields, "checkpoint.keep=99"), folder.parent)
        jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.slow
def test_members_that_see_the_same_images_in_the_same_crops_stay_equal():
    fields = "late_phase.same_minibatch=True", "train.crop_padding=2"
    last = states(training(*fields))[-1]
    assert len(last) == 6
    for leaf in jax.tree.leaves((last[-1].members, last[-1].member_model_state)):
        np.testing.assert_array_equal(leaf[0], leaf[1])


@pytest.mark.slow
def test_the_mean_gradient_of_equal_members_on_the_same_images_is_that_of_one_network():
    together = ("late_phase.same_minibatch=True", "late_phase.shared_grad_scale=0.5")
    same, one, apart = (
        states(run)
        for run in (training(*together), training("late_phase.num_members=1"), training())
    )
    assert [len(epoch) for epoch in same] == [6] * 4 and len(apart[-1]) == 3
    for state, single in zip(same[-1], one[-1], strict=True):
        assert_close(state.shared, single.shared)
        both = jax.tree.map(lambda leaf: np.repeat(leaf, 2, axis=0), single.members)
        assert_close(state.members, both)
    scale = apart[-1][-1].members["bn1"]["scale"]
    assert (scale[0] != scale[1]).any()


@pytest.mark.parametrize("num_groups", [1, 2])
def test_every_member_has_each_minibatch_of_the_epoch(num_groups):
    order = np.random.default_rng(0).permutation(26)
    found = split_order(
        order, num_members=2, batch_size=8, num_microbatches=1, num_devices=4,
        num_groups=num_groups, same_minibatch=True,
    )  # fmt: skip
    own, size = 2 // num_groups, 4 // num_groups
    assert found.shape == (3, 4, own, 8 // size)
    for group in range(num_groups):
        of_group = found[:, group * size : (group + 1) * size]  # [cycles, devices, members, part]
        for member in range(own):
            np.testing.assert_array_equal(of_group[:, :, member].reshape(-1), order[:24])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("swa.decay=0.9",), r"swa.decay = 0.9: .* with swa.start_epoch > 0"),
        (("swa.decay=1", "swa.start_epoch=3"), "swa.decay = 1.0: must be 0, or > 0 and < 1"),
        (("swa.decay=-0.1", "swa.start_epoch=3"), "swa.decay = -0.1: must be 0"),
        (
            ("late_phase.same_minibatch=True", "late_phase.inner_training=False"),
            "same_minibatch = True: must be False where each minibatch goes to a random member",
        ),
    ],
)
def test_impossible_values_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        training(*fields)
