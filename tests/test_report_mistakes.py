"""What a report tells of mistakes: confusions, classes, and the images themselves."""

import dataclasses
import io
import json

import numpy as np
import pytest
from page_reader import Page
from PIL import Image

from lpw_jax import data, experiment
from lpw_jax.config import from_dict
from lpw_jax.data import in_memory
from lpw_jax.evaluation.pictures import Pictures
from lpw_jax.files import pictures
from lpw_jax.files.pictures import Shown
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import metrics, mistakes
from lpw_jax.report import __main__ as program
from lpw_jax.report import mistakes as sections
from lpw_jax.report import run_files


def made(folder):
    """The sections on mistakes alone: drawing the others takes seconds."""
    run = run_files.read(Workdir(folder))
    told = [*sections.classes(run), *sections.worst(run)]
    for name in run.outside:
        told += sections.outside(run, name)
    return Page(f"<h2>x</h2>{''.join(told)}")


def predicted(run, name="test"):
    with np.load(run / "predictions" / f"{name}.npz") as arrays:
        return arrays["collapsed"], arrays["label"]


def test_counts_of_confusions_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    labels, taken = rng.integers(0, 7, (2, 300))
    counts = mistakes.confusion(labels, taken, 8)
    expected = np.zeros((8, 8), int)
    for label, other in zip(labels, taken, strict=True):
        expected[label, other] += 1
    np.testing.assert_array_equal(counts, expected)
    pairs = mistakes.most_confused(counts, 5)
    assert [n for *_, n in pairs] == sorted(expected[~np.eye(8, dtype=bool)])[:-6:-1]
    assert all(a != b and counts[a, b] == n for a, b, n in pairs)
    assert mistakes.most_confused(np.diag([3, 4]), 5) == []


def test_most_confident_mistakes_are_wrong_and_in_order():
    log_probs = metrics.log_softmax(np.random.default_rng(0).normal(size=(90, 4)))
    labels = np.arange(90) % 4
    rows = mistakes.most_confident(log_probs, labels, 100)
    assert set(rows) == set(np.flatnonzero(log_probs.argmax(1) != labels))
    assert (np.diff(log_probs.max(1)[rows]) <= 0).all()
    assert [*mistakes.most_confident(log_probs, labels, 3)] == [*rows[:3]]


def test_ends_are_each_row_at_most_once():
    scores = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    assert [*mistakes.ends(scores, 2)] == [1, 2, 3, 4]
    assert sorted(mistakes.ends(scores, 9)) == [0, 1, 2, 3, 4]
    assert [*mistakes.ends(scores[:1], 3)] == [0]


def test_the_matrix_and_the_classes_are_those_of_the_predictions(finished_run):
    logits, labels = predicted(finished_run)
    counts = mistakes.confusion(labels, logits.argmax(1), 10)
    found = made(finished_run)
    (matrix,) = (table for table in found.tables if table[0] == ["label", *map(str, range(10))])
    shown = [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]]
    np.testing.assert_array_equal(shown, counts)
    (bars,) = (table for table in found.tables if table[0] == ["label", "", "accuracy %", "images"])
    accuracies = [float(row[2]) for row in bars[1:]]
    assert accuracies == sorted(accuracies) and len(accuracies) == 10
    for name, _, accuracy, images in bars[1:]:
        own = labels == int(name)
        right = (logits.argmax(1) == labels)[own].mean()
        assert (float(accuracy), int(images)) == (pytest.approx(100 * right, abs=0.006), own.sum())


def test_the_images_shown_are_those_that_were_mistaken(finished_run):
    logits, labels = predicted(finished_run)
    shown = Workdir(finished_run).load_pictures()["test"]
    expected = mistakes.most_confident(metrics.log_softmax(logits), labels, 24)
    np.testing.assert_array_equal(shown.rows, expected)
    test_images = data.load_dataset("digits", data_dir="").test_images
    np.testing.assert_array_equal(shown.images, test_images[expected])
    found = made(finished_run).pictures
    first = expected[0]
    (alt,) = (alt for alt in found if alt.endswith(f"{_percent(logits[first])}\N{NO-BREAK SPACE}%"))
    assert alt.startswith(f"{labels[first]} taken for {logits[first].argmax()}, confidence ")
    drawn = np.asarray(Image.open(io.BytesIO(found[alt])))
    np.testing.assert_array_equal(drawn, test_images[first])


def _percent(logits):
    return f"{100 * np.exp(metrics.log_softmax(logits[None])).max():.1f}"


def test_classes_have_their_names(finished_run):
    run = run_files.read(Workdir(finished_run))
    names = [f"<kind {number}>" for number in range(10)]
    named = dataclasses.replace(run.results.data, class_names=names)
    run = dataclasses.replace(run, results=dataclasses.replace(run.results, data=named))
    found = Page(f"<h2>x</h2>{''.join([*sections.classes(run), *sections.worst(run)])}")
    assert found.tables[0][0] == ["label", *names]
    assert {row[0] for row in found.tables[1][1:]} == set(names)
    assert all(alt.split(" taken for ")[0] in names for alt in found.pictures)
    with pytest.raises(ValueError, match="class_names: must be of 10 classes, found 9"):
        dataclasses.replace(named, class_names=names[1:])


def test_of_many_classes_pairs_and_the_ends_are_shown(finished_run):
    run = run_files.read(Workdir(finished_run))
    labels = np.repeat(np.arange(100), 4)
    taken = np.where(np.arange(400) % 4 < labels // 25, (labels + 1) % 100, labels)
    test = {"collapsed": run.test["collapsed"] | {"label": labels, "predicted": taken}}
    results = dataclasses.replace(
        run.results, data=dataclasses.replace(run.results.data, num_classes=100)
    )
    run = dataclasses.replace(run, test=test, results=results)
    found = Page(f"<h2>x</h2>{''.join(sections.classes(run))}")
    pairs, bars = found.tables
    assert len(pairs) == 21 and pairs[1] == ["75", "76", "3", "75.0"]
    assert len(bars) == 21 and bars[1][2] == "25.00" and bars[-1][2] == "100.00"
    assert "The median of the 100 classes is 62.50 %" in found.sections["x"]


def test_without_images_the_page_says_what_gives_them(run_copy):
    (run_copy / "predictions" / "pictures.npz").unlink()
    found = made(run_copy)
    assert not found.pictures and "not in predictions/pictures.npz" in found.sections["x"]


def test_foreign_images_are_shown_by_their_entropy(run_copy):
    folder, results = Workdir(run_copy), json.loads((run_copy / "results.json").read_text())
    rng = np.random.default_rng(0)
    logits, label = 3 * rng.normal(size=(30, 10)), np.full(30, -1, np.int32)
    arrays = {"collapsed": logits, "ensemble": metrics.log_softmax(logits), "label": label}
    folder.save_predictions("ood_SVHN", arrays)
    for view in ("collapsed", "ensemble"):
        results["views"][view]["ood"]["SVHN"] = {"auroc": 0.75}
    (run_copy / "results.json").write_text(json.dumps(results))
    assert "SVHN: The images themselves are not" in made(run_copy).sections["x"]
    dataset = data.load_dataset("digits", data_dir="")
    config = from_dict(json.loads((run_copy / "config.json").read_text()))
    shown = Pictures()
    source = experiment.unlabelled_source(config, dataset, dataset.train_images[:30])
    shown.add("ood_SVHN", source, arrays)
    folder.save_predictions(pictures.NAME, shown.arrays)
    found = made(run_copy)
    entropy = [float(alt.split("entropy ")[1].split()[0]) for alt in found.pictures]
    every = np.sort(metrics.predictive_entropy(metrics.log_softmax(logits)))
    assert entropy == pytest.approx([*every[:8], *every[:-9:-1]], abs=6e-4)
    assert "SVHN: images with the lowest entropy" in found.sections["x"]


def test_names_of_foreign_sets_are_text(finished_run):
    run, name = run_files.read(Workdir(finished_run)), "<script>alert(1)</script>"
    shown = Shown(np.arange(2), np.zeros((2, 4, 4, 3), np.uint8))
    run = dataclasses.replace(run, outside={name: run.test}, pictures={f"ood_{name}": shown})
    page = "".join(sections.outside(run, name))
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"test": np.zeros((1, 4, 4, 2), np.uint8), "test_rows": [0]}, "at most 100 images"),
        ({"test": np.zeros((1, 999, 4, 3), np.uint8), "test_rows": [0]}, "sides up to 128"),
        ({"test": np.zeros((1, 4, 4, 3), np.uint8), "test_rows": [-1]}, "test_rows: must be 1"),
        ({"test": np.zeros((1, 4, 4, 3), np.uint8), "test_rows": [360]}, "must be less than 360"),
        ({"test": np.zeros((1, 4, 4, 3), np.uint8)}, "test_rows"),
    ],
)
def test_images_of_another_form_are_refused(run_copy, arrays, message, capsys):
    Workdir(run_copy).save_predictions(pictures.NAME, arrays)
    assert program.main(["--workdir", str(run_copy)]) == 2
    told = capsys.readouterr().err
    assert "predictions/pictures.npz" in told and message in told


def test_large_images_are_kept_small_and_those_left_out_are_counted():
    images = np.random.default_rng(0).integers(0, 256, (6, 300, 200, 1), np.uint8)
    source = in_memory.Images(images, np.arange(6), mean=(0.5,), std=(0.5,), dtype=np.float32)
    source.corrupt = frozenset({1})
    log_probs = np.eye(6)[[1, 1, 3, 4, 0]]  # of images 0, 2, 3, 4, 5: wrong on 0, 2 and 5
    shown = Pictures()
    shown.add("test", source, {"collapsed": 9 * log_probs, "label": np.array([0, 2, 3, 4, 5])})
    assert [*shown.arrays["test_rows"]] == [0, 1, 4]
    assert shown.arrays["test"].shape == (3, 128, 85, 1)
    for kept, image in zip(shown.arrays["test"], images[[0, 2, 5]], strict=True):
        small = Image.fromarray(image[..., 0])
        small.thumbnail((128, 128))
        np.testing.assert_array_equal(kept[..., 0], np.asarray(small))


def test_an_image_that_cannot_be_had_is_a_warning(capsys):
    class Gone(in_memory.Images):
        def feeds(self, indices, *, epoch):
            raise OSError("the disk is gone")

    images = np.zeros((2, 4, 4, 3), np.uint8)
    source = Gone(images, np.zeros(2, int), mean=(0.5,) * 3, std=(0.5,) * 3, dtype=np.float32)
    shown = Pictures()
    shown.add("test", source, {"collapsed": np.eye(2), "label": np.array([1, 0])})
    assert shown.arrays == {}
    assert "the report will lack images: OSError" in capsys.readouterr().err
