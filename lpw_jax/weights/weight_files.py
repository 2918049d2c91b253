"""Named arrays in .safetensors files, and, read only, in .npz files and those of torch.save."""

import argparse
import collections
import contextlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from lpw_jax.errors import UserError, first_line
from lpw_jax.files import limits, storage
from lpw_jax.weights import state_dicts

Arrays = dict[str, np.ndarray]

_MAX_BYTES = 4 << 30  # ResNet-152 in float64 takes 0.5 GB
_NUMPY_TYPES = {
    **{f"{kind}{8 * n}": np.dtype(f"<{kind.lower()}{n}") for kind in "IU" for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    **{"BF16": np.dtype(jnp.bfloat16), "BOOL": np.dtype(bool)},
}  # by the names of safetensors
_METADATA, _CHECKSUM = "__metadata__", "lpw_jax_crc32"
_REMEDY = "fetch or convert it again"


def read(place: epath.Path) -> bytes:
    """Content of a file, local or remote.

    Raises:
      UserError: there is none, or it is far too large for weights.
    """
    if not storage.has_file(place, what="a file of weights"):
        raise UserError(f"{place}: must be a file of weights, but there is none")
    with storage.reading(place):
        size = place.stat().length
        if size > _MAX_BYTES:
            raise UserError(
                f"{place}: must be a file of weights of at most {_MAX_BYTES >> 30} GiB, "
                f"but has {size / 2**30:.1f}"
            )
        return place.read_bytes()


def decode(data: bytes, place: epath.Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """What `data`, the content of the file `place`, holds; its beginning tells the format.

    Returns:
      Arrays by name (of torch.save tensors, of nested dicts under names with dots; `to_numpy` makes
      arrays of them), metadata, and 'safetensors', 'npz' or 'pth'.

    Raises:
      UserError: it is damaged, unpacks to far too much, or is of no such format; PyTorch is needed
        and not there.
    """
    if data[8:9] == b"{":
        return *_decode_safetensors(data, place), "safetensors"
    if data.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(data)):
        with storage.reading(place, _REMEDY):
            limits.check_zip(io.BytesIO(data), most=_MAX_BYTES)
    if _is_npz(data):
        with storage.reading(place, _REMEDY), np.load(io.BytesIO(data)) as file:
            arrays = {name: file[name] for name in file.files}
        return {n: a for n, a in arrays.items() if isinstance(a, np.ndarray)}, {}, "npz"
    if data.startswith((b"PK", b"\x80")):
        return _decode_torch(data, place), {}, "pth"
    raise UserError(
        f"{place}: must be weights as .safetensors, .npz or as torch.save writes them, but its "
        f"content is none of them; {_REMEDY}"
    )


def to_numpy(value: Any) -> np.ndarray:
    """An array of what `decode` gives; narrow numbers of PyTorch become float32."""
    if isinstance(value, np.ndarray):  # numpy itself writes bfloat16 as two bytes of anything
        return value.view(jnp.bfloat16) if value.dtype == np.dtype("V2") else value
    value = value.detach()
    narrow = value.is_floating_point() and value.element_size() < 8
    return (value.float() if narrow else value).numpy()


def _decode_safetensors(data: bytes, place: epath.Path) -> tuple[Arrays, dict[str, str]]:
    with storage.reading(place, _REMEDY):
        header, tensors = _parts(data)
        metadata = header.get(_METADATA, {})
        written = metadata.pop(_CHECKSUM, None)
        if written not in (None, _checksum(header, tensors)):
            raise ValueError("the contents are not those that were written (checksum)")
        header.pop(_METADATA, None)
        if unknown := {entry["dtype"] for entry in header.values()} - _NUMPY_TYPES.keys():
            raise UserError(
                f"{place}: must hold numbers that numpy knows, not {', '.join(sorted(unknown))}"
                "; convert them to F32"
            )
        arrays = {
            name: np.frombuffer(entry["data"], _NUMPY_TYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in safetensors.deserialize(data)
        }
    return arrays, metadata


def _is_npz(data: bytes) -> bool:
    """Whether this is a zip archive of numpy's; those of torch.save hold no .npy."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return False


def encode(entries: Arrays, metadata: dict[str, str]) -> bytes:
    """Content of a .safetensors file, with its checksum in the metadata."""
    # In C order: the library writes memory as it lies.
    entries = {name: np.asarray(array, order="C") for name, array in sorted(entries.items())}
    header, tensors = _parts(safetensors.numpy.save(entries, metadata))
    # Sorted, as the library writes metadata in any order: files are reproducible.
    header[_METADATA] = dict(sorted({**metadata, _CHECKSUM: _checksum(header, tensors)}.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + tensors


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a .safetensors file, as JSON, and what follows it."""
    end = 8 + int.from_bytes(data[:8], "little")
    return limits.loads(data[8:end]), data[end:]


def _checksum(header: dict[str, Any], tensors: bytes) -> str:
    return str(zlib.crc32(tensors, zlib.crc32(json.dumps(header, sort_keys=True).encode())))


def import_torch() -> Any:
    """PyTorch, which only files of torch.save need.

    Raises:
      UserError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "PyTorch is needed to read a .pth file and is not installed: "
            "pip install '.[torch]', or convert it to .safetensors elsewhere"
        ) from error
    return torch


def _decode_torch(data: bytes, place: epath.Path) -> dict[str, Any]:
    torch = import_torch()
    try:  # what training scripts keep beside weights, and runs no code
        harmless = [argparse.Namespace, collections.Counter, np.dtype, type(np.dtype(float))]
        with torch.serialization.safe_globals([*harmless, _numpy_scalar()]):
            tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # nearly anything, with advice on how to run a stranger's code
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(
            f"{place} cannot be read: it is damaged, or holds other things than tensors"
            f"{f' ({found[1]})' if found else ''}; {_REMEDY}"
        ) from error
    entries = state_dicts.flat(tree, torch.is_tensor) if isinstance(tree, Mapping) else {}
    if not entries:
        raise UserError(
            f"{place}: must hold a state dict, names to tensors, alone or in other dicts"
        )
    return entries


def _numpy_scalar() -> Any:
    """What numpy's pickles of single numbers call."""
    return np.float64(0).__reduce__()[0]


@contextlib.contextmanager
def replacing(target: epath.Path) -> Iterator[epath.Path]:
    """Yields a file to write, which takes the place of `target` at the end, if all went well.

    Nothing is computed in vain: a `target` that cannot be written is known at the start.

    Raises:
      UserError: it cannot be written.
    """
    storage.has_file(target, what="a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.replacing(target) as temporary:
            temporary.write_bytes(b"")
            yield temporary
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not storage.is_remote(target):
            raise  # a fault of the program; clients of buckets raise anything
        raise UserError(f"{target} cannot be written: {first_line(error)}") from error
