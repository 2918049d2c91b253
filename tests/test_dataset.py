"""What a dataset is: its splits, its identity, and the remarks that go with it."""

import dataclasses
import json

import numpy as np
import pytest
import tfds_fixtures

from lpw_jax.data import cifar, dataset, load_dataset, tfds_prepared


@pytest.fixture(scope="module")
def folder():
    return tfds_fixtures.folder()


def prepared(description, train, test):
    sizes = {"train": train, "test": test}
    return tfds_prepared.Prepared(None, description, "array_record", sizes)


@pytest.mark.parametrize(
    ("description", "sizes", "expected"),
    [
        (tfds_fixtures.CIFAR10_TEXT, (50_000, 10_000), ""),
        (tfds_fixtures.CIFAR10_TEXT.replace("32x32 ", "32x32\n"), (50_000, 10_000), ""),
        ("", (50_000, 10_000), ""),
        (tfds_fixtures.CIFAR10_TEXT, (500, 10), "500 training and 10 test images"),
        ("All, as JPEG.\n\nMore.", (50_000, 10_000), "All, as JPEG."),
        ("The first 1,486 and 916.", (1_486, 916), "The first 1,486 and 916."),
        ("A part.", (1_486, 916), "A part. 1486 training and 916 test images"),
    ],
)
def test_the_note_tells_only_what_is_unusual(description, sizes, expected):
    assert cifar.note("cifar10", prepared(description, *sizes)) == expected


def test_the_note_is_cut_to_a_readable_length():
    text = cifar.note("cifar10", prepared("word " * 100, 50_000, 10_000))
    assert len(text) < 210 and text.endswith("word ...")


def test_tfds_still_begins_its_descriptions_as_we_expect(folder, tmp_path):
    import tensorflow_datasets as tfds

    for name, spec in cifar.SPECS.items():
        description = tfds.builder(name, data_dir=tmp_path).info.description
        assert " ".join(description.split()).startswith(spec.opening)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (50_000, 10_000, ""),
        (1_000, 200, "1,000 training and 200 test images, officially 50,000 and 10,000"),
        (10_000, 50_000, "10,000 training and 50,000 test images, officially 50,000 and 10,000"),
    ],
)
def test_unofficial_numbers_of_images_are_told(train, test, expected):
    assert cifar.unofficial(train, test) == expected


def test_holding_out_changes_no_remark(folder):
    found = load_dataset("cifar10", data_dir=str(folder / "array_record"), validation_examples=203)
    assert found.unofficial.startswith("1,203 training and 20 test images, officially")
    assert load_dataset("digits", data_dir="", validation_examples=3).unofficial == ""


def made(**arrays):
    """A dataset of random images, `arrays` replaced."""
    rng = np.random.default_rng(0)
    made = {}
    for split, size in (("train", 9), ("validation", 0), ("test", 4)):
        made[f"{split}_images"] = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        made[f"{split}_labels"] = np.arange(size, dtype=np.int32)
    return dataset.Dataset(
        name="made", num_classes=10, mean=(0.5,) * 3, std=(0.2,) * 3, **made | arrays
    )


def test_identity_is_of_json_types_and_equal_for_equal_data():
    whole = made()
    identity = whole.identity()
    assert json.loads(json.dumps(identity)) == identity == made().identity()
    numbers = ["num_train", "num_validation", "num_test"]
    assert [*identity] == ["name", *numbers, "sha256", "test_sha256"]
    assert [*identity.values()][:4] == ["made", 9, 0, 4] and len(identity["sha256"]) == 64
    spread = np.repeat(whole.train_images, 2, axis=0)[::2]  # not contiguous
    assert made(train_images=spread).identity() == identity
    assert dataclasses.replace(whole, note="x", unofficial="y").identity() == identity


def test_identity_depends_on_every_image_label_and_split():
    whole = made()
    seen = {whole.identity()["sha256"]}
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        array = getattr(whole, field).copy()
        array.reshape(-1)[-1] += 1
        seen.add(made(**{field: array}).identity()["sha256"])
    for n in (1, 2, 3):
        held_out = dataset.hold_out(whole, n).identity()
        assert (held_out["num_train"], held_out["num_validation"]) == (9 - n, n)
        seen.add(held_out["sha256"])
    swapped = made(train_images=whole.train_images[::-1], train_labels=whole.train_labels[::-1])
    seen.add(swapped.identity()["sha256"])
    assert len(seen) == 9


def test_validation_examples_are_the_last_training_images(folder):
    data_dir = str(folder / "array_record")
    whole = load_dataset("cifar10", data_dir=data_dir)
    split = load_dataset("cifar10", data_dir=data_dir, validation_examples=203)
    assert split.train_images.shape[0] == len(split.train_labels) == 1_000
    joined = np.concatenate([split.train_images, split.validation_images])
    np.testing.assert_array_equal(joined, whole.train_images)
    np.testing.assert_array_equal(split.validation_labels, whole.train_labels[-203:])


@pytest.mark.parametrize("n", [-1, 1_437, 5_000])
def test_impossible_validation_examples_are_refused(n):
    with pytest.raises(ValueError, match=rf"data.validation_examples = {n}: must be"):
        load_dataset("digits", data_dir="", validation_examples=n)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cifar10O", "cifar10"), ("imagefolder", "image_folder"), ("mist", "mnist")],
)
def test_an_unknown_name_is_refused_with_the_nearest_known(name, nearest):
    with pytest.raises(ValueError, match=f"data.name = '{name}'.*did you mean '{nearest}'"):
        load_dataset(name, data_dir="")


def test_digits_are_a_fixed_stratified_split_of_the_whole_set():
    digits = load_dataset("digits", data_dir="")
    assert digits.train_images.shape == (1_437, 32, 32, 3)
    assert digits.test_images.shape == (360, 32, 32, 3)
    assert digits.train_images.dtype == np.uint8 and digits.train_labels.dtype == np.int32
    assert digits.train_images.max() == 255 and digits.train_images.min() == 0
    assert np.bincount(digits.test_labels).min() >= 34
    assert (digits.train_images[..., 0] == digits.train_images[..., 2]).all()
    np.testing.assert_allclose(digits.mean, digits.train_images.mean() / 255)
    np.testing.assert_allclose(digits.std, digits.train_images.std() / 255)
    train = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in train for image in digits.test_images)
    np.testing.assert_array_equal(
        digits.test_labels, load_dataset("digits", data_dir="/nowhere").test_labels
    )
    assert digits.note == "scikit-learn handwritten digits (8x8 shown as 32x32)"
