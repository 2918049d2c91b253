"""Finding and reading the out-of-distribution sets, and what is said about missing ones."""

import numpy as np
import pytest
import scipy.io
import tfds_fixtures
from image_files import IMAGES, NAMES, files, png, write_archive
from PIL import Image

from lpw_jax.data import ood
from lpw_jax.errors import UserError


def find(tmp_path, dataset_name="cifar10", data_dir=None):
    data_dir = tmp_path / "absent" if data_dir is None else data_dir
    return ood.find_ood_sets(dataset_name, data_dir=str(data_dir), ood_dir=str(tmp_path))


@pytest.mark.parametrize("nested", ["", "LSUN_resize"])
def test_an_unpacked_folder_is_read_like_its_archive(tmp_path, nested):
    folder = tmp_path / "LSUN_resize" / nested
    folder.mkdir(parents=True)
    for name, image in zip(NAMES, IMAGES, strict=True):
        (folder / name).write_bytes(png(image))
    (folder / "notes.txt").write_text("not an image")
    (tmp_path / "outside").mkdir()
    (folder / NAMES[0]).rename(tmp_path / "outside" / "x")
    (folder / NAMES[0]).symlink_to(tmp_path / "outside" / "x")
    np.testing.assert_array_equal(find(tmp_path)[0]["LSUN"](), IMAGES)


def test_a_set_that_is_there_but_of_no_use_is_not_called_missing(tmp_path):
    folder = tmp_path / "LSUN_resize"
    folder.mkdir()
    (folder / "notes.txt").write_text("not an image")
    (folder / ".DS_Store").write_text("")
    with pytest.raises(UserError, match=r"LSUN_resize is there, but holds 1 hidden .*notes.txt"):
        find(tmp_path)
    write_archive(tmp_path / "LSUN_resize.tgz", files("LSUN_resize"))  # which is used instead
    np.testing.assert_array_equal(find(tmp_path)[0]["LSUN"](), IMAGES)
    (tmp_path / "Imagenet_resize.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"Imagenet_resize.zip is there, but only .*: unpack it"):
        find(tmp_path)


def test_grey_and_palette_images_become_rgb(tmp_path):
    folder = tmp_path / "LSUN_resize"
    folder.mkdir()
    Image.fromarray(IMAGES[0, :, :, 0]).save(folder / "a.png")
    Image.new("P", (32, 32)).save(folder / "b.png")
    images = find(tmp_path)[0]["LSUN"]()
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(images[0], IMAGES[0, :, :, :1].repeat(3, axis=2))


def test_what_is_in_the_way_of_a_file_or_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^data.ood_dir = '.*file': must be a folder"):
        find(tmp_path / "file")
    for name in ("LSUN_resize.tar.gz", "test_32x32.mat"):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=rf"{name}: must be a .*, but is no file"):
            find(tmp_path)
        (tmp_path / name).rmdir()
    (tmp_path / "LSUN_resize").write_text("")
    with pytest.raises(UserError, match="LSUN_resize: must be a folder of images"):
        find(tmp_path)


def test_sets_in_a_bucket_are_read(tmp_path, monkeypatch):
    tfds_fixtures.Bucket.mount(tmp_path, monkeypatch)
    inside = tmp_path / "bucket" / "ood"
    (inside / "Imagenet_resize" / "nested").mkdir(parents=True)
    for name, image in zip(NAMES, IMAGES, strict=True):
        (inside / "Imagenet_resize" / "nested" / name).write_bytes(png(image))
    write_archive(inside / "LSUN_resize.tar.gz", files("LSUN_resize"))
    scipy.io.savemat(inside / "test_32x32.mat", {"X": IMAGES.transpose(1, 2, 3, 0)})
    found, missing = ood.find_ood_sets(
        "cifar10", data_dir="gs://bucket/tfds", ood_dir="gs://bucket/ood"
    )
    assert [*missing] == ["CIFAR"] and "gs://bucket/tfds" in missing["CIFAR"]
    for name in ("LSUN", "TIN", "SVHN"):
        np.testing.assert_array_equal(found[name](), IMAGES)
    with pytest.raises(UserError, match="data.ood_dir = 'gs://bucket/nowhere'"):
        ood.find_ood_sets("cifar10", data_dir="", ood_dir="gs://bucket/nowhere")


def test_svhn_comes_from_the_mat_file_with_images_first(tmp_path):
    contents = {"X": IMAGES.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [2]], np.uint8)}
    scipy.io.savemat(tmp_path / "test_32x32.mat", contents, do_compression=True)
    images = find(tmp_path)[0]["SVHN"]()
    assert images.flags.c_contiguous and images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)


@pytest.mark.parametrize(
    ("contents", "rule"),
    [
        ({"X": IMAGES}, r"found uint8 \[3, 32, 32, 3\]"),
        ({"X": np.zeros((32, 32, 3, 2))}, "found double"),
        ({"Y": IMAGES}, "found nothing"),
        ({"X": np.array([[b"x"]], object)}, "found cell"),
        (None, "cannot be read: Unknown mat file type"),
    ],
)
def test_a_wrong_mat_file_is_refused_before_training(tmp_path, contents, rule):
    path = tmp_path / "test_32x32.mat"
    if contents is None:
        path.write_bytes(b"an error page" * 50)
    else:
        scipy.io.savemat(path, contents)
    with pytest.raises(UserError, match=rf"^{path}.*{rule}.*; fetch it again, or remove it"):
        find(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_cut_short_is_refused(tmp_path, compressed):
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"X": IMAGES.transpose(1, 2, 3, 0)}, do_compression=compressed)
    path.write_bytes(path.read_bytes()[:-3_000])
    with pytest.raises(UserError, match=rf"^{path} cannot be read: .*; fetch it again"):
        find(tmp_path)[0]["SVHN"]()


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_svhn_comes_from_a_prepared_folder_its_test_split_only(tmp_path):
    found, _ = find(tmp_path, data_dir=tfds_fixtures.folder() / "tfrecord")
    np.testing.assert_array_equal(found["SVHN"](), tfds_fixtures.arrays("svhn_cropped", "test")[0])


@pytest.mark.parametrize(("inside", "outside"), [("cifar10", "cifar100"), ("cifar100", "cifar10")])
def test_cifar_is_the_test_split_of_the_other_one(tmp_path, inside, outside):
    found, _ = find(tmp_path, inside, data_dir=tfds_fixtures.folder() / "array_record")
    np.testing.assert_array_equal(found["CIFAR"](), tfds_fixtures.arrays(outside, "test")[0])


def test_every_missing_set_says_in_one_line_what_to_put_where(tmp_path):
    found, missing = find(tmp_path)
    assert not found and tuple(missing) == ood.OOD_SETS
    named = {
        "LSUN": ("LSUN_resize.tar.gz", "data.ood_dir"),
        "TIN": ("Imagenet_resize.tar.gz", "data.ood_dir"),
        "SVHN": ("test_32x32.mat", "svhn_cropped", "data.ood_dir", "data.dir"),
        "CIFAR": ("cifar100", "data.dir", "tfds build"),
    }
    for name, words in named.items():
        assert all(word in missing[name] for word in words) and "\n" not in missing[name]
    assert not (tmp_path / "absent").exists()  # nothing was downloaded
    _, missing = ood.find_ood_sets("cifar10", data_dir=str(tmp_path), ood_dir="")
    assert "data.ood_dir (not set)" in missing["LSUN"]


def test_no_sets_are_defined_for_digits(tmp_path):
    assert find(tmp_path, "digits") == ({}, {})


def test_the_note_names_sets_of_unofficial_size():
    assert ood.ood_note(ood.OFFICIAL_SIZES) == ""
    sizes = {"LSUN": 10_000, "TIN": 5_000, "CIFAR": 916}
    assert ood.ood_note(sizes) == "TIN: 5,000 of 10,000 images; CIFAR: 916 of 10,000 images"
