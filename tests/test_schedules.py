"""Rates, phases and lengths of epochs against the published schedule."""

import pytest

from lpw_jax import schedules

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


def test_the_remainder_of_an_epoch_is_dropped():
    assert schedules.cycles_per_epoch(50_000, batch_size=128, num_members=1) == 390
    assert schedules.cycles_per_epoch(50_000, batch_size=128, num_members=10) == 39
