"""ImageNet's archives are checked as a whole, by their headers alone."""

import shutil
import tarfile

import imagenet_files
import pytest
from image_files import special, write_archive
from imagenet_files import SYNSETS, TRAIN, VAL, VAL_SYNSETS, val_images, write_val

from lpw_jax.data import imagenet_tars, tfds_prepared
from lpw_jax.errors import UserError


def check(folder):
    """Walks over the archives in a folder."""
    return imagenet_tars.check(
        imagenet_tars.find(tfds_prepared.root(str(folder))),
        synsets=SYNSETS,
        num_validation=len(VAL_SYNSETS),
        progress=lambda num_bytes: None,
    )


def test_the_walk_passes_over_every_image_once(tmp_path):
    imagenet_files.make_tars(tmp_path, num_classes=3, per_class=2, num_val=5)
    passed = []
    tars = imagenet_tars.find(tfds_prepared.root(str(tmp_path)))
    counts = imagenet_tars.check(tars, synsets=SYNSETS, num_validation=5, progress=passed.append)
    assert counts == {"train": 6, "validation": 5}
    assert 0 < sum(passed) < tars.num_bytes == sum(p.stat().st_size for p in tmp_path.iterdir())


def flat(folder, members):
    write_val(folder, members)


def nested(folder, files, name=f"{SYNSETS[0]}.tar"):
    write_archive(folder / TRAIN, [(name, imagenet_files.tar(files))], "w")


IMAGE = f"{SYNSETS[0]}_1.JPEG"
VALID = "ILSVRC2012_val_00000001.JPEG"
MISTAKES = {
    "validation archive as the training one": (
        lambda d: shutil.copy(d / VAL, d / TRAIN),
        rf"{TRAIN}, member '{VALID}': must be one tar for each class.*this seems to be {VAL}",
    ),
    "training archive as the validation one": (
        lambda d: shutil.copy(d / TRAIN, d / VAL),
        rf"{VAL}, member 'n01440764.tar': must be ILSVRC2012.*this seems to be {TRAIN}",
    ),
    "no tar": (
        lambda d: (d / VAL).write_bytes(b"<html>sign in</html>" * 99),
        rf"{VAL} is not an uncompressed tar archive",
    ),
    "empty file": (lambda d: (d / VAL).write_bytes(b""), rf"{VAL} is not an uncompressed tar"),
    "compressed": (
        lambda d: write_archive(d / VAL, [(VALID, b"x")], "w:gz"),
        rf"{VAL} is not an uncompressed tar",
    ),
    "empty tar": (lambda d: flat(d, []), rf"{VAL}: must hold ILSVRC.*but holds nothing"),
    "a folder": (lambda d: ((d / VAL).unlink(), (d / VAL).mkdir()), rf"{VAL}: must be.*no file"),
    "unknown class": (
        lambda d: nested(d, [("n99999999_1.JPEG", b"x")], "n99999999.tar"),
        r"member 'n99999999.tar': must be one tar for each class",
    ),
    "class tar that is none": (
        lambda d: write_archive(d / TRAIN, [(f"{SYNSETS[0]}.tar", b"x" * 2000)], "w"),
        rf"member '{SYNSETS[0]}.tar' is not an uncompressed tar archive",
    ),
    "image of another class": (
        lambda d: nested(d, [(f"{SYNSETS[1]}_1.JPEG", b"x")]),
        rf"{SYNSETS[0]}.tar.*must hold images.*not '{SYNSETS[1]}_1.JPEG'",
    ),
    "image twice": (
        lambda d: nested(d, [(IMAGE, b"x"), (IMAGE, b"y")]),
        rf"{SYNSETS[0]}.tar.*'{IMAGE}': must be there once",
    ),
    "class twice": (
        lambda d: write_archive(
            d / TRAIN, [(f"{SYNSETS[0]}.tar", imagenet_files.tar([(IMAGE, b"x")]))] * 2, "w"
        ),
        rf"member '{SYNSETS[0]}.tar': must be there once",
    ),
    "image outside": (lambda d: nested(d, [(f"../{IMAGE}", b"x")]), r"not '\.\./n01440764"),
    "validation number twice": (
        lambda d: flat(d, [(VALID, b"x"), (f"./{VALID}", b"y")]),
        rf"'{VALID}': must be there once",
    ),
    "validation number 0": (
        lambda d: flat(d, [("ILSVRC2012_val_00000000.JPEG", b"x")]),
        r"00000000.JPEG': must be ILSVRC2012_val_00000001",
    ),
    "validation number 50001": (
        lambda d: flat(d, [("ILSVRC2012_val_00050001.JPEG", b"x")]),
        r"00050001.JPEG': must be ILSVRC2012_val_00000001",
    ),
    "validation name without number": (
        lambda d: flat(d, [("cat.JPEG", b"x")]),
        r"'cat.JPEG': must be ILSVRC2012_val_00000001",
    ),
    "link": (
        lambda d: flat(d, [special(VALID, tarfile.SYMTYPE, linkname="/etc/passwd")]),
        r"must be a plain file",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_archives_are_named(mistake, tmp_path):
    spoil, message = MISTAKES[mistake]
    imagenet_files.make_tars(tmp_path, num_classes=2, per_class=1, num_val=2)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        check(tmp_path)


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_an_archive_cut_anywhere_or_with_a_hole_is_named(name, tmp_path):
    imagenet_files.make_tars(tmp_path, num_classes=2, per_class=2, num_val=3)
    path = tmp_path / name
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1]
    end = end.offset_data + -(-end.size // 512) * 512  # of the last member
    assert check(tmp_path)
    for length in (*range(100, end, 1_700), end - 512, end, end + 100):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"{name}.*(truncated|cannot be read|not an uncompr)"):
            check(tmp_path)
    for start in range(0, end, 512):  # a download in pieces may miss one
        if any(whole[start : start + 512]) and whole[start + 257 : start + 262] == b"ustar":
            path.write_bytes(whole[:start] + bytes(512) + whole[start + 512 :])
            with pytest.raises(UserError, match=rf"{name}.*(truncated or damaged|holds nothing)"):
                check(tmp_path)


def test_archives_packed_anew_with_a_folder_entry_and_long_headers_are_accepted(tmp_path):
    (tmp_path / "images").mkdir()
    for name, image in val_images((1, 2)):
        (tmp_path / "images" / name).write_bytes(image)
    with tarfile.open(tmp_path / VAL, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path / "images", ".")  # times with fractions need a header of their own
    assert check(tmp_path) == {"validation": 2}


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"gone'.*must be the folder of {TRAIN} and {VAL}"):
        check(tmp_path / "gone")
