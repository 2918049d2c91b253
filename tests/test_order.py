"""Arrays that only seem to belong together are told by their content."""

import dataclasses
import json
import shutil

import corruption_files
import numpy as np
import pytest
import tfds_fixtures
from comparison_files import results, write

from lpw_jax import evaluate
from lpw_jax.comparison import predictions, runs
from lpw_jax.data import Dataset, corruptions, load_dataset, overlap
from lpw_jax.data.corruptions import SEVERITIES
from lpw_jax.errors import UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import agreement, metrics

IMAGES, LABELS = tfds_fixtures.arrays("cifar10", "test")
OTHER = np.roll(np.arange(len(LABELS)), 7)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", data_dir="")


def cifar(unofficial=""):
    none = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int32)
    return Dataset(
        "cifar10", *none, *none, IMAGES, LABELS, 10, (0.5,) * 3, (0.5,) * 3, "", unofficial
    )


def changed(folder, name, change):
    """The corrupted images in `folder` with those of one corruption, [5, N, ...], changed."""
    file = folder / f"{name}.npy"
    images = np.load(file).reshape(SEVERITIES, *IMAGES.shape)
    np.save(file, change(images).reshape(-1, *IMAGES.shape[1:]))
    return corruptions.load("cifar10", str(folder))


@pytest.mark.parametrize("name", ["fog"])
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda images: images[:, OTHER], "must be in the order of labels.npy"),
        (lambda images: images[:, [1, 0, 3, 2, *range(4, len(LABELS))]], "in the order of labels"),
        (lambda images: images[:, :, ::-1], "must be corrupted test images"),
        (
            lambda images: np.concatenate([images[:3], images[3:][:, OTHER]]),
            "severity 4 must be those of severity 3",
        ),
        (
            lambda images: np.random.default_rng(0).integers(0, 256, images.shape, np.uint8),
            "must be corrupted test images of cifar10",
        ),
    ],
)
def test_corrupted_images_in_another_order_are_refused(name, change, rule, tmp_path):
    folder = corruption_files.write(tmp_path / "C", IMAGES, LABELS)
    assert corruptions.load("cifar10", str(folder)).check_order(cifar())
    with pytest.raises(UserError, match=f"{name}.npy: .*{rule}"):
        changed(folder, name, change).check_order(cifar())


def test_the_order_of_images_that_are_not_there_cannot_be_told(tmp_path):
    folder = corruption_files.write(tmp_path / "C", IMAGES[:, ::-1], LABELS)
    assert not corruptions.load("cifar10", str(folder)).check_order(cifar("a part"))


def test_the_order_of_the_test_set_itself_does_not_matter(tmp_path):
    folder = corruption_files.write(tmp_path / "C", IMAGES[::-1], LABELS[::-1])
    assert corruptions.load("cifar10", str(folder)).check_order(cifar())


@pytest.mark.parametrize("split", ["test", "validation"])
def test_training_images_are_not_evaluated_on(split, digits):
    assert overlap.in_training(digits) == {"test": 0, "validation": 0}
    same = {
        f"{split}_images": digits.train_images[5:25],
        f"{split}_labels": digits.train_labels[5:25],
    }
    with pytest.raises(UserError, match=f"digits: {split} images must be others than the training"):
        overlap.in_training(dataclasses.replace(digits, **same))
    some = np.concatenate([digits.train_images[:3], digits.test_images])
    found = overlap.in_training(dataclasses.replace(digits, **{f"{split}_images": some}))
    assert found[split] == 3


def test_out_of_distribution_images_are_none_of_the_dataset(digits):
    for own in (digits.train_images, digits.test_images):
        with pytest.raises(UserError, match="OOD set TIN: 40 of its 40 images are of digits"):
            overlap.check_outside(digits, {"TIN": own[:40]})
    mixed = np.concatenate([digits.test_images[:2], 255 - digits.test_images])
    (line,) = overlap.check_outside(digits, {"SVHN": mixed})
    assert line.startswith("OOD set SVHN: 2 of its 362 images")


@pytest.mark.parametrize("field", ["train_labels", "test_labels", "train_images", "test_images"])
def test_labels_in_another_order_than_the_images_are_noticed(field, digits):
    assert overlap.labels_look_random(digits) == ""
    shuffled = np.random.default_rng(0).permutation(getattr(digits, field))
    line = overlap.labels_look_random(dataclasses.replace(digits, **{field: shuffled}))
    assert "are images and labels in the same order?" in line


def network(seed, count=2000):
    """Test predictions of one of several alike networks."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    labels = np.arange(count) % 10
    hard = shared.exponential(size=(count, 1))
    logits = 3 * np.eye(10)[labels] + hard * own.normal(size=(count, 10))
    return {"collapsed": logits.astype(np.float32), "label": labels}


def scores(test):
    return metrics.example_scores(metrics.log_softmax(test["collapsed"]), test["label"])["nll"]


def reordered_within_classes(test):
    order = np.arange(len(test["label"])).reshape(-1, 10)
    order = np.random.default_rng(1).permutation(order).reshape(-1)
    return {name: array[order] for name, array in test.items()}


def test_networks_err_alike_on_images_in_one_order():
    one, other = network(1), network(2)
    assert agreement.in_one_order(scores(one), scores(other))
    moved = reordered_within_classes(other)
    np.testing.assert_array_equal(moved["label"], one["label"])
    assert not agreement.in_one_order(scores(one), scores(moved))


@pytest.mark.parametrize(("likeness", "is_one"), [(0.1, False), (0.2, True)])
def test_chance_alone_makes_no_order(likeness, is_one):
    """Of 1,000 images unlike scores have a correlation of 0 with a deviation of 0.03."""
    one, own = np.random.default_rng(0).standard_normal((2, 1000))
    assert agreement.in_one_order(one, likeness * one + own) == is_one


def test_predictions_in_another_order_are_not_compared(tmp_path):
    found = []
    for name, seed in (("cifar10_bn", 1), ("cifar10_sgd", 2)):
        test = network(seed)
        test["ensemble"] = metrics.log_softmax(test["collapsed"]).astype(np.float32)
        folder = tmp_path / name
        write(folder, results(name, num_test=None))
        (folder / "predictions").mkdir()
        np.savez(folder / "predictions" / "test.npz", **test)
        found.append((folder, test))
    ours, theirs = runs.gather([str(folder) for folder, _ in found], left_out=[])
    assert predictions.pairs(ours, theirs)[0]
    folder, test = found[1]
    np.savez(folder / "predictions" / "test.npz", **reordered_within_classes(test))
    rows, (line,) = predictions.pairs(ours, theirs)
    assert not rows and "in different orders" in line


@pytest.mark.parametrize("array", ["collapsed", "ensemble", "label"])
def test_predictions_that_are_not_those_of_the_results_are_refused(array, run_copy, capsys):
    file = run_copy / "predictions" / "test.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays[array] = np.roll(arrays[array], 1, axis=0)
    np.savez(file, **arrays)
    (run_copy / "checksums.json").unlink()  # as of an older version
    told = Workdir(run_copy).read_results()
    with pytest.raises(
        UserError, match="test.npz: must be the predictions that results.json tells"
    ):
        agreement.check_results(file, arrays, told)
    other = shutil.copytree(run_copy, run_copy.parent / "other")
    for name in ("config.json", "results.json"):
        changed = json.loads((other / name).read_text())
        changed.get("config", changed)["seed"] = changed["seed"] = 1
        (other / name).write_text(json.dumps(changed))
    view = "ensemble" if array == "ensemble" else "collapsed"
    assert evaluate.main(["--ensemble", str(run_copy), str(other), "--view", view]) == 2
    assert "are they in another order" in capsys.readouterr().err
