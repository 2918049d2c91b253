"""The published PyTorch code's state dicts, as this package's weights, and back."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.weights import pretrained, state_dicts, torchvision_names, weight_files
from lpw_jax.weights.reference_names import (
    TIED,
    VALUES,
    Architecture,
    architecture,
    bank_names,
    is_tied,
    member,
    reference_name,
    telling,
)
from lpw_jax.weights.weight_files import Arrays

SHARED = ("shared", "shared_batch_stats")
# Axes of banks, [y, x, in / S, out, T] or [in / S, out, T], in the published code's order.
_BANKS = {5: (3, 0, 1, 2, 4), 3: (1, 0, 2)}
COLLECTIONS = (*SHARED, "late_phase", "batch_stats")

Tree = dict[str, Any]


class StateDict:
    """A file with a state dict of the published CIFAR code's network.

    Args:
      path: a .safetensors or .npz file, or one that torch.save has written (needs PyTorch); local
        or remote. The content tells which.
      key: which of several state dicts in it, as for `state_dicts.choose`.

    Attributes:
      architecture: of the network in it.
      taken: a line that says which part of the file it is, '' if all of it.
      origin: `file`, `sha256` and `format` ('safetensors', 'npz' or 'pth').

    Raises:
      UserError: the file is not there, damaged, or holds another network.
    """

    architecture: Architecture

    def __init__(self, path: epath.PathLike, *, key: str = ""):
        self._place = storage.path(path)
        data = weight_files.read(self._place)
        entries, _, form = weight_files.decode(data, self._place)
        found = state_dicts.choose(entries, telling(entries), place=self._place, key=key)
        self._entries, self.taken = found.entries, found.taken
        digest = hashlib.sha256(data).hexdigest()
        self.origin = {"file": str(self._place), "sha256": digest, "format": form}
        try:
            self.architecture = architecture({n: a.shape for n, a in self._entries.items()})
        except ValueError as error:
            raise UserError(
                f"{self._place}: must hold the state dict of the published code's `model` or "
                f"`swa_model`, a Wide ResNet, but {error}"
            ) from error

    def weights(
        self, shapes: Tree, *, tied: bool = False, banks: Mapping[str, str] | None = None
    ) -> Tree:
        """As `networks.to_weights`, numpy arrays.

        Copies that are not asked for are ignored, and so are the counters of batches.

        Args:
          shapes: what has a `shape`, for every array of a network of this file's architecture, by
            collection, without the member axis.
          tied: the tied copy as one member, instead of the members.
          banks: as in `encode`.

        Returns:
          Arrays in our layouts, those of members [K, ...]; float64 where the file
          has float64, else float32.

        Raises:
          UserError: entries are missing, unknown, wrongly shaped or not finite, which are named; or
            it is the other copies that were trained.
        """
        members = [member(k) for k in range(self.architecture.num_members)]
        shapes = _flat(shapes)
        names = {key: self._names(shapes, key, [TIED] if tied else members) for key in shapes}
        wanted = {
            name: _torch_shape(key[1], shapes[key].shape)
            for key, copies in names.items()
            for name in copies
        }
        copies = {name for key in shapes for name in self._names(shapes, key, [TIED, *members])}
        for path in banks or {}:  # repeated for every layer; the biases are of use in no network
            copies |= set(bank_names(path, depth=self.architecture.depth))
        counters = set(torchvision_names.counters(copies))
        entries = {
            name: array
            for name, array in self._entries.items()
            if name in wanted or name not in copies | counters
        }
        pretrained.check_entries(self._place, entries, wanted, "this Wide ResNet")
        entries = pretrained.floats(self._place, entries)
        self._check_trained(counters, tied=tied)
        weights: dict[str, Arrays] = {collection: {} for collection in COLLECTIONS}
        for (collection, path), copies in names.items():
            arrays = [_from_torch(path, entries[name]) for name in copies]
            weights[collection][path] = arrays[0] if collection in SHARED else np.stack(arrays)
        if not weights["shared_batch_stats"]:
            del weights["shared_batch_stats"]
        return {name: unflatten_dict(flat, sep="/") for name, flat in weights.items()}

    def _names(self, shapes: Any, key: tuple[str, str], copies: list[str]) -> list[str]:
        """Names of these copies of an array; a shared one has only its own."""
        collection, path = key
        copies = [member(0)] if collection in SHARED else copies
        return [_name(path, copy, shapes[key], self.architecture.depth) for copy in copies]

    def _check_trained(self, counters: set[str], *, tied: bool) -> None:
        """Refuses copies that have seen fewer images than the others, if the file tells."""
        seen = {True: 0, False: 0}
        for name in counters & self._entries.keys():
            side = is_tied(name)
            seen[side] = max(
                seen[side], int(weight_files.to_numpy(self._entries[name]).max(initial=0))
            )
        if seen[tied] >= seen[not tied]:
            return
        raise UserError(
            f"{self._place}: must hold a tied copy that was trained to the end, but it is that of "
            "the release; without --tied its members are taken"
            if tied
            else f"{self._place}: must hold trained members, but the tied copy has seen more "
            "images: it was saved before the release; --tied takes that copy"
        )


def encode(weights: Tree, *, depth: int, banks: Mapping[str, str] | None = None) -> bytes:
    """A .safetensors file of a Wide ResNet that the published code's `load_state_dict` takes.

    The model is to be built with `start_tied=False` and as many members as `weights` have; then
    the file holds exactly what `strict=True` asks for.

    Args:
      weights: as `networks.to_weights`.
      depth: of the network.
      banks: for the kernels that are mixtures of templates, by path, the path of the bank's place.
    """
    entries: Arrays = {}
    for (collection, path), array in _flat(weights).items():
        array = np.asarray(array)
        for k, copy in enumerate([array] if collection in SHARED else array):
            entries[_name(path, member(k), copy, depth)] = _to_torch(path, copy)
    for path, place in (banks or {}).items():
        name, of_biases = bank_names(path, depth=depth)
        bank = entries[bank_names(place, depth=depth)[0]]
        biases = np.zeros((bank.shape[0], bank.shape[-1]), bank.dtype)
        entries |= {name: bank, of_biases: entries.get(of_biases, biases)}
    counters = dict.fromkeys(torchvision_names.counters(entries), np.zeros((), np.int64))
    return weight_files.encode(entries | counters, {"format": "pt"})


def check_division(shapes: Tree) -> None:
    """Refuses a division into shared and late-phase weights that the published code cannot make.

    It divides whole layers, and its members have copies of weights or coefficients of templates.

    Raises:
      UserError: naming layers that are divided otherwise, or weights of another kind.
    """
    kinds = ("/inputs", "/outputs", "/left", "/right")
    if others := sorted(path for _, path in _flat(shapes) if path.endswith(kinds)):
        raise UserError(
            "late_phase.kind: must be 'copies' or 'templates', those of the published code, but "
            f"there is {others[0]}"
        )
    if any(path.endswith(VALUES) for collection, path in _flat(shapes) if collection in SHARED):
        raise UserError(
            "late_phase.late_template_groups: must have all of late_phase.template_groups, since "
            "the published code's names are known of members' coefficients only"
        )
    sides: dict[str, set[bool]] = {}
    for collection, path in _flat(shapes):
        sides.setdefault(path.rpartition("/")[0], set()).add(collection in SHARED)
    if divided := sorted(layer for layer, found in sides.items() if len(found) > 1):
        raise UserError(
            "late_phase.patterns: for the published code all of a layer must match, or nothing; "
            f"not so: {', '.join(divided[:5])}"
        )


def _name(path: str, copy: str, like: Any, depth: int) -> str:
    """The published code's name of a copy; `like` has the array's shape."""
    dimensions = len(like.shape)
    if path.endswith("/kernel") and dimensions in _BANKS:
        return bank_names(path, depth=depth)[0]
    if path.endswith("/bias") and dimensions == 2:
        return bank_names(path, depth=depth)[1]
    return reference_name(path, copy, depth=depth)


def _to_torch(path: str, array: np.ndarray) -> np.ndarray:
    """Our layout to the published code's."""
    if path.endswith((VALUES, "/bias")):
        return array
    if array.ndim in _BANKS:
        return array.transpose(_BANKS[array.ndim])
    return torchvision_names.to_torch(array)


def _from_torch(path: str, array: np.ndarray) -> np.ndarray:
    """Inverse of `_to_torch`."""
    if path.endswith((VALUES, "/bias")):
        return array
    if array.ndim in _BANKS:
        return array.transpose(np.argsort(_BANKS[array.ndim]))
    return torchvision_names.from_torch(array)


def _torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return _to_torch(path, np.broadcast_to(0, shape)).shape


def _flat(tree: Tree) -> dict[tuple[str, str], Any]:
    """Leaves by collection and path."""
    return {
        (collection, path): leaf
        for collection in COLLECTIONS
        for path, leaf in flatten_dict(tree.get(collection, {}), sep="/").items()
    }
