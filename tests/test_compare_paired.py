"""Runs of equal seeds are compared image by image, if they predicted the same images."""

import json

import numpy as np
import pytest
from comparison_files import results, write, write_predictions, write_seeds

from lpw_jax import compare


def call(capsys, *arguments):
    """(exit code, stdout)."""
    code = compare.main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


@pytest.fixture
def trees(tmp_path):
    """Three seeds of late-phase and of base SGD, without predictions."""
    write_seeds(tmp_path / "cifar10_bn", "cifar10_bn", [96.35, 96.45, 96.6])
    write_seeds(tmp_path / "cifar10_sgd", "cifar10_sgd", [95.9, 96.0, 96.15])
    return tmp_path


def report(folder):
    return json.loads((folder / "comparison.json").read_text())


def test_runs_on_the_same_images_are_compared_seed_by_seed(trees, tmp_path, capsys):
    for name, wrong in (("cifar10_bn", [0]), ("cifar10_sgd", [0, 1, 2, 3, 4, 5, 6])):
        for seed in (0, 1):
            folder = trees / name / f"seed{seed}"
            write_predictions(folder, seed=seed, wrong=wrong, ood=["SVHN"])
    code, terminal = call(
        capsys, trees / "cifar*", "--baseline", "cifar10_sgd", "--out", tmp_path / "out"
    )
    (comparison,) = report(tmp_path / "out")["comparisons"]
    rows = {(r["seed"], r["view"], r["quantity"]): r for r in comparison["paired"]}
    assert code == 0 and set(rows) == {
        (seed, view, quantity)
        for seed in (0, 1)
        for view in ("collapsed", "ensemble")
        for quantity in ("accuracy", "nll", "auroc_SVHN")
    }
    accuracy = rows[0, "collapsed", "accuracy"]
    assert (accuracy["only_ours"], accuracy["only_theirs"]) == (6, 0)
    assert accuracy["difference"] == pytest.approx(15)
    assert accuracy["p"] == pytest.approx(2 / 2**6)  # six heads of six
    nll = rows[1, "ensemble", "nll"]
    assert nll["low"] < nll["difference"] < nll["high"] < 0
    (missing,) = comparison["paired_missing"]
    assert "cifar10_bn/seed2" in missing and "cifar10_sgd/seed2" in missing
    assert "image by image" in terminal


def test_other_test_images_are_not_paired(trees, tmp_path, capsys):
    write_predictions(trees / "cifar10_bn" / "seed0", seed=0)
    write_predictions(trees / "cifar10_sgd" / "seed0", seed=0, labels=np.arange(40) // 4)
    call(capsys, trees / "cifar*", "--out", tmp_path / "out")
    (comparison,) = report(tmp_path / "out")["comparisons"]
    assert comparison["paired"] == []
    assert any("test images differ" in line for line in comparison["paired_missing"])


def paired_pair(folder, capsys, ours, theirs):
    """The comparison and the terminal of two runs with predictions, whose `data` are given."""
    for name, data in (("cifar10_sgd", theirs), ("cifar10_bn", ours)):
        write(folder / name, results(name, **data))
        write_predictions(folder / name, seed=0, ood=["SVHN", "TIN"])
    _, terminal = call(
        capsys, folder / "cifar10_sgd", folder / "cifar10_bn", "--out", folder / "out"
    )
    (comparison,) = report(folder / "out")["comparisons"]
    return comparison, " ".join(terminal.split())


def test_test_images_are_told_by_their_digests_where_both_have_them(tmp_path, capsys):
    both, other = {"test_sha256": "a" * 64}, {"test_sha256": "b" * 64}
    comparison, _ = paired_pair(tmp_path / "other", capsys, both, other)
    assert comparison["paired"] == []
    comparison, terminal = paired_pair(tmp_path / "same", capsys, both, both)
    by = {row["quantity"]: row["images"] for row in comparison["paired"]}
    assert by == {"accuracy": "digests", "nll": "digests",
                  "auroc_SVHN": "labels", "auroc_TIN": "labels"}  # fmt: skip
    assert "only the labels of the test images" not in terminal
    comparison, terminal = paired_pair(tmp_path / "old", capsys, {}, both)
    assert {row["images"] for row in comparison["paired"]} == {"labels"}
    assert "seed 0: only the labels of the test images could be compared" in terminal


def test_other_images_outside_are_not_paired(tmp_path, capsys):
    data = [
        {"test_sha256": "a" * 64, "ood_digests": {"SVHN": "c" * 64, "TIN": end * 64}}
        for end in "de"
    ]
    comparison, terminal = paired_pair(tmp_path, capsys, *data)
    rows = {row["quantity"]: row["images"] for row in comparison["paired"]}
    assert rows == dict.fromkeys(("accuracy", "nll", "auroc_SVHN"), "digests")
    assert any("on TIN: its images differ" in line for line in comparison["paired_missing"])
    assert "only the" not in terminal


def test_marks_stand_at_paired_rows_too(tmp_path, capsys):
    comparison, terminal = paired_pair(
        tmp_path, capsys, {"note": "a JPEG copy"}, {"ood_note": "TIN: 40 of 50 images"}
    )
    marks = {row["quantity"]: row["marks"] for row in comparison["paired"]}
    assert marks["accuracy"] == marks["nll"] == "other data"
    assert marks["auroc_TIN"] == "other data, other OOD images"
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "McNemar (other data)" in markdown
    assert "recognised by what files say" in terminal and "passes for the original" in terminal


def test_damaged_predictions_are_named_and_the_rest_goes_on(trees, tmp_path, capsys):
    for name in ("cifar10_bn", "cifar10_sgd"):
        for seed in (0, 1):
            write_predictions(trees / name / f"seed{seed}", seed=seed)
    damaged = trees / "cifar10_bn" / "seed0" / "predictions" / "test.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    code, _ = call(capsys, trees / "cifar*", "--out", tmp_path / "out")
    (comparison,) = report(tmp_path / "out")["comparisons"]
    assert code == 0 and {row["seed"] for row in comparison["paired"]} == {1}
    assert any(str(damaged) in line for line in comparison["paired_missing"])
