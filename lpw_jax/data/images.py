"""Decoding images with Pillow: the small ones of the CIFAR experiments, and any others."""

import io
import pathlib
import warnings
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

from lpw_jax.errors import UserError
from lpw_jax.files import storage

MAX_ENCODED = 1 << 20  # bytes; 32x32 pixels take 3 KiB even uncompressed
MAX_IN_MEMORY = 4 << 30  # bytes of a split's pixels
_GREY = ("1", "L", "LA")  # Pillow's modes
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image; macOS' companions '._NAME' do not."""
    path = pathlib.PurePosixPath(name)
    return path.suffix.lower() in (".png", ".jpg", ".jpeg") and not path.name.startswith(".")


def decode_image(encoded: bytes, where: str, remedy: str) -> np.ndarray:
    """Decodes one 32x32 PNG or JPEG to uint8 [32, 32, 3]; UserError naming `where` if it isn't."""
    try:
        if len(encoded) > MAX_ENCODED:
            raise ValueError(f"it is larger than {MAX_ENCODED >> 20} MiB")
        # Only the header is read before the size is known to be small.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))
        if image.size == (32, 32):
            return np.asarray(image.convert("RGB"))
    except Image.UnidentifiedImageError:  # its message shows the buffer
        raise UserError(f"{where} is not a readable image: not PNG or JPEG; {remedy}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        message = storage.first_line(error)
        raise UserError(f"{where} is not a readable image: {message}; {remedy}") from None
    width, height = image.size
    raise UserError(f"{where}: images must be 32x32 pixels, found {width}x{height}; {remedy}")


def decode_any(encoded: bytes, where: str, remedy: str, *, side: int) -> np.ndarray:
    """Decodes any image that Pillow reads: uint8 [H, W, C], C = 1 if it is grey, else 3.

    Its shorter side becomes `side` pixels (antialiased bilinear) and the central square is kept; 0
    leaves it as it is.

    Raises:
      UserError: naming `where`, if it is not readable or has more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(encoded))
        if image.mode not in (*_GREY, *_COLOUR):
            raise ValueError(f"it must have 8 bits a channel, but has Pillow's mode {image.mode}")
        image = image.convert("L" if image.mode in _GREY else "RGB")
    except Image.UnidentifiedImageError:  # its message shows the buffer
        raise UserError(f"{where} is not an image that Pillow can read; {remedy}") from None
    except Exception as error:
        message = storage.first_line(error)
        raise UserError(f"{where} is not a readable image: {message}; {remedy}") from None
    if side and image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


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
