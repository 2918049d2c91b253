"""Reading CIFAR from tensorflow-datasets folders in both formats, and digits."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import tfds_fixtures

from lpw_jax.data import load_dataset, tfds_prepare, tfds_prepared
from lpw_jax.errors import UserError

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


def test_classes_are_named_where_the_prepared_set_names_them(copy):
    data_dir, version = copy
    names, file = [f"kind {number}" for number in range(10)], version / "label.labels.txt"
    for content, expected in (
        ("\n".join(names).encode(), tuple(names)),
        ("\n".join(names[:9]).encode(), ()),
        (b"\xff\n" * 10, ()),
        (None, ()),
    ):
        file.unlink(missing_ok=True)
        if content:
            file.write_bytes(content)
        found = tfds_prepared.class_names(tfds_prepared.find_prepared("cifar10", str(data_dir)), 10)
        assert found == expected


def assert_is_cifar10(found):
    for split in ("train", "test"):
        images, labels = tfds_fixtures.arrays("cifar10", split)
        read_images = getattr(found, f"{split}_images")
        read_labels = getattr(found, f"{split}_labels")
        assert read_images.dtype == np.uint8 and read_labels.dtype == np.int32
        np.testing.assert_array_equal(read_images, images)
        np.testing.assert_array_equal(read_labels, labels)


def test_array_record_is_read_in_stored_order(folder):
    found = load_dataset("cifar10", data_dir=str(folder / "array_record"))
    assert_is_cifar10(found)
    assert (found.name, found.num_classes) == ("cifar10", 10)
    assert found.mean == (0.4914, 0.4822, 0.4465) and found.std == (0.2023, 0.1994, 0.2010)
    assert found.validation_images.shape == (0, 32, 32, 3)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tfrecord_in_shards_gives_the_same_arrays(folder):
    assert_is_cifar10(load_dataset("cifar10", data_dir=str(folder / "tfrecord")))


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_bucket_is_read_through_a_temporary_copy(folder, file_format, tmp_path, monkeypatch):
    tfds_fixtures.Bucket.mount(folder.parent, monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data_dir = f"gs://{folder.name}/{file_format}"
    assert_is_cifar10(load_dataset("cifar10", data_dir=data_dir))
    prepared = tfds_prepared.find_prepared("cifar10", data_dir)
    assert str(prepared.folder) == f"{data_dir}/cifar10/3.0.2" and not list(tmp_path.iterdir())


def test_a_bucket_that_cannot_be_reached_or_is_damaged_is_named(copy, monkeypatch):
    data_dir, version = copy
    tfds_fixtures.Bucket.mount(data_dir.parent, monkeypatch)
    (version / "features.json").write_text("{")
    with pytest.raises(UserError, match=rf"^gs://{data_dir.name}/cifar10/3.0.2/features.json "):
        load_dataset("cifar10", data_dir=f"gs://{data_dir.name}")
    monkeypatch.setattr(tfds_fixtures.Bucket, "exists", lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"^gs://elsewhere cannot be read: division by zero"):
        load_dataset("cifar10", data_dir="gs://elsewhere")


def test_a_dataset_is_prepared_into_a_bucket_description_last(folder, tmp_path, monkeypatch):
    tfds_fixtures.Bucket.mount(tmp_path, monkeypatch)
    local = tfds_prepared.find_prepared("cifar10", str(folder / "array_record")).folder
    order = []
    copy = tfds_prepare.storage.copy
    monkeypatch.setattr(
        tfds_prepare.storage, "copy", lambda files, to: copy(order.extend(files) or order, to)
    )
    tfds_prepare._upload(local, tfds_prepared.root("gs://bucket/x") / "cifar10")
    assert order[-1].name == "dataset_info.json" and len(order) == 4
    assert_is_cifar10(load_dataset("cifar10", data_dir="gs://bucket/x"))
    assert (tmp_path / "bucket/x/cifar10/3.0.2/features.json").is_file()


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


@pytest.mark.slow
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
    assert tfds_prepared.find_prepared("cifar10", "").folder.is_relative_to(folder)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds_prepared.root("") == tmp_path / "tensorflow_datasets"


def test_the_newest_finished_version_is_read(tmp_path):
    for version in ("3.0.2", "3.0.10", "3.1.0.incompleteX"):
        (tmp_path / "cifar10" / version).mkdir(parents=True)
        (tmp_path / "cifar10" / version / "dataset_info.json").write_text('{"splits": []}')
    assert tfds_prepared.find_prepared("cifar10", str(tmp_path)).folder.name == "3.0.10"
    assert tfds_prepared.find_prepared("cifar100", str(tmp_path)) is None
