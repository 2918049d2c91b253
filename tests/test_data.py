"""Reading CIFAR from tensorflow-datasets folders in both formats, and digits."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tfds_fixtures

from lpw_jax.data import DATASETS, cifar, load_dataset, tfds_source

WITHOUT_TENSORFLOW = """
import importlib.machinery, sys
find_spec = importlib.machinery.PathFinder.find_spec

class NoTensorFlow(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "tensorflow" else find_spec(name, path, target)

sys.meta_path = [NoTensorFlow if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder():
    return tfds_fixtures.folder()


@pytest.fixture
def copy(folder, tmp_path):
    """Copies the array_record cifar10 to damage it; returns (data_dir, its version's folder)."""
    shutil.copytree(folder / "array_record" / "cifar10", tmp_path / "cifar10")
    return tmp_path, tmp_path / "cifar10" / "3.0.2"


def rewrite_info(version_folder, edit):
    path = version_folder / "dataset_info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def assert_is_cifar10(dataset):
    for split in ("train", "test"):
        images, labels = tfds_fixtures.arrays("cifar10", split)
        read_images = getattr(dataset, f"{split}_images")
        read_labels = getattr(dataset, f"{split}_labels")
        assert read_images.dtype == np.uint8 and read_labels.dtype == np.int32
        np.testing.assert_array_equal(read_images, images)
        np.testing.assert_array_equal(read_labels, labels)


def test_array_record_is_read_in_stored_order(folder):
    dataset = load_dataset("cifar10", data_dir=str(folder / "array_record"))
    assert_is_cifar10(dataset)
    assert (dataset.name, dataset.num_classes) == ("cifar10", 10)
    assert dataset.mean == (0.4914, 0.4822, 0.4465) and dataset.std == (0.2023, 0.1994, 0.2010)
    assert dataset.validation_images.shape == (0, 32, 32, 3)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tfrecord_in_shards_gives_the_same_arrays(folder):
    assert_is_cifar10(load_dataset("cifar10", data_dir=str(folder / "tfrecord")))


@pytest.mark.parametrize("prelude", ["", WITHOUT_TENSORFLOW], ids=["installed", "absent"])
def test_array_record_needs_no_tensorflow(folder, prelude):
    code = """
import sys
from lpw_jax.data import load_dataset, ood
dataset = load_dataset("cifar10", data_dir=sys.argv[1])
found, _ = ood.find_ood_sets("cifar10", data_dir=sys.argv[1], ood_dir="")
print(len(dataset.train_labels), len(found["CIFAR"]()), "tensorflow" in sys.modules)
"""
    done = run_python(prelude + code, folder / "array_record")
    assert done.stdout.split() == ["1203", "20", "False"], done.stderr


def test_tfrecord_without_tensorflow_says_what_to_install(folder):
    code = """
import sys
from lpw_jax.data import load_dataset
try:
    load_dataset("cifar10", data_dir=sys.argv[1])
except ValueError as error:
    print(error)
"""
    done = run_python(WITHOUT_TENSORFLOW + code, folder / "tfrecord")
    assert "pip install tensorflow-cpu" in done.stdout, done.stderr
    assert str(folder / "tfrecord") in done.stdout


def test_absent_data_is_downloaded_and_prepared_as_array_record_once(tmp_path):
    served, data_dir = tmp_path / "served", tmp_path / "data"
    code = """
import dataclasses, functools, http.server, io, pathlib, sys, tarfile, threading
import numpy as np, tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar as tfds_cifar
from lpw_jax.data import cifar, load_dataset

served, data_dir = map(pathlib.Path, sys.argv[1:])
served.mkdir()
with tarfile.open(served / "cifar-10-binary.tar.gz", "w:gz") as tar:
    def add(name, content):
        member = tarfile.TarInfo("cifar-10-batches-bin/" + name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        images = np.full((4, 3073), 7, np.uint8)
        images[:, 0] = range(4)
        add(name, images.tobytes())
    add("batches.meta.txt", "\\n".join("abcdefghij").encode())

handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
cifar.SPECS["cifar10"] = dataclasses.replace(cifar.SPECS["cifar10"], url=url)
original = tfds_cifar.Cifar10._cifar_info.fget
tfds_cifar.Cifar10._cifar_info = property(lambda self: original(self)._replace(url=url))

first = load_dataset("cifar10", data_dir=str(data_dir))
server.shutdown()
server.server_close()
again = load_dataset("cifar10", data_dir=str(data_dir))
assert (first.train_images == 7).all() and first.train_images.shape == (20, 32, 32, 3)
np.testing.assert_array_equal(first.train_labels, again.train_labels)
print("note:", first.note)
"""
    done = run_python(code, served, data_dir)
    assert "note: 20 training and 4 test images" in done.stdout, done.stderr
    assert "Dl Completed" in done.stderr  # tfds' progress bar
    assert list(data_dir.glob("cifar10/*/*.array_record-*"))


def test_absent_data_without_a_network_says_what_to_put_where(tmp_path, monkeypatch):
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        load_dataset("cifar100", data_dir=str(tmp_path))
    message = str(caught.value)
    assert caught.value.__suppress_context__  # one error, not a chain of retries
    assert f"to {tmp_path / 'cifar100'}" in message and "download_and_prepare()" in message
    assert not list(tmp_path.iterdir())


def test_the_default_folder_is_that_of_tfds(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "array_record"))
    assert tfds_source.find_prepared("cifar10", "").folder.is_relative_to(folder)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds_source.root("") == tmp_path / "tensorflow_datasets"


def test_the_newest_finished_version_is_read(tmp_path):
    for version in ("3.0.2", "3.0.10", "3.1.0.incompleteX"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").write_text('{"splits": []}')
    assert tfds_source.find_prepared("cifar10", str(tmp_path)).folder.name == "3.0.10"
    assert tfds_source.find_prepared("cifar100", str(tmp_path)) is None


def prepared(description, train, test):
    sizes = {"train": train, "test": test}
    return tfds_source.Prepared(None, description, "array_record", sizes)


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


def test_a_label_out_of_range_is_refused(folder, monkeypatch):
    spec = cifar.SPECS["cifar10"].__class__(9, (0.5,) * 3, (0.5,) * 3, "", "")
    monkeypatch.setitem(cifar.SPECS, "cifar10", spec)
    with pytest.raises(ValueError, match=r"cifar10.*must lie in 0\.\.8, found 0\.\.9"):
        load_dataset("cifar10", data_dir=str(folder / "array_record"))


def test_an_empty_split_is_refused(copy):
    data_dir, version = copy
    rewrite_info(version, lambda info: info["splits"].pop())
    with pytest.raises(ValueError, match=rf"{version}.*holds no images"):
        load_dataset("cifar10", data_dir=str(data_dir))


def test_a_wrong_count_is_refused(copy):
    data_dir, version = copy

    def edit(info):
        for split in info["splits"]:
            split["shardLengths"] = ["1204"]

    rewrite_info(version, edit)
    with pytest.raises(ValueError, match=str(version)):
        load_dataset("cifar10", data_dir=str(data_dir))


@pytest.mark.parametrize(
    "content", ["not json", "[]", "{}", '{"splits": [{"name": 1, "x": 2}, 3]}']
)
def test_a_damaged_description_file_is_refused(copy, content):
    data_dir, version = copy
    (version / "dataset_info.json").write_text(content)
    with pytest.raises(ValueError, match=r"dataset_info.json is not a readable"):
        load_dataset("cifar10", data_dir=str(data_dir))


@pytest.mark.parametrize("damage", ["remove", "truncate", "overwrite"])
def test_damaged_records_are_refused_naming_the_folder(copy, damage):
    data_dir, version = copy
    [path] = version.glob("*train.array_record*")
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:5_000])
    else:
        path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(ValueError, match=rf"{version} \(split 'train'\) cannot be read"):
        load_dataset("cifar10", data_dir=str(data_dir))


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


def test_an_unknown_name_is_refused_with_the_nearest_known():
    with pytest.raises(ValueError, match="'cifar10O'.*did you mean 'cifar10'"):
        load_dataset("cifar10O", data_dir="")
    assert DATASETS == ("cifar10", "cifar100", "digits")


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
