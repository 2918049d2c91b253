"""Decoding the small images of the CIFAR experiments."""

import io
import pathlib
import warnings

import numpy as np
from PIL import Image

from lpw_jax.errors import UserError
from lpw_jax.files import storage

MAX_ENCODED = 1 << 20  # bytes; 32x32 pixels take 3 KiB even uncompressed


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
