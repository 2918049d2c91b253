"""The schedule as a table, read back from the rendered text, and as a picture."""

import io

import pytest
from rich.console import Console
from short_run import CONFIGS

from lpw_jax.config import load_config
from lpw_jax.display import schedule_picture, schedule_report
from lpw_jax.training.timeline import Timeline

CONFIG = str(CONFIGS / "cifar10_bn.py")
PLANS = {
    "cifar10_bn": [],
    "swa": [
        "late_phase.release_epoch=100", "swa.start_epoch=161", "train.anneal_start=80",
        "train.anneal_end=144", "train.end_learning_rate=0.05", "late_phase.learning_rate=0.3",
        "late_phase.weight_decay=5e-3", "late_phase.shared_grad_scale=0.1",
    ],
    "tied": ["late_phase.release_epoch=-1", "train.end_learning_rate=0.0"],
    "released_at_once": [
        "train.epochs=3", "late_phase.release_epoch=0", "train.anneal_start=0", "train.anneal_end=1"
    ],
    "narrow": ["late_phase.release_epoch=190", "swa.start_epoch=196"],
    "one_epoch": ["train.epochs=1", "late_phase.release_epoch=-1"],
    "multistep": ["train.schedule=multistep", "train.warmup_epochs=3"],
    "frozen": ["train.freeze_epoch=150"],
}  # fmt: skip


def plan(name):
    config = load_config(CONFIG, [f"--config.{field}" for field in PLANS[name]])
    return Timeline(config, 50_000).plan()


def rows(epochs):
    """Cells of the table's body at 80 columns, 'a -> b' as one cell."""
    terminal = Console(file=io.StringIO(), width=80, force_terminal=False)
    terminal.print(schedule_report.schedule_table(epochs))
    lines = terminal.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    body = lines[[set(line.strip()) == {"─"} for line in lines].index(True) + 1 :]
    return [line.replace(" -> ", "->").split() for line in body]


def test_equal_epochs_are_one_row_and_an_annealing_is_one():
    assert rows(plan("cifar10_bn")) == [
        ["1-101", "tied", "1", "390", "0.1", "0.0005", "0.1", "0.0005"],
        ["102-120", "tied", "1", "390", "0.0988->0.0765", "0.0005", "0.0988->0.0765", "0.0005"],
        ["121-181", "late", "10", "39", "0.0752->0.001", "0.0005", "0.0752->0.001", "0.0005"],
        ["182-200", "late", "10", "39", "0.001", "0.0005", "0.001", "0.0005"],
    ]


def test_phases_are_rows_of_their_own_and_gamma_has_a_column_where_it_matters():
    assert rows(plan("swa"))[-2:] == [
        ["146-160", "late", "10", "39", "0.05", "0.0005", "0.15", "0.005", "0.1"],
        ["161-200", "SWA", "10", "39", "0.05", "0.0005", "0.15", "0.005", "0.1"],
    ]


def test_drops_warm_up_and_frozen_weights_are_rows():
    warm_up, *others = (row[0:1] + row[4:5] + row[6:7] for row in rows(plan("multistep")))
    assert warm_up == ["1-4", "0.025->0.1", "0.025->0.1"]
    assert others == [
        [epochs, rate, rate]
        for epochs, rate in [
            ("5-60", "0.1"), ("61-120", "0.02"), ("121-160", "0.004"), ("161-200", "0.0008"),
        ]
    ]  # fmt: skip
    frozen = [(row[0], row[4]) for row in rows(plan("frozen"))]
    assert frozen[-3][0] == "121-150" and frozen[-2:] == [("151-181", "0"), ("182-200", "0")]


def test_a_cosine_is_one_row_in_each_phase():
    fields = ["train.schedule=cosine", "late_phase.release_epoch=-1"]
    config = load_config(CONFIG, [f"--config.{field}" for field in fields])
    found = rows(Timeline(config, 50_000).plan())
    assert [(row[0], row[4]) for row in found] == [
        ("1-101", "0.1"), ("102-181", "0.1->0.001"), ("182-200", "0.001")
    ]  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_the_rows_tell_the_rates_of_every_epoch(name):
    epochs = plan(name)
    told = {}
    for numbers, phase, num_members, cycles, shared, _, late, *_ in rows(epochs):
        first, last = int(numbers.split("-")[0]), int(numbers.split("-")[-1])
        for number in range(first, last + 1):
            share = (number - first) / max(last - first, 1)
            rates = []
            for cell in (shared, late):
                start, end = float(cell.split("->")[0]), float(cell.split("->")[-1])
                rates.append(start + share * (end - start))
            assert number not in told
            told[number] = (phase, int(num_members), int(cycles)), rates
    assert list(told) == [epoch.number for epoch in epochs]
    for epoch in epochs:
        words, rates = told[epoch.number]
        assert words == (epoch.phase, epoch.num_members, epoch.cycles)
        expected = [epoch.rates.shared_learning_rate, epoch.rates.late_learning_rate]
        assert rates == pytest.approx(expected, rel=0.01, abs=2e-4)


def drawn(name):
    (axes,) = schedule_picture.draw_schedule(plan(name)).axes
    return axes, [text.get_text().strip() for text in axes.texts]


def test_the_picture_names_phases_release_and_start_of_swa():
    axes, words = drawn("swa")
    assert words == ["tied", "late", "SWA", "release after epoch 100", "SWA from epoch 161"]
    assert [line.get_xdata()[0] for line in axes.lines] == [100, 160]
    assert drawn("tied")[1] == ["tied"]


def test_names_of_phases_that_would_overlap_are_left_out():
    assert drawn("narrow")[1] == ["tied", "release after epoch 190", "SWA from epoch 196"]


def test_the_picture_shows_the_rate_within_each_epoch():
    epochs = plan("swa")
    axes, _ = drawn("swa")
    shared, late = (stairs.get_data() for stairs in axes.patches if hasattr(stairs, "get_data"))
    assert [*shared.values] == [epoch.rates.shared_learning_rate for epoch in epochs]
    assert [*late.values] == [epoch.rates.late_learning_rate for epoch in epochs]
    assert [*shared.edges] == [*late.edges] == list(range(201))  # epoch 1 is from 0 to 1


def test_the_rates_axis_is_logarithmic_unless_a_rate_is_zero():
    assert drawn("cifar10_bn")[0].get_yscale() == "log"
    assert drawn("tied")[0].get_yscale() == "linear"


@pytest.mark.parametrize("name", ["cifar10_bn", "one_epoch"])
def test_the_picture_is_a_png(name):
    assert schedule_picture.schedule_png(plan(name)).startswith(b"\x89PNG\r\n\x1a\n")
