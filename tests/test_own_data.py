"""Data of one's own: folders of images, sets of tensorflow-datasets, arrays of a function."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import own_modules
import pytest
import tfds_fixtures
from PIL import Image
from short_run import DIGITS

from lpw_jax import experiment
from lpw_jax.config import load_config
from lpw_jax.data import Dataset, images, load_dataset
from lpw_jax.data.on_disk import OnDisk
from lpw_jax.errors import UserError


def save(folder, place, pixels, **options):
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes, grey, 4x6 pixels: a number's image is full of it."""
    for split, numbers in (("train", (10, 20, 30)), ("test", (40,))):
        for label, name in enumerate(("owl", "cat")):
            for number in numbers:
                pixels = np.full((4, 6), number + label)
                save(tmp_path, f"{split}/{name}/{number}.png", pixels)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "cat" / ".hidden.png").write_text("no image")
    return tmp_path


def load(folder, **options):
    return load_dataset("image_folder", data_dir=str(folder), **options)


def test_an_image_folder_is_read_in_the_order_of_names(folder):
    data = load(folder)
    assert data.image_shape == (4, 6, 1) and data.num_classes == 2
    assert data.train_images[:, 0, 0, 0].tolist() == [11, 21, 31, 10, 20, 30]
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.class_names == ("cat", "owl")
    assert data.test_images[:, 3, 5, 0].tolist() == [41, 40] and data.name == "image_folder"
    held_out = load(folder, validation_examples=2)
    assert held_out.validation_images[:, 0, 0, 0].tolist() == [20, 30]


def test_images_are_brought_to_one_size_and_as_many_channels(folder):
    wide = np.zeros((8, 40, 3))
    wide[:, 16:24] = 200, 100, 50  # the central square
    save(folder, "test/cat/50.JPEG", wide, quality=100, subsampling=0)
    data = load(folder, image_size=4)
    assert data.image_shape == (4, 4, 3) and data.test_images.shape == (3, 4, 4, 3)
    centre = data.test_images[1, :, 1:3]  # no black from beyond the square
    np.testing.assert_allclose(centre, np.full((4, 2, 3), (200, 100, 50)), atol=6)
    assert data.test_images[1].min() > 40
    assert (data.train_images[0] == 11).all()


@pytest.mark.parametrize(
    ("place", "pixels", "message"),
    [
        ("test/cat/9.png", np.zeros((5, 6)), "cat/9.png: images must all have one size, .* 6x5"),
        ("test/dog/9.png", np.zeros((4, 6)), "dog: every class must have training images"),
        ("train/cat/9.png", b"\x89PNG\r\n\x1a\n", "cat/9.png is not .*image.*; remove it"),
        ("train/cat/9.png", b"", "cat/9.png is an empty file"),
    ],
)
def test_what_is_wrong_in_an_image_folder_is_named(folder, place, pixels, message):
    if isinstance(pixels, bytes):
        (folder / place).write_bytes(pixels)
    else:
        save(folder, place, pixels)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match="data.dir = '': must be the folder of image_folder"):
        load("")
    with pytest.raises(UserError, match=f"{tmp_path} must be a folder with train/CLASS .* nothing"):
        load(tmp_path)
    (tmp_path / "test").mkdir()
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{tmp_path / 'train'} must hold images"):
        load(tmp_path)


def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(images, "MAX_IN_MEMORY", 95)
    with pytest.raises(UserError, match="must fit in .*; set a smaller data.image_size"):
        load(folder, image_size=4)
    load(folder, image_size=3)


def test_mean_and_deviation_are_those_of_the_training_images_unless_given(monkeypatch):
    colours = np.random.default_rng(0).integers(0, 256, (1_500, 2, 2, 3), np.uint8)
    found = {f"{split}_images": colours[:n] for split, n in (("train", 1_500), ("test", 9))}
    found |= {f"{split}_labels": np.arange(n) % 4 for split, n in (("train", 1_500), ("test", 9))}
    monkeypatch.setattr(own_modules, "found", lambda: found, raising=False)
    data = load_dataset("own_modules:found", data_dir="", validation_examples=100)
    pixels = colours[:1_400] / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-12)
    given = load_dataset("own_modules:found", data_dir="", mean=(0.1,) * 3, std=(0.2,) * 3)
    assert given.mean == (0.1,) * 3 and given.std == (0.2,) * 3
    with pytest.raises(UserError, match=r"data.mean = \(0.5,\): .* each of the 3 channels"):
        load_dataset("own_modules:found", data_dir="", mean=(0.5,), std=(0.5,))
    found["train_images"] = np.zeros_like(colours)
    with pytest.raises(UserError, match="data.std: must be given"):
        load_dataset("own_modules:found", data_dir="")


def test_the_package_sets_keep_their_published_means_unless_told_otherwise():
    digits = load_dataset("digits", data_dir="")
    assert load_dataset("digits", data_dir="", mean=digits.mean, std=digits.std).mean == digits.mean
    config = load_config(DIGITS, ["--config.data.mean=0,0,0", "--config.data.std=1,1,1"])
    assert experiment.load_dataset(config).mean == (0.0,) * 3


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"test_labels": None}, "must give test_labels, but gave dict"),
        ({"train_images": np.zeros((96, 8, 8))}, "train_images must be uint8 .*, not float64"),
        ({"train_images": np.zeros((96, 8, 8, 4), np.uint8)}, "C = 1 or 3, not uint8 .96, 8, 8, 4"),
        ({"test_images": np.zeros((24, 9, 8), np.uint8)}, r"test_images must be \[8, 8, 1\] each"),
        ({"train_labels": np.zeros(95, int)}, r"train_labels must be \[96\], one an image"),
        ({"train_labels": np.zeros(96)}, "train_labels must be integers, not float64"),
        ({"class_names": ["a", "b"]}, "class_names must be 3, not 2"),
        ({"num_classes": 2}, "train_labels: labels must lie in 0..1, found 0..2"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be > 0, one for each mean"),
        (
            {"test_images": np.zeros((0, 8, 8), np.uint8), "test_labels": np.zeros(0, int)},
            "test_images must not be empty",
        ),
    ],
)
def test_what_a_function_must_give_is_checked(changes, rule, monkeypatch):
    found = own_modules.arrays("", 8) | changes
    monkeypatch.setattr(own_modules, "found", lambda: found, raising=False)
    with pytest.raises(UserError, match=f"data.name = 'own_modules:found': .*{rule}"):
        load_dataset("own_modules:found", data_dir="")


def test_one_class_is_nothing_to_learn(folder, monkeypatch):
    for split in ("train", "test"):  # classes a level too deep
        (folder / "deep" / split).mkdir(parents=True)
        (folder / split).rename(folder / "deep" / split / "images")
    one = np.zeros(96, int), np.zeros(24, int)
    found = own_modules.arrays("", 8) | dict(zip(("train_labels", "test_labels"), one, strict=True))
    monkeypatch.setattr(own_modules, "found", lambda: found, raising=False)
    for name, place in (("image_folder", str(folder / "deep")), ("own_modules:found", "")):
        config = load_config(
            DIGITS,
            [f"--config.data.name={name}", f"--config.data.dir={place}"],
        )
        with pytest.raises(UserError, match=f"^data.name = '{name}': .* two or more .* found 1"):
            experiment.load_dataset(config)


def test_a_function_may_give_a_dataset_or_an_object(monkeypatch):
    whole = load_dataset("own_modules:arrays", data_dir="x", image_size=8)
    assert whole.note == "x" and whole.num_classes == 3 and whole.image_shape == (8, 8, 1)
    small = dataclasses.replace(whole, name="small")
    monkeypatch.setattr(own_modules, "found", lambda: small, raising=False)
    again = load_dataset("own_modules:found", data_dir="")
    assert isinstance(again, Dataset) and again.identity() == small.identity()


@pytest.fixture(scope="module")
def prepared():
    return str(tfds_fixtures.folder() / "array_record")


def test_any_set_that_tfds_prepared_is_read_by_its_name(prepared):
    data = load_dataset("grey_dots", data_dir=prepared)
    pixels, labels = tfds_fixtures.arrays("grey_dots", "validation")
    assert data.image_shape == (12, 10, 1) and data.num_classes == 3
    np.testing.assert_array_equal(data.test_images, pixels)
    np.testing.assert_array_equal(data.test_labels, labels)
    train, _ = tfds_fixtures.arrays("grey_dots", "train")
    assert data.mean == pytest.approx((train.mean() / 255,))
    assert load_dataset("grey_dots", data_dir=prepared, image_size=6).image_shape == (6, 6, 1)


def test_a_set_without_classes_is_refused(prepared):
    with pytest.raises(UserError, match="unlabelled.*must have one image and one class label"):
        load_dataset("unlabelled", data_dir=prepared)


def test_a_set_too_large_for_the_memory_is_streamed(prepared, monkeypatch):
    monkeypatch.setattr(images, "MAX_IN_MEMORY", 100)
    flags = [f"--config.data.dir={prepared}", "--config.data.name=grey_dots"]
    flags += ["--config.data.image_size=8", "--config.data.resize=8"]
    with pytest.raises(UserError, match="train.crop_padding = 4: must be 0 for grey_dots"):
        experiment.load_dataset(load_config(DIGITS, [*flags, "--config.train.crop_padding=4"]))
    flags += ["--config.train.crop_padding=0", "--config.data.validation_examples=5"]
    config = load_config(DIGITS, flags)
    data = experiment.load_dataset(config)
    assert isinstance(data, OnDisk) and data.image_shape == (8, 8, 1) and data.num_classes == 3
    assert (data.num_train, data.num_validation, data.num_test) == (25, 5, 12)
    sample = np.concatenate(list(data.channel_sample()))
    assert sample.shape == (25, 8, 8, 1)
    assert data.mean == pytest.approx((sample.mean() / 255,))
    plain = next(experiment.training_images(config, data).feeds(np.arange(25)[None], epoch=1))
    np.testing.assert_array_equal(plain["image"], sample)
    train = experiment.train_source(config, data)
    feeds = list(train.feeds(np.arange(10).reshape(2, 5), epoch=1))
    assert feeds[0]["image"].shape == (5, 8, 8, 1)
    assert feeds[1]["label"].tolist() == [5 % 3, 6 % 3, 7 % 3, 8 % 3, 9 % 3]
    batch = train.batch((), feeds[0], 0)
    assert batch["image"].shape == (5, 8, 8, 1) and batch["image"].dtype == jnp.float32


def test_large_sets_must_be_array_record_to_be_streamed(monkeypatch):
    monkeypatch.setattr(images, "MAX_IN_MEMORY", 100)
    folder = str(tfds_fixtures.folder() / "tfrecord")
    with pytest.raises(UserError, match="must be prepared as array_record"):
        load_dataset("svhn_cropped", data_dir=folder, image_size=8)
