"""Decoding images with Pillow: the small ones of the CIFAR experiments, and any others."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterable

import numpy as np
from PIL import ExifTags, Image, ImageOps

from lpw_jax.errors import UserError, first_line

# Pillow's names. Others run programs (EPS), are no images to most people (PDF) or have no colours.
FORMATS = (
    "PNG", "JPEG", "JPEG2000", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "QOI",
    "TGA", "PCX", "SGI", "ICO", "DDS", "XBM", "XPM",
)  # fmt: skip
MAX_ENCODED = 1 << 20  # bytes; 32x32 pixels take 3 KiB even uncompressed
MAX_FILE = 256 << 20  # bytes of any image
MAX_PIXELS = 89_478_485  # beyond it Pillow takes an image for a bomb
MAX_IN_MEMORY = 4 << 30  # bytes of a split's pixels
_LARGE = 16_000_000  # pixels; such images are decoded one at a time, to spare memory
_GREY = ("1", "L", "LA")  # Pillow's modes
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV")
_ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation
_one_large = threading.Lock()


def decode_image(encoded: bytes, where: str, remedy: str) -> np.ndarray:
    """Decodes a 32x32 image to uint8 [32, 32, 3]; as `decode_any`, but refuses all other sizes."""
    pixels = _decode(encoded, where, remedy, max_bytes=MAX_ENCODED, size=(32, 32))
    return pixels if pixels.shape[-1] == 3 else pixels.repeat(3, axis=-1)


def decode_any(encoded: bytes, where: str, remedy: str, *, side: int) -> np.ndarray:
    """Decodes any image of `FORMATS`: uint8 [H, W, C], C = 1 if it is grey, else 3.

    It is what a person sees: turned as its EXIF data say, 16 bits of grey scaled to 8, colours of
    palettes and CMYK made RGB, and what is transparent laid on white. Its shorter side becomes
    `side` pixels (antialiased bilinear) and the central square is kept; 0 leaves it as it is.

    Raises:
      UserError: naming `where` and why it cannot be read: it is damaged, of another format or of
        other numbers, moves, or is too large.
    """
    return _decode(encoded, where, remedy, side=side)


def _decode(encoded, where, remedy, *, max_bytes=MAX_FILE, size=None, side=0):
    try:
        if not encoded:
            raise ValueError("it is empty")
        if len(encoded) > max_bytes:
            raise ValueError(f"it is larger than {max_bytes >> 20} MiB")
        # Only the header is read before the size is known to be small.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        width, height = image.size
        if size and image.size != size:
            wanted = "x".join(map(str, size))
            raise UserError(
                f"{where}: images must be {wanted} pixels, found {width}x{height}; {remedy}"
            )
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width}x{height} pixels, more than {MAX_PIXELS:,}")
        with _one_large if width * height > _LARGE else contextlib.nullcontext():
            image = _as_seen(image)
            if side and image.size != (side, side):
                image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
    except UserError:
        raise
    except Image.UnidentifiedImageError:  # its message shows the buffer
        raise UserError(
            f"{where} is not a readable image: it is damaged, or of no format that is read "
            f"({', '.join(FORMATS[:6])} ...); {remedy}"
        ) from None
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        message = first_line(error)
        raise UserError(f"{where} is not a readable image: {message}; {remedy}") from None
    return pixels.reshape(*pixels.shape[:2], -1)


def _as_seen(image: Image.Image) -> Image.Image:
    """An opened image in Pillow's mode L or RGB."""
    if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: one photo, previews
        raise ValueError("it holds several images, as animations do, and must hold one")
    image.load()
    if (turn := _TURNS.get(_orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = _of_8_bits(image)
    if image.mode not in (*_GREY, *_COLOUR):
        raise ValueError(
            f"it must have 8 bits a channel, or 16 of grey, but has Pillow's mode {image.mode}"
        )
    is_grey = image.mode in _GREY
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_grey else "RGB")


def _orientation(image: Image.Image) -> int | None:
    """What the EXIF data say; None without them, and where they are damaged."""
    if image.format != "TIFF" and _ORIENTED.isdisjoint(image.info):
        return None
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def _of_8_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.uint32)
    levels[levels == image.info.get("transparency", -1)] = 65_535  # white, as below
    return Image.fromarray(((levels * 255 + 32_767) // 65_535).astype(np.uint8))


def stack(decoded: Iterable[tuple[str, np.ndarray]], count: int) -> np.ndarray:
    """`count` images [H, W, C], each with the place it is from, as uint8 [count, H, W, C].

    Grey ones among coloured ones get three equal channels.

    Raises:
      UserError: they differ in height or width, or are too many for the memory.
    """
    images = None
    for i, (where, image) in enumerate(decoded):
        if images is None:
            check_fits(count * image.size, where)
            images = np.empty((count, *image.shape), np.uint8)
        if image.shape[:2] != images.shape[1:3]:
            (height, width), first = image.shape[:2], images.shape[1:3]
            raise UserError(
                f"{where}: images must all have one size, but it has {width}x{height} pixels and "
                f"the first {first[1]}x{first[0]}; data.image_size says what they are resized to"
            )
        if image.shape[2] > images.shape[3]:
            images = np.repeat(images, 3, axis=3)
        images[i] = image
    return images


def with_equal_channels(*splits: np.ndarray) -> list[np.ndarray]:
    """Splits [N, H, W, C] with as many channels as that which has most."""
    most = max(images.shape[-1] for images in splits)
    return [images if images.shape[-1] == most else np.repeat(images, 3, -1) for images in splits]


def check_fits(num_bytes: int, where: str) -> None:
    """Raises UserError for more pixels than are kept in memory."""
    if num_bytes > MAX_IN_MEMORY:
        raise UserError(
            f"{where}: images must fit in {MAX_IN_MEMORY >> 30} GiB of memory, but take "
            f"{num_bytes / 2**30:.1f}; set a smaller data.image_size, or prepare the data with "
            "tensorflow-datasets, from which larger ones are streamed"
        )
