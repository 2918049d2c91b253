"""Pretrained networks: torchvision's state dicts, and our own format, read and written.

Ours is one .safetensors file: '/'-joined paths ('params/...', 'batch_stats/...') to arrays in our
layouts, and metadata that name the format, the network and what it was made from.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from lpw_jax import models, registry
from lpw_jax.errors import UserError
from lpw_jax.files import limits, storage
from lpw_jax.weights import soundness, state_dicts, torchvision_names, weight_files
from lpw_jax.weights.weight_files import Arrays

PUBLISHED_NAME = "imagenet1k_v1"
_OWN, _VERSION = "lpw_jax", 1  # entry of our own files' metadata, which is JSON

Shapes = dict[str, tuple[int, ...]]


PUBLISHED = {name: known.published for name, known in registry.NETWORKS.items() if known.published}


def load_variables(
    path: epath.PathLike,
    *,
    model_name: str,
    num_classes: int,
    key: str = "",
    field: str = "--key",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights of network `model_name` with `num_classes` outputs.

    Args:
      path: a torchvision state dict, as .safetensors or as torch.save writes it (needs PyTorch), or
        our own format; local or remote. The content tells which.
      model_name: a network of torchvision.
      num_classes: outputs of its head.
      key, field: which of several state dicts in the file, and what messages call that; as for
        `state_dicts.choose`.

    Returns:
      `{'params', 'batch_stats'}`, nested dicts of numpy arrays, float64 where the file has
      float64, else float32; and what they are, for results.json: `file`, `sha256`, `model`,
      `format` ('lpw_jax', 'torchvision safetensors' or 'torchvision pth'), `source` (the
      `{file, sha256}` that a file in our format was made from, else None), `taken` (a line that
      says which part of the file they are, '' if all of it) and `published` ('imagenet1k_v1' if it
      all comes from torchvision's file, else None).

    Raises:
      UserError: naming the file: it is not there, damaged, of another network or of several, or
        has missing, unknown, wrongly shaped or not finite entries, which are named.
    """
    if model_name not in PUBLISHED:
        raise UserError(
            f"model.name = {model_name!r}: pretrained weights can be read for "
            f"{', '.join(PUBLISHED)} only"
        )
    place = storage.path(path)
    data = weight_files.read(place)
    entries, metadata, form = weight_files.decode(data, place)
    shapes = _shapes(model_name, num_classes)
    own, taken = _own_metadata(place, metadata, model_name), ""
    if own:
        names, wanted = {path: path for path in shapes}, shapes
    else:
        names = {path: torchvision_names.torch_name(model_name, path) for path in shapes}
        found = state_dicts.choose(
            _modernised(place, entries), set(names.values()), place=place, key=key, field=field
        )
        counters, taken = set(torchvision_names.counters(names.values())), found.taken
        entries = {name: array for name, array in found.entries.items() if name not in counters}
        wanted = {name: torchvision_names.torch_shape(shapes[path]) for path, name in names.items()}
    check_entries(place, entries, wanted, model_name)
    entries = floats(place, entries)
    ours = {
        path: entries[name] if own else torchvision_names.from_torch(entries[name])
        for path, name in names.items()
    }
    digest = hashlib.sha256(data).hexdigest()
    source = own.get("source") if own else None
    origin = source["sha256"] if source else digest
    is_published = origin.startswith(PUBLISHED[model_name].sha256_start)
    return unflatten_dict(ours, sep="/"), {
        "file": str(place),
        "sha256": digest,
        "model": model_name,
        "format": "lpw_jax" if own else f"torchvision {form}",
        "source": source,
        "taken": taken,
        "published": PUBLISHED_NAME if is_published else None,
    }


def encode_variables(
    variables: Mapping[str, Any], *, model_name: str, source: Mapping[str, str] | None = None
) -> bytes:
    """A file in our own format; `source` is the `{file, sha256}` that the variables come from."""
    own = {"version": _VERSION, "model": model_name, "source": source and dict(source)}
    return weight_files.encode(_flat(variables), {_OWN: json.dumps(own)})


def encode_torchvision(variables: Mapping[str, Any], *, model_name: str) -> bytes:
    """A .safetensors file that torchvision's `load_state_dict(strict=True)` takes."""
    entries = {
        torchvision_names.torch_name(model_name, path): torchvision_names.to_torch(array)
        for path, array in _flat(variables).items()
    }
    counters = dict.fromkeys(torchvision_names.counters(entries), np.zeros((), np.int64))
    return weight_files.encode(entries | counters, {"format": "pt"})


def _shapes(model_name: str, num_classes: int) -> Shapes:
    """Shapes of a network's variables by path."""
    model = models.create(model_name, num_classes=num_classes)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), model.dtype)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}


def _flat(variables: Mapping[str, Any]) -> Arrays:
    return {p: np.asarray(array) for p, array in flatten_dict(variables, sep="/").items()}


def _own_metadata(
    place: epath.Path, metadata: Mapping[str, str], model_name: str
) -> dict[str, Any] | None:
    """What a file in our own format says of itself; None for any other file."""
    if _OWN not in metadata:
        return None
    with storage.reading(place, "convert it again"):
        own = limits.loads(metadata[_OWN].encode())
        version, model, source = own["version"], own["model"], own["source"] or {}
        told = [source.get(name, "") for name in ("file", "sha256")]
        if not all(isinstance(text, str) and bool(text) == bool(source) for text in told):
            raise ValueError("it does not say what it was made from")
    if version != _VERSION:
        raise UserError(
            f"{place}: must have version {_VERSION} of our format, but has {version}: another "
            "version of this program wrote it; convert it again"
        )
    if model != model_name:
        raise UserError(
            f"{place}: must hold the weights of {model_name}, but holds those of {model}"
        )
    return own


def _modernised(place: epath.Path, entries: Arrays) -> Arrays:
    """A state dict with today's names."""
    renamed = {}
    for name, array in entries.items():
        modern = torchvision_names.modern_name(name)
        if modern in renamed:
            raise UserError(f"{place}: {modern} is there twice, under an old and a new name")
        renamed[modern] = array
    return renamed


def check_entries(place: epath.Path, entries: Arrays, wanted: Shapes, model: str) -> None:
    """Refuses other names and shapes than those `wanted`, which are those of the network `model`.

    Raises:
      UserError: naming the file `place` and what is missing, unknown or of another shape.
    """
    faults = {
        "missing": [name for name in wanted if name not in entries],
        "unknown": sorted(name for name in entries if name not in wanted),
        "of another shape": [
            f"{name} {list(entries[name].shape)} instead of {list(shape)}"
            for name, shape in wanted.items()
            if name in entries and entries[name].shape != shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{kind}: {soundness.some(names)}" for kind, names in faults.items() if names
        )
        raise UserError(f"{place}: must hold the weights of {model}; {listed}")


def floats(place: epath.Path, entries: Arrays) -> Arrays:
    """float64 as it is, narrower numbers as float32.

    Raises:
      UserError: naming what are no such numbers, or not those of a trained network.
    """
    entries = {name: weight_files.to_numpy(array) for name, array in entries.items()}
    if others := [n for n, a in entries.items() if not jnp.issubdtype(a.dtype, jnp.floating)]:
        raise UserError(
            f"{place}: must hold finite floating-point numbers; not so: {soundness.some(others)}"
        )
    found = {
        name: array.astype(np.promote_types(array.dtype, np.float32), copy=False)
        for name, array in entries.items()
    }
    soundness.check(place, found)
    return found
