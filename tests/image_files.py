"""Small images and archives of them, honest and not, for tests."""

import io
import pathlib
import struct
import tarfile
import zlib

import numpy as np
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
NAMES = ("test_10.png", "test_2.png", "test_9.png")  # in the order of file names
GIF = b"GIF89a" + struct.pack("<HHBBB", 32, 32, 0, 0, 0) + bytes(20)

Member = tarfile.TarInfo | tuple[str, bytes | None]


def png(image: np.ndarray) -> bytes:
    """`image` uint8 [H, W, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def bomb(size: int) -> bytes:
    """A PNG header that declares `size` x `size` pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13)
    return start + header + checksum + struct.pack(">I", 0) + b"IDAT" + bytes(4)


def files(folder: str, order: tuple[int, ...] = (2, 0, 1)) -> list[Member]:
    """`IMAGES` as members of an archive, in `order`."""
    return [(f"{folder}/{NAMES[i]}", png(IMAGES[i])) for i in order]


def special(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """A member that is a link or a device, or only declares what it holds."""
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def write_archive(path: pathlib.Path, members: list[Member], mode: str = "w:gz") -> None:
    """`members`: (name, content) for a file, (name, None) for a folder, or from `special`."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
