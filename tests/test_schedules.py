"""Rates, phases and lengths of epochs against the published schedule."""

import math

import pytest
from short_run import DIGITS

from lpw_jax.config import load_config
from lpw_jax.data import cycles_per_epoch
from lpw_jax.training import schedules
from lpw_jax.training.timeline import Timeline

CIFAR10_BN = schedules.Schedule("annealing", start=100, end=180, end_factor=0.01)
PHASES = ("train.epochs=20", "late_phase.release_epoch=8")


def timeline(*fields, num_examples=1000):
    config = load_config(DIGITS, [f"--config.{field}" for field in (*PHASES, *fields)])
    return Timeline(config, num_examples)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(1, 1.0), (101, 1.0), (102, 1 - 0.99 / 80), (141, 0.505), (181, 0.01), (200, 0.01)],
)
def test_the_factor_is_linear_between_start_and_end(epoch, factor):
    assert CIFAR10_BN(epoch) == pytest.approx(factor, abs=1e-15)


@pytest.mark.parametrize(
    ("epoch", "release", "swa", "phase"),
    [
        (120, 120, 0, "tied"),
        (121, 120, 0, "late"),
        (1, 0, 0, "late"),
        (200, -1, 0, "tied"),
        (160, 100, 161, "late"),
        (161, 100, 161, "SWA"),
        (170, 100, 161, "SWA"),
        (161, -1, 161, "SWA"),
    ],
)
def test_the_release_is_at_the_end_of_its_epoch(epoch, release, swa, phase):
    assert schedules.phase(epoch, release_epoch=release, swa_start_epoch=swa) == phase


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(60, 1), (61, 0.2), (120, 0.2), (121, 0.04), (160, 0.04), (161, 0.008), (200, 0.008)],
)
def test_multistep_rates_drop_after_each_milestone(epoch, factor):
    """Published code: rate * gamma ** (number of milestones <= epoch - 1)."""
    multistep = schedules.Schedule("multistep", milestones=(60, 120, 160), milestone_factor=0.2)
    assert multistep(epoch) == pytest.approx(factor, rel=1e-14)


def test_half_a_cosine_leads_to_the_last_rate():
    """Loshchilov and Hutter: end + (1 - end) (1 + cos(pi i / T)) / 2."""
    cosine = schedules.Schedule("cosine", start=10, end=30, end_factor=0.1)
    for epoch in range(1, 50):
        i = min(max(epoch - 1 - 10, 0), 20)
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * i / 20)) / 2
        assert cosine(epoch) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", ["annealing", "cosine", "multistep"])
def test_a_warm_up_is_linear_and_multiplies_the_schedule(name):
    options = dict(start=1, end=9, end_factor=0.1, milestones=(2, 5), milestone_factor=0.5)
    plain, warm = (schedules.Schedule(name, **options, warmup_epochs=n) for n in (0, 4))
    factors = [warm(epoch) / plain(epoch) for epoch in range(1, 9)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1], rel=1e-14)


def test_before_the_release_everything_has_the_shared_rates():
    plan = timeline(
        "train.anneal_start=0", "train.anneal_end=10", "train.end_learning_rate=0.01",
        "late_phase.learning_rate=0.3", "late_phase.weight_decay=5e-3",
        "late_phase.shared_grad_scale=0.25",
    )  # fmt: skip
    assert plan.rates(6) == pytest.approx((0.055, 5e-4, 0.055, 5e-4, 1.0))
    assert plan.rates(9) == pytest.approx((0.028, 5e-4, 0.084, 5e-3, 0.25))


def test_fine_tuning_divides_rates_and_drops_only_the_shared_one():
    """Reference, ImageNet: epochs from 0, a tenth from epoch 10 on."""
    fields = [
        "train.anneal_start=9", "train.anneal_end=10", "train.learning_rate=1e-3",
        "train.end_learning_rate=1e-4", "train.weight_decay=1e-4", "train.num_microbatches=2",
        "late_phase.learning_rate=1e-3", "late_phase.weight_decay=1e-4", "late_phase.anneal=False",
        "late_phase.divide_shared_rate=True", "late_phase.num_members=10", "train.batch_size=64",
    ]  # fmt: skip
    plan = timeline(*fields, "late_phase.release_epoch=0")
    for epoch in range(1, 21):
        shared = 0.001 / 2 / 10 * (0.1 if epoch - 1 >= 10 else 1)
        assert plan.rates(epoch) == pytest.approx((shared, 1e-4, 0.001 / 2, 1e-4, 1.0), rel=1e-14)
    tied = timeline(*fields).rates(1)
    assert tied == pytest.approx((0.0005, 1e-4, 0.0005, 1e-4, 1.0))


@pytest.mark.parametrize("schedule", ["annealing", "cosine", "multistep"])
def test_rates_of_a_run_follow_the_schedule_that_its_config_names(schedule):
    plan = timeline(
        f"train.schedule={schedule}", "train.milestones=2,9", "train.milestone_factor=0.1",
        "train.warmup_epochs=3", "train.anneal_start=4", "train.anneal_end=11",
    )  # fmt: skip
    end = 0.001 / 0.1
    for epoch in range(1, 21):
        i = epoch - 1
        along = min(max((i - 4) / 7, 0), 1)
        factor = {
            "annealing": 1 - along * (1 - end),
            "cosine": end + (1 - end) * (1 + math.cos(math.pi * along)) / 2,
            "multistep": 0.1 ** ((i >= 2) + (i >= 9)),
        }[schedule] * min(1, epoch / 4)
        rates = plan.rates(epoch)
        assert rates.shared_learning_rate == pytest.approx(0.1 * factor, rel=1e-12)
        assert rates.late_learning_rate == pytest.approx(0.1 * factor, rel=1e-12)


def test_frozen_shared_weights_have_no_rate_and_members_go_on():
    plan, moving = timeline("train.freeze_epoch=10"), timeline()
    for epoch in range(1, 21):
        rates, expected = plan.rates(epoch), moving.rates(epoch)
        if epoch > 10:
            expected = expected._replace(shared_learning_rate=0.0)
        assert rates == expected and expected.late_learning_rate > 0


def test_the_remainder_of_an_epoch_is_dropped():
    assert cycles_per_epoch(50_000, batch_size=128, num_members=1) == 390
    assert cycles_per_epoch(50_000, batch_size=128, num_members=10) == 39


@pytest.mark.parametrize(
    ("every", "evaluated"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (7, [5])]
)
def test_the_test_set_is_evaluated_every_so_many_epochs_and_at_the_end(every, evaluated):
    fields = {"train.epochs": 5, "evaluate.every_epochs": every}
    fields |= {"late_phase.release_epoch": 2, "train.anneal_start": 1, "train.anneal_end": 2}
    plan = timeline(*(f"{name}={value}" for name, value in fields.items()))
    assert [epoch for epoch in range(1, 6) if plan.is_evaluated(epoch)] == evaluated
