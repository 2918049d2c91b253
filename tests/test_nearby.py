"""Folders of data that are named a level or two too deep, one too shallow, or by variables."""

import json
import os

import corruption_files
import numpy as np
import pytest
import tfds_fixtures
from image_files import IMAGES, files, png, write_archive

from lpw_jax.data import (
    corruptions,
    image_folder,
    imagenet_prepare,
    imagenet_tars,
    load_dataset,
    ood,
    tfds_prepare,
    tfds_prepared,
)
from lpw_jax.errors import UserError
from lpw_jax.files import storage


def prepared(place, name, version="1.0.0"):
    """What makes `find_prepared` see a set."""
    folder = place / name / version
    folder.mkdir(parents=True)
    first, _, config = name.partition("/")
    info = {"name": first, "configName": config, "splits": []}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("name", ["cifar10", "emnist/letters", "imagenet2012"])
def test_a_set_of_tfds_is_found_from_every_level(tmp_path, name):
    sets = tmp_path / "data" / "tfds"
    old = prepared(sets, name, "1.0.0")
    new, other = prepared(sets, name, "2.0.0"), prepared(sets, "mnist")
    for place in (sets, new.parent, sets.parent, sets / name.split("/")[0]):
        assert tfds_prepared.find_prepared(name, str(place)).folder == new, place
        assert tfds_prepared.find_prepared(name, f"{place}/").folder == new
    assert tfds_prepared.find_prepared(name, str(old)).folder == old  # that very version
    for place in (sets, new, new.parent, other):  # from another set's folder, too
        assert tfds_prepared.find_prepared("mnist", str(place)).folder == other
        assert tfds_prepared.root(str(place)) == sets
        assert tfds_prepared.find_prepared("svhn_cropped", str(place)) is None
    renamed = new.parent.rename(tmp_path / "my data")
    assert tfds_prepared.find_prepared(name, str(renamed)).folder == renamed / "2.0.0"


def test_of_several_folders_that_hold_a_set_none_is_taken(tmp_path):
    prepared(tmp_path / "a", "cifar10"), prepared(tmp_path / "b", "cifar10")
    with pytest.raises(UserError, match="data.dir = .*: must be one of its folders a, b, which"):
        tfds_prepared.find_prepared("cifar10", str(tmp_path))
    prepared(tmp_path, "cifar10")
    assert tfds_prepared.find_prepared("cifar10", str(tmp_path)).folder.parent.parent == tmp_path


@pytest.mark.parametrize("place", ["cifar10", "cifar10/3.0.2", ".", ".."])
def test_cifar_is_read_from_every_level(place):
    folder = tfds_fixtures.folder() / "array_record" / place
    if place == "..":  # which holds it twice
        with pytest.raises(UserError, match="must be one of its folders array_record, tfrecord"):
            load_dataset("cifar10", data_dir=str(folder))
        return
    data = load_dataset("cifar10", data_dir=str(folder))
    np.testing.assert_array_equal(data.test_images, tfds_fixtures.arrays("cifar10", "test")[0])
    found, _ = ood.find_ood_sets("cifar10", data_dir=str(folder), ood_dir="")
    assert list(found) == ["CIFAR"]


def test_nobody_is_told_to_nest_a_set_in_its_own_folder(tmp_path, monkeypatch):
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    for data_dir in (tmp_path, tmp_path / "cifar10"):
        with pytest.raises(UserError, match=f"to {tmp_path}/cifar10, or point data.dir"):
            tfds_prepare.prepare("cifar10", data_dir=str(data_dir), url="http://127.0.0.1:9")


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_an_image_folder_is_found_from_every_level(tmp_path, test):
    root = tmp_path / "data" / "pets"
    for split in ("train", test):
        (root / split / "owl").mkdir(parents=True)
        (root / split / "owl" / "a.png").write_bytes(png(IMAGES[0]))
    (tmp_path / "data" / ".cache" / "train").mkdir(parents=True)
    for place in (root, root / "train", root / test, root / "train" / "owl", root.parent):
        data = image_folder.load("pets", f"{place}/", 0)
        np.testing.assert_array_equal(data.test_images, IMAGES[:1])
    with pytest.raises(UserError, match="must be a folder with train/CLASS .* but holds data"):
        image_folder.load("pets", str(tmp_path), 0)
    with pytest.raises(UserError, match=f"data.dir: {tmp_path}/no must be there"):
        image_folder.load("pets", f"{tmp_path}/no", 0)


def test_corrupted_images_are_found_from_every_level(tmp_path):
    images, labels = tfds_fixtures.arrays("cifar10", "test")
    (tmp_path / "CIFAR-10-C").mkdir()
    root = corruption_files.write(tmp_path / "CIFAR-10-C" / "CIFAR-10-C", images, labels)
    corruption_files.write(tmp_path / "CIFAR-100-C", images, labels)
    for place in (root, root.parent, root / "fog.npy"):
        assert len(corruptions.load("cifar10", str(place)).labels) == len(labels)
    root.rename(tmp_path / "new")
    root.parent.rmdir()
    (tmp_path / "new").rename(root.parent)  # beside CIFAR-100's, which are not meant
    assert len(corruptions.load("cifar10", str(tmp_path)).labels) == len(labels)


def test_archives_are_found_from_every_level(tmp_path):
    folder = tmp_path / "archives" / "imagenet"
    folder.mkdir(parents=True)
    for name in imagenet_tars.FILES.values():
        (folder / name).write_bytes(b"")
    for place in (folder, folder.parent, folder / imagenet_tars.FILES["train"]):
        tars = imagenet_prepare._find_tars("", str(place))
        assert set(tars.paths.values()) == {folder / n for n in imagenet_tars.FILES.values()}
    sets = tmp_path / "sets" / "ood"
    sets.mkdir(parents=True)
    write_archive(sets / "LSUN_resize.tar.gz", files("LSUN_resize"))
    (sets / "Imagenet_resize" / "Imagenet_resize").mkdir(parents=True)
    (sets / "Imagenet_resize" / "Imagenet_resize" / "a.png").write_bytes(png(IMAGES[0]))
    inside = ("", "..", "Imagenet_resize", "Imagenet_resize/Imagenet_resize", "LSUN_resize.tar.gz")
    for place in inside:
        found, _ = ood.find_ood_sets("cifar10", data_dir="", ood_dir=os.path.join(sets, place))
        assert list(found) == ["LSUN", "TIN"], place


def test_paths_may_have_variables_a_home_and_spaces(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path / "my data"))
    wanted = tmp_path / "my data" / "tfds"
    for text in ("~/my data/tfds", "$DATA/tfds", "${DATA}/tfds/", " $DATA/tfds ", f"{wanted}//"):
        assert storage.path(text) == wanted, text
    monkeypatch.setenv("BUCKET", "mine")
    assert str(storage.path("gs://$BUCKET/tfds")) == "gs://mine/tfds"
    with pytest.raises(UserError, match=r"'\$NOWHERE/tfds': the environment has no variable NOW"):
        storage.path("$NOWHERE/tfds")
    (tmp_path / "$NOWHERE ").mkdir()  # its name as it stands
    assert storage.path(f"{tmp_path}/$NOWHERE ").is_dir()
    assert storage.path(f"{tmp_path}/$NOWHERE ").name == "$NOWHERE "
