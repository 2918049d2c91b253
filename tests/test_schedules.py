"""Rates, phases and lengths of epochs against the published schedule."""

import pytest
from short_run import DIGITS

from lpw_jax.config import load_config
from lpw_jax.data import cycles_per_epoch
from lpw_jax.training import schedules
from lpw_jax.training.timeline import Timeline

CIFAR10_BN = dict(anneal_start=100, anneal_end=180, end_factor=0.01)


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(1, 1.0), (101, 1.0), (102, 1 - 0.99 / 80), (141, 0.505), (181, 0.01), (200, 0.01)],
)
def test_the_factor_is_linear_between_start_and_end(epoch, factor):
    assert schedules.annealing_factor(epoch, **CIFAR10_BN) == pytest.approx(factor, abs=1e-15)


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


def test_before_the_release_everything_has_the_shared_rates():
    options = dict(
        anneal_start=0, anneal_end=10, learning_rate=0.1, end_learning_rate=0.01,
        weight_decay=5e-4, late_learning_rate=0.3, late_weight_decay=5e-3, shared_grad_scale=0.25,
    )  # fmt: skip
    tied = schedules.rates(6, released=False, **options)
    assert tied == pytest.approx((0.055, 5e-4, 0.055, 5e-4, 1.0))
    late = schedules.rates(6, released=True, **options)
    assert late == pytest.approx((0.055, 5e-4, 0.165, 5e-3, 0.25))


def test_fine_tuning_divides_rates_and_drops_only_the_shared_one():
    """Reference, ImageNet: epochs from 0, a tenth from epoch 10 on."""
    options = dict(
        anneal_start=9, anneal_end=10, learning_rate=1e-3, end_learning_rate=1e-4,
        weight_decay=1e-4, late_learning_rate=1e-3, late_weight_decay=1e-4, shared_grad_scale=1.0,
        anneal_late=False, num_microbatches=2, shared_rate_divisor=10,
    )  # fmt: skip
    for epoch in range(1, 21):
        found = schedules.rates(epoch, released=True, **options)
        shared = 0.001 / 2 / 10 * (0.1 if epoch - 1 >= 10 else 1)
        assert found == pytest.approx((shared, 1e-4, 0.001 / 2, 1e-4, 1.0), rel=1e-14)
    tied = schedules.rates(1, released=False, **options)
    assert tied == pytest.approx((0.0005, 1e-4, 0.0005, 1e-4, 1.0))


def test_the_remainder_of_an_epoch_is_dropped():
    assert cycles_per_epoch(50_000, batch_size=128, num_members=1) == 390
    assert cycles_per_epoch(50_000, batch_size=128, num_members=10) == 39


@pytest.mark.parametrize(
    ("every", "evaluated"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (7, [5])]
)
def test_the_test_set_is_evaluated_every_so_many_epochs_and_at_the_end(every, evaluated):
    fields = {"train.epochs": 5, "evaluate.every_epochs": every}
    fields |= {"late_phase.release_epoch": 2, "train.anneal_start": 1, "train.anneal_end": 2}
    config = load_config(DIGITS, [f"--config.{name}={value}" for name, value in fields.items()])
    timeline = Timeline(config, 1000)
    assert [epoch for epoch in range(1, 6) if timeline.is_evaluated(epoch)] == evaluated
