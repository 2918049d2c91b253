"""Figures that no predictions can have are refused wherever they are read, all others are not."""

import json
import re

import numpy as np
import pytest
from comparison_files import OVERVIEW, results, write, write_overview

from lpw_jax import compare
from lpw_jax.comparison import overview, published, runs
from lpw_jax.errors import UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import bounds, metrics

GOOD = {"accuracy": 0.96, "nll": 0.14, "brier": 0.06, "ece": 0.01}
IMPOSSIBLE = [
    ({"accuracy": 96.0}, r"accuracy must be 0 to 1, found 96 \(as a percentage that is 0.96\)"),
    ({"accuracy": float("nan")}, "accuracy must be a finite number"),
    ({"accuracy": "0.96"}, "accuracy must be a finite number"),
    ({"nll": 0.14 / 10_000}, "nll must be at least 0.02773, what wrong predictions have"),
    ({"nll": 0.14 / np.log(10)}, "nll must be at least 0.07364, by the brier of 0.06"),
    ({"nll": -0.1}, "nll must be 0 to inf"),
    ({"brier": 0.006}, "brier must be at least 0.02, what wrong predictions have"),
    ({"brier": 6.0}, "brier must be 0 to 2"),
    ({"accuracy": 1.0, "brier": 1.2, "nll": 2.0}, "brier must be at most 0.9, at accuracy 1"),
    ({"ece": 1.2}, "ece must be 0 to 1, found 1.2"),
    ({"ece": 0.3}, "ece must be at most 0.23.., by the brier of 0.06"),
    ({"accuracy": 0.02, "nll": 3.0, "brier": 1.5}, "ece must be at least 0.08, as no confidence"),
    ({"top5_accuracy": 0.9}, "top5_accuracy must be at least 0.96, the accuracy"),
    ({"accuracy": 0.5, "nll": 0.6, "brier": 0.4, "top5_accuracy": 0.6}, "nll must be at least"),
    ({"accuracy": 1.0, "nll": 2.5}, "nll must be at most 2.303, at accuracy 1"),
    ({"ood_mean_auroc": 95.0}, "ood_mean_auroc must be 0 to 1"),
]


def test_without_a_brier_score_the_accuracy_bounds_the_calibration_error():
    known = {"accuracy": 0.96, "ece": 0.9}
    assert bounds.impossible(known, 10) == ""
    fault = bounds.impossible(known | {"ece": 0.91}, 10)
    assert fault.startswith("ece must be at most 0.904, at accuracy 0.96")


@pytest.mark.parametrize(("changes", "rule"), IMPOSSIBLE)
def test_impossible_figures_are_refused_with_rule_and_value(changes, rule):
    found = {"data": {"num_classes": 10}, "views": {"collapsed": GOOD | changes}}
    assert re.match(f"views.collapsed: {rule}", bounds.impossible_results(found))
    assert bounds.impossible(GOOD, 10) == ""


def test_figures_of_predictions_are_possible_however_bad_they_are():
    rng = np.random.default_rng(0)
    for _ in range(500):
        classes, count = rng.choice([2, 3, 10, 100]), rng.integers(1, 6)
        logits = rng.normal(size=(count, classes)) * rng.choice([0, 0.1, 1, 5, 30])
        if rng.random() < 0.5:  # a few equally probable classes, the best that a wrong one can be
            logits = np.where(rng.random(logits.shape) < 2 / classes, 0.0, -50.0)
        found = metrics.classification_metrics(
            metrics.log_softmax(logits), rng.integers(0, classes, count)
        )
        assert bounds.impossible(found, int(classes)) == "", found


def test_an_ensemble_is_no_worse_than_its_members_on_average():
    members = [GOOD, GOOD | {"nll": 0.16}]
    assert bounds.impossible_views({"ensemble": GOOD | {"nll": 0.15}, "members": members}) == ""
    fault = bounds.impossible_views({"ensemble": GOOD | {"nll": 0.16}, "members": members})
    assert (
        fault == "ensemble: nll must be at most 0.15, the mean of the members (Jensen), found 0.16"
    )


@pytest.mark.parametrize(
    ("view", "name", "value"),
    [("collapsed", "nll", 1e-4), ("ensemble", "accuracy", 96.4), ("collapsed", "auroc", 95.0)],
)
def test_a_results_file_is_read_only_if_it_is_possible(view, name, value, tmp_path, capsys):
    found = results("cifar10_bn")
    if name == "auroc":
        found["views"][view]["ood"]["SVHN"] = {"auroc": value}
    else:
        found["views"][view][name] = value
    folder = write(tmp_path, found)
    with pytest.raises(UserError, match=f"results.json: .*views.{view}.*{name}.*must be"):
        Workdir(folder).read_results()
    with pytest.raises(UserError, match=f"results.json: .*views.{view}.*{name}.*must be"):
        runs.gather([folder], left_out=[])
    assert compare.main([folder]) == 2 and name in capsys.readouterr().err


def test_views_that_are_none_are_no_figures(tmp_path):
    (tmp_path / "results.json").write_text(
        json.dumps(results("cifar10_bn") | {"train": {}, "views": {"collapsed": 3}})
    )
    with pytest.raises(UserError, match="must be JSON as a run writes it"):
        Workdir(tmp_path).read_results()


@pytest.mark.parametrize(
    ("figures", "rule"),
    [
        ({"nll": 0.14}, "final_nll must be a sum over the 10,000 test images"),
        ({"nll": 200.0}, "final_nll must be a sum.*nll must be at least 0.0245"),
        ({"accuracy": 96.46}, "final_test_acc must be 0 to 1, found 96.46"),
    ],
)
def test_figures_of_the_pytorch_code_in_another_unit_are_refused(figures, rule, tmp_path):
    with pytest.raises(UserError, match=rule):
        runs.gather([write_overview(tmp_path, **figures)], left_out=[])


def test_aurocs_of_the_pytorch_code_are_fractions(tmp_path):
    file = write_overview(tmp_path, text=OVERVIEW.replace("0.942", "94.2"))
    with pytest.raises(UserError, match="final_auroc must be 0 to 1, found 94.2"):
        overview.read(runs.storage.path(file))


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"accuracy": 0.9646, "std": 0.15}, "accuracy must be a percentage"),
        ({"accuracy": 196.0}, "accuracy must be a percentage"),
        ({"accuracy": 96.0, "std": -1.0}, "std must be 0 to 50"),
        ({"accuracy": 96.0, "nll": 0.02, "ece": 0.01}, "nll must be at least 0.0277"),
        ({"accuracy": 96.0, "nll": 0.159, "ece": 2.31}, "ece must be 0 to 1"),
    ],
)
def test_published_figures_are_possible(row, rule):
    assert published.impossible(row).startswith(rule)
    assert published.sides() and published.context("cifar10")
