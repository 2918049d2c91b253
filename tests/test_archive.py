"""Archives of images: what is read, and what is refused because no honest archive has it."""

import tarfile

import numpy as np
import pytest
from image_files import IMAGES, bomb, files, png, special, write_archive

from lpw_jax.data import archive, ood
from lpw_jax.errors import UserError

PDF = b"%PDF-1.4 whatever its name says"


def find(tmp_path):
    return ood.find_ood_sets("cifar10", data_dir=str(tmp_path / "absent"), ood_dir=str(tmp_path))


def test_an_archive_is_read_in_memory_in_the_order_of_file_names(tmp_path):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [("LSUN_resize", None), *files("LSUN_resize")])
    found, missing = find(tmp_path)
    images = found["LSUN"]()
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)
    assert [p.name for p in tmp_path.iterdir()] == ["LSUN_resize.tar.gz"]  # nothing unpacked
    assert list(missing) == ["TIN", "SVHN", "CIFAR"]


def test_a_nested_folder_is_read_and_everything_else_in_an_archive_is_ignored(tmp_path):
    others = [
        ("Imagenet_resize/._test_2.png", b"metadata of another system"),
        ("Imagenet_resize/README.txt", b"text"),
        ("Imagenet_resize/folder.png", None),
    ]
    members = [*others, *files("Imagenet_resize/Imagenet_resize"), *others]
    write_archive(tmp_path / "Imagenet_resize.tar.gz", members)
    np.testing.assert_array_equal(find(tmp_path)[0]["TIN"](), IMAGES)


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (("../x.png", png(IMAGES[0])), "'../x.png': names must stay inside"),
        (("x/../../x.txt", b""), "names must stay inside"),
        (("/tmp/x.png", png(IMAGES[0])), "'/tmp/x.png': names must stay inside"),
        (("x/test_2.png", png(IMAGES[0])), "'x/test_2.png': must be there once"),
        (("./x/test_2.png", png(IMAGES[0])), "must be there once"),
        (special("x/a.png", tarfile.SYMTYPE, linkname="/etc/passwd"), "not a link"),
        (special("x/a.png", tarfile.LNKTYPE, linkname="x/test_2.png"), "not a link"),
        (special("x/a.png", tarfile.FIFOTYPE), "plain file"),
        (special("x/a.png", tarfile.CHRTYPE, devmajor=1, devminor=5), "plain file"),
        (special("x/a.png", size=1 << 40), "cannot be read: "),
        (special("x/a.txt", size=1 << 40), "cannot be read: "),
        (("x/a.png", b"\0" * (2 << 20)), "larger than 1 MiB"),
    ],
)
def test_a_member_that_no_honest_archive_has_is_refused(tmp_path, bad, rule):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [*files("x"), bad])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError, match=rf"LSUN_resize.tar.gz.*{rule}.*fetch it again"):
        find(tmp_path)[0]["LSUN"]()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_archive_is_not_unpacked_beyond_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_UNPACKED", 1 << 20)
    path = tmp_path / "LSUN_resize.tar.gz"
    write_archive(path, [*files("x"), ("x/zeros.txt", b"\0" * (2 << 20))])
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match="unpacks to more than"):
        find(tmp_path)[0]["LSUN"]()


def test_a_damaged_header_in_the_middle_loses_no_image_silently(tmp_path):
    path = tmp_path / "LSUN_resize.tar.gz"
    write_archive(path, files("x"), "w")  # not compressed, though named so
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    np.testing.assert_array_equal(find(tmp_path)[0]["LSUN"](), IMAGES)
    content = bytearray(path.read_bytes())
    content[second] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged member"):
        find(tmp_path)[0]["LSUN"]()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"no image at all", "is not a readable image"),
        (png(IMAGES[0])[:600], "is not a readable image"),
        (png(np.zeros((31, 40, 3), np.uint8)), "must be 32x32 pixels, found 40x31"),
        (bomb(12_000), "must be 32x32 pixels, found 12000x12000"),
        (bomb(60_000), "is not a readable image: Image size"),
        (PDF, "is not a readable image: it is damaged, or of no format"),
    ],
    ids=["text", "truncated", "size", "large", "bomb", "pdf"],
)
def test_a_bad_image_is_refused_naming_archive_and_member(tmp_path, content, rule):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [*files("x"), ("x/test_5.png", content)])
    with pytest.raises(ValueError, match=rf"LSUN_resize.tar.gz, member 'x/test_5.png'.* {rule}"):
        find(tmp_path)[0]["LSUN"]()


def test_an_archive_that_cannot_be_opened_or_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "Imagenet_resize.tar.gz"
    for content in (b"", b"an error page", b"\x1f\x8b\x08" + bytes(600)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"^{path} cannot be read: .*; fetch it again"):
            find(tmp_path)  # and not only when it is read
    write_archive(path, files("x"))
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(UserError, match=rf"^{path} cannot be read"):
        find(tmp_path)[0]["TIN"]()


def test_an_archive_without_images_is_refused(tmp_path):
    write_archive(tmp_path / "LSUN_resize.tar.gz", [("x/a.txt", b"")])
    with pytest.raises(ValueError, match=r"holds no images, but 1 no images \(x/a.txt\)"):
        find(tmp_path)[0]["LSUN"]()
