"""Finding and reading the out-of-distribution sets, and what is said about missing ones."""

import io
import tarfile

import numpy as np
import pytest
import scipy.io
import tfds_fixtures
from PIL import Image

from lpw_jax.data import ood

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
NAMES = ("test_10.png", "test_2.png", "test_9.png")  # in the order of file names


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_archive(path, members):
    """`members`: (name, content) for a file, (name, None) for a folder, or a TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))


def files(folder, order=(2, 0, 1)):
    return [(f"{folder}/{NAMES[i]}", png(IMAGES[i])) for i in order]


def find(tmp_path, dataset_name="cifar10", data_dir=None):
    data_dir = tmp_path / "absent" if data_dir is None else data_dir
    return ood.find_ood_sets(dataset_name, data_dir=str(data_dir), ood_dir=str(tmp_path))


def test_an_archive_is_read_in_memory_in_the_order_of_file_names(tmp_path):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [("LSUN_resize", None), *files("LSUN_resize")])
    found, missing = find(tmp_path)
    images = found["LSUN"]()
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)
    assert [p.name for p in tmp_path.iterdir()] == ["LSUN_resize.tar.gz"]  # nothing unpacked
    assert list(missing) == ["TIN", "SVHN", "CIFAR"]


def test_a_nested_folder_is_read_and_everything_else_in_an_archive_is_ignored(tmp_path):
    outside = tarfile.TarInfo("Imagenet_resize/link.png")
    outside.type, outside.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("Imagenet_resize/hard.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "Imagenet_resize/Imagenet_resize/test_2.png"
    pipe = tarfile.TarInfo("Imagenet_resize/pipe.png")
    pipe.type = tarfile.FIFOTYPE
    others = [
        ("Imagenet_resize/._test_2.png", b"metadata of another system"),
        ("Imagenet_resize/README.txt", b"text"),
        ("Imagenet_resize/folder.png", None),
        outside,
        hard,
        pipe,
    ]
    members = [*others[:3], *files("Imagenet_resize/Imagenet_resize"), *others[3:]]
    write_archive(tmp_path / "Imagenet_resize.tar.gz", members)
    np.testing.assert_array_equal(find(tmp_path)[0]["TIN"](), IMAGES)


@pytest.mark.parametrize("nested", ["", "LSUN_resize"])
def test_an_unpacked_folder_is_read_like_its_archive(tmp_path, nested):
    folder = tmp_path / "LSUN_resize" / nested
    folder.mkdir(parents=True)
    for name, image in zip(NAMES, IMAGES, strict=True):
        (folder / name).write_bytes(png(image))
    (folder / "notes.txt").write_text("not an image")
    (folder / "link.png").symlink_to(folder / NAMES[0])
    np.testing.assert_array_equal(find(tmp_path)[0]["LSUN"](), IMAGES)


def test_an_empty_folder_beside_an_archive_does_not_hide_it(tmp_path):
    (tmp_path / "LSUN_resize").mkdir()
    assert "LSUN_resize.tar.gz" in find(tmp_path)[1]["LSUN"]
    write_archive(tmp_path / "LSUN_resize.tar.gz", files("LSUN_resize"))
    np.testing.assert_array_equal(find(tmp_path)[0]["LSUN"](), IMAGES)


def test_grey_and_palette_images_become_rgb(tmp_path):
    folder = tmp_path / "LSUN_resize"
    folder.mkdir()
    Image.fromarray(IMAGES[0, :, :, 0]).save(folder / "a.png")
    Image.new("P", (32, 32)).save(folder / "b.png")
    images = find(tmp_path)[0]["LSUN"]()
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(images[0], IMAGES[0, :, :, :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"no image at all", "is not a readable image"),
        (png(IMAGES[0])[:600], "is not a readable image"),
        (png(np.zeros((31, 40, 3), np.uint8)), "must be 32x32 pixels, found 40x31"),
    ],
    ids=["text", "truncated", "size"],
)
def test_a_bad_image_is_refused_naming_archive_and_member(tmp_path, content, rule):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [*files("x"), ("x/test_5.png", content)])
    with pytest.raises(ValueError, match=rf"LSUN_resize.tar.gz, member x/test_5.png.* {rule}"):
        find(tmp_path)[0]["LSUN"]()


def test_an_archive_that_cannot_be_opened_is_missing_and_one_cut_short_is_refused(tmp_path):
    path = tmp_path / "Imagenet_resize.tar.gz"
    path.write_bytes(b"an error page")
    found, missing = find(tmp_path)
    assert "TIN" not in found and "is not a readable tar.gz archive" in missing["TIN"]
    write_archive(path, files("x"))
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(ValueError, match=rf"{path}"):
        find(tmp_path)[0]["TIN"]()


def test_an_archive_without_images_is_refused(tmp_path):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [("x/a.txt", b"")])
    with pytest.raises(ValueError, match="holds no PNG images"):
        find(tmp_path)[0]["LSUN"]()


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
        (None, "is not a readable .mat file"),
    ],
)
def test_a_wrong_mat_file_is_missing_before_training(tmp_path, contents, rule):
    path = tmp_path / "test_32x32.mat"
    if contents is None:
        path.write_bytes(b"an error page" * 50)
    else:
        scipy.io.savemat(path, contents)
    found, missing = find(tmp_path)
    assert "SVHN" not in found
    with pytest.raises(ValueError, match=rule):
        raise ValueError(missing["SVHN"])


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
