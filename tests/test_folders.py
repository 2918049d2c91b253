"""Folders of images as a person sees them, and images of every kind as a person sees them."""

import io
import os
import pathlib

import numpy as np
import pytest
from image_files import IMAGES, png, write_archive
from PIL import Image

from lpw_jax.data import folders, image_folder, images, ood
from lpw_jax.errors import UserError

HIDDEN = (
    ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "@eaDir/a.png", ".DS_Store", "Thumbs.db",
    "desktop.ini", "lost+found/a.png", "$RECYCLE.BIN/a.png", ".hidden.png", "._a.png", "THUMBS.DB",
    "System Volume Information/a.png", "a.png~", "#recycle/a.png", ".cache/deep/a.png",
)  # fmt: skip
SEEN = (
    "a.png", "B.PNG", "c.jpeg", "d.JPE", "e.webp", "f.bmp", "g.tif", "h.TIFF", "i.gif", "j.ppm",
    "no_ending", "n01440764_10026", "frame.0001", "name with spaces.png", "sub/deep/k.png", "é.png",
    "folder.png/l.png", "wrong.png", "m.jfif", "n.avif", "o.jp2",
)  # fmt: skip
OTHER = ("notes.txt", "labels.csv", "README", "table.json", "paper.pdf", "film.mp4", "text.dat")


def encoded(name, pixels):
    """A file's content by the ending of its name; without one a JPEG."""
    forms = Image.registered_extensions()
    form = forms.get(os.path.splitext(name)[1].lower(), "JPEG")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG" if name.startswith("wrong") else form)
    return buffer.getvalue()


def put(folder, name, content=b""):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A folder with everything in it, and links."""
    place = tmp_path / "LSUN_resize"
    for name in (*HIDDEN, *SEEN, *OTHER):
        put(place, name, b"text" if name in OTHER else encoded(name, IMAGES[0]))
    put(tmp_path / "outside", "real.png", png(IMAGES[1]))
    (place / "link").symlink_to(tmp_path / "outside" / "real.png")
    (place / "linked").symlink_to(tmp_path / "outside")
    for name, target in (("loop", "."), ("sub/up", ".."), ("twice", "linked"), ("self", "self")):
        (place / name).symlink_to(target)
    (place / "nowhere").symlink_to("missing")
    os.mkfifo(place / "pipe")
    return place


def test_what_a_person_sees_counts_and_the_rest_is_counted_and_named(folder):
    left_out = folders.LeftOut()
    found = folders.images(folder, left_out)
    names = sorted([*SEEN, "link", "linked/real.png"])
    assert [path.relative_to(folder).as_posix() for path in found] == names
    hidden, other, odd, twice = (
        sorted(left_out.names[kind])
        for kind in (folders._HIDDEN, folders._OTHER, folders._ODD, folders._TWICE)
    )
    assert hidden == sorted({name.split("/")[0] if "/" in name else name for name in HIDDEN})
    assert other == sorted(OTHER)
    assert odd == ["nowhere", "pipe", "self"] and twice == ["loop", "sub/up", "twice"]
    assert f"{len(OTHER)} no images (README, film.mp4, labels.csv, ...)" in str(left_out)


def test_every_reader_of_folders_and_archives_sees_the_same(folder, tmp_path):
    told = []
    found = ood.find_ood_sets("cifar10", data_dir="", ood_dir=str(tmp_path), tell=told.append)[0]
    assert found["LSUN"]().shape == (len(SEEN) + 2, 32, 32, 3)
    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "images" / split / "owl").symlink_to(folder)
        put(tmp_path / "images" / split, ".ipynb_checkpoints/a.png", png(IMAGES[0]))
        put(tmp_path / "images" / split, "notes.txt")
    data = image_folder.load("images", str(tmp_path / "images"), 0, on_corrupt=told.append)
    assert (
        data.num_classes == 1 and len(data.train_labels) == len(data.test_labels) == len(SEEN) + 2
    )
    members = [(f"x/{name}", encoded(name, IMAGES[0])) for name in (*HIDDEN, *SEEN)]
    write_archive(tmp_path / "TIN.tar", [*members, *((f"x/{name}", b"text") for name in OTHER)])
    archive = tmp_path / "TIN.tar"
    archive.rename(tmp_path / "Imagenet_resize.tar")
    found = ood.find_ood_sets("cifar10", data_dir="", ood_dir=str(tmp_path), tell=told.append)[0]
    assert len(found["TIN"]()) == len(SEEN)
    assert [line.split(":")[0].rpartition("/")[2] for line in told] == [
        *("LSUN_resize", "train", "test", "Imagenet_resize.tar")
    ]
    assert all("left out are" in line and "notes.txt" in line for line in told[1:3])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"", "is an empty file"),
        ("a.png", png(IMAGES[0])[:900], "is not a readable image: .*truncated"),
        ("a.jpg", b"an error page", "is not a readable image: it is damaged, or of no format"),
        ("a.heic", b"\0\0\0\x18ftypheic", "is not a readable image"),
        ("a.svg", b"<svg/>", "is not a readable image: it is damaged, or of no format"),
        (
            "a.eps",
            b"%!PS-Adobe-3.0 EPSF-3.0\n",
            "is not a readable image: it is damaged, or of no format",
        ),
        ("a.png", pathlib.Path("missing"), "is a link that leads to nothing"),
        ("a.png", pathlib.Path("a.png"), "is a link that leads to nothing"),
        ("a.png", None, "is no plain file"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_an_image_that_cannot_be_read_is_refused_or_left_out_by_name(
    tmp_path, name, content, reason, skip
):
    for place in ("train/owl", "test/owl"):
        put(tmp_path / place, "good.png", png(IMAGES[0]))
    path = tmp_path / "train" / "owl" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        os.mkfifo(path)
    else:
        path.symlink_to(content)
    if not skip:
        with pytest.raises(UserError, match=f"^{path} {reason}.*; remove it, or put it right"):
            image_folder.load("images", str(tmp_path), 0)
        return
    told = []
    data = image_folder.load("images", str(tmp_path), 0, skip_corrupt=True, on_corrupt=told.append)
    assert data.num_train == 1 and data.note == "1 damaged images left out"
    assert len(told) == 1 and str(path) in told[0] and told[0].endswith("; it is left out")


def test_folders_without_images_are_no_classes(tmp_path):
    for place in ("train/owl", "test/owl"):
        put(tmp_path / place, "good.png", png(IMAGES[0]))
    put(tmp_path, "test/notes/a.txt")
    assert image_folder.load("images", str(tmp_path), 0).num_classes == 1
    put(tmp_path, "train/notes/a.txt")
    with pytest.raises(UserError, match=r"notes must hold images, .* but holds 1 no images"):
        image_folder.load("images", str(tmp_path), 0)


PLAIN = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # grey, 4 wide
RGB = np.stack([PLAIN, 255 - PLAIN, PLAIN // 2], axis=-1)
_DEEP = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5461)
_ALPHA = Image.fromarray(np.dstack([RGB, np.where(PLAIN < 100, 255, 0).astype(np.uint8)]))
_ON_WHITE = np.where(PLAIN[..., None] < 100, RGB, 255)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6  # turned by a quarter, as telephones do


def saved(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def palette(transparent):
    image = Image.fromarray(PLAIN // 20).convert("P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, 7)])
    return saved(image, **({"transparency": 3} if transparent else {}))


def test_images_are_read_as_a_person_sees_them():
    index = PLAIN // 20
    coloured = np.stack([index, 255 - index, np.full_like(index, 7)], axis=-1)
    scaled = np.round(np.arange(12).reshape(3, 4) * 5461 / 257)
    cases = {
        "grey": (saved(Image.fromarray(PLAIN)), PLAIN[..., None], 0),
        "colour": (saved(Image.fromarray(RGB)), RGB, 0),
        "16 bits": (saved(_DEEP), scaled[..., None], 0),
        "16 bits, tiff": (saved(_DEEP, "TIFF"), scaled[..., None], 0),
        "16 bits, pgm": (saved(_DEEP, "PPM"), scaled[..., None], 0),
        "1 bit": (saved(Image.fromarray(PLAIN > 99)), (PLAIN > 99)[..., None] * 255, 0),
        "palette": (palette(False), coloured, 0),
        "palette, transparent": (palette(True), np.where(index[..., None] == 3, 255, coloured), 0),
        "alpha": (saved(_ALPHA), _ON_WHITE, 0),
        "alpha, webp": (saved(_ALPHA, "WEBP", lossless=True), _ON_WHITE, 0),
        "grey, alpha": (saved(_ALPHA.getchannel("R").convert("LA")), PLAIN[..., None], 0),
        "grey, a key": (saved(Image.fromarray(PLAIN), transparency=0), None, 0),
        "turned": (saved(Image.fromarray(RGB), exif=_EXIF), np.rot90(RGB, -1), 0),
        "turned, jpeg": (
            saved(Image.fromarray(RGB), "JPEG", exif=_EXIF, quality=100, subsampling=0),
            np.rot90(RGB, -1),
            40,
        ),
        "turned, 16 bits": (saved(_DEEP, exif=_EXIF), np.rot90(scaled, -1)[..., None], 0),
        "cmyk": (
            saved(Image.new("CMYK", (4, 3), (0, 255, 255, 0)), "JPEG"),
            np.broadcast_to((255, 0, 0), (3, 4, 3)),
            3,
        ),
        "one frame": (saved(Image.fromarray(PLAIN), "GIF"), None, 0),
    }
    for name, (content, expected, tolerance) in cases.items():
        found = images.decode_any(content, name, "remove it", side=0)
        assert found.dtype == np.uint8
        if expected is not None:
            assert found.shape == expected.shape, name
            np.testing.assert_allclose(found.astype(int), expected, atol=tolerance, err_msg=name)
    key = images.decode_any(cases["grey, a key"][0], "", "", side=0)
    assert key[0, 0, 0] == 255 and key[0, 1, 0] == 20
    deep = Image.fromarray(np.full((32, 32), 257 * 9, np.uint16))
    assert (images.decode_image(saved(deep), "", "") == 9).all()  # by the one decoder


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_what_moves_or_has_other_numbers_is_refused_with_the_reason(form):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    moving = saved(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="x is not a readable image: it holds several images"):
        images.decode_any(moving, "x", "remove it", side=0)
    floats = saved(Image.fromarray(PLAIN.astype(np.float32)), "TIFF")
    with pytest.raises(UserError, match="must have 8 bits a channel, or 16 of grey, .* mode F"):
        images.decode_any(floats, "x", "remove it", side=0)
