"""Damaged tensorflow-datasets folders: each is refused, naming the file and what to do."""

import dataclasses
import json
import os
import shutil
import sys

import pytest
import tfds_fixtures

from lpw_jax.data import cifar, load_dataset, tfds_prepared
from lpw_jax.errors import UserError


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


def test_a_label_out_of_range_is_refused(folder, monkeypatch):
    spec = dataclasses.replace(cifar.SPECS["cifar10"], num_classes=9)
    monkeypatch.setitem(cifar.SPECS, "cifar10", spec)
    with pytest.raises(ValueError, match=r"cifar10.*must lie in 0\.\.8, found 0\.\.9"):
        load_dataset("cifar10", data_dir=str(folder / "array_record"))


def test_an_empty_split_is_refused(copy):
    data_dir, version = copy
    rewrite_info(version, lambda info: info["splits"].pop())
    with pytest.raises(ValueError, match=rf"{version}.*holds no images"):
        load_dataset("cifar10", data_dir=str(data_dir))


@pytest.mark.parametrize("count", [1, 1_202, 1_204, 10**12])
def test_a_wrong_count_is_refused(copy, count):
    data_dir, version = copy

    def edit(info):
        info["splits"][0]["shardLengths"] = [str(count)]

    rewrite_info(version, edit)
    with pytest.raises(
        UserError, match=rf"{version} .*says {count} images for .*, found 1203; copy"
    ):
        load_dataset("cifar10", data_dir=str(data_dir))


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[" * 100_000,
        "[]",
        "{}",
        '{"splits": [{"name": 1, "x": 2}, 3]}',
        '{"splits": [], "description": 3}',
        '{"splits": [], "fileFormat": "pickle"}',
    ],
)
def test_a_damaged_description_file_is_refused(copy, content):
    data_dir, version = copy
    (version / "dataset_info.json").write_text(content)
    with pytest.raises(ValueError, match=r"dataset_info.json is not a readable"):
        load_dataset("cifar10", data_dir=str(data_dir))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("{", "", "features.json cannot be read"),
        ("dimensions", "dimension", "features.json.* cannot be read"),
        ('"image": {\n', '"picture": {\n', "features.json"),
        ("tensorflow_datasets.core.features.text_feature", "antigravity", "own classes"),
    ],
)
def test_a_damaged_list_of_features_is_refused(copy, old, new, rule):
    data_dir, version = copy
    path = version / "features.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=rf"{version}.*{rule}.*copy the dataset anew"):
        load_dataset("cifar10", data_dir=str(data_dir))
    assert "antigravity" not in sys.modules


def test_what_is_in_the_way_of_a_folder_is_named(copy, tmp_path):
    data_dir, version = copy
    (version / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=rf"^{version} holds no readable dataset_info.json; copy"):
        tfds_prepared.find_prepared("cifar10", str(data_dir))
    shutil.rmtree(version.parent)
    version.parent.write_text("")
    with pytest.raises(UserError, match=rf"^{version.parent}: must be the folder of a dataset"):
        tfds_prepared.find_prepared("cifar10", str(data_dir))
    with pytest.raises(UserError, match=rf"^{version.parent}: must be a folder of tensorflow-data"):
        tfds_prepared.find_prepared("cifar10", str(version.parent))


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
    rule = "lacks its file cifar10-train" if damage == "remove" else "cannot be read: "
    with pytest.raises(UserError, match=rf"{version} \(split 'train'\) {rule}.*copy the dataset"):
        load_dataset("cifar10", data_dir=str(data_dir))
