"""Where the sets are that tensorflow-datasets has prepared, and what they say of themselves."""

import contextlib
import dataclasses
import os
import re

from etils import epath

from lpw_jax.data.folders import is_hidden
from lpw_jax.data.nearby import nearby
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import limits, storage

REMEDY = "copy the dataset anew, or remove its folder and prepare it again"
_FORMATS = ("array_record", "tfrecord")
_INFO = "dataset_info.json"
_NAMES, _MAX_NAMES = "label.labels.txt", 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared dataset: `folder` is <data_dir>/<name>/<version>."""

    folder: epath.Path
    description: str
    file_format: str
    split_sizes: dict[str, int]


def class_names(prepared: Prepared, num_classes: int) -> tuple[str, ...]:
    """The names of classes in the order of labels; () if there is no list of so many.

    They only make tables more readable: a bad list is as none.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with (prepared.folder / _NAMES).open("rb") as file:
            names = file.read(_MAX_NAMES).decode().splitlines()
        return tuple(names) if len(names) == num_classes else ()
    return ()


def root(data_dir: str) -> epath.Path:
    """The folder of tensorflow-datasets: `data_dir`, or that around it.

    The latter where it is the folder of a data set or of one of its versions; '' means tfds'
    default folder.
    """
    place = _given(data_dir)
    found = _set_in(place)
    return found.around if found else place


def find_prepared(name: str, data_dir: str) -> Prepared | None:
    """The newest prepared version of `name`, or None; reads only its dataset_info.json.

    It may also lie in the folder around `data_dir`, as for `root`, or in the only folder in
    `data_dir` that holds it. Where `data_dir` is a version's own folder, it is that version.

    Raises:
      UserError: naming what is in the way of a folder, cannot be read, or is not as tfds writes it;
        or several folders in `data_dir` hold it.
    """
    place = _given(data_dir)
    if not storage.has_folder(place, what="a folder of tensorflow-datasets (data.dir)"):
        return None
    if found := _newest(place, name):
        return _read_info(found)
    if inside := _set_in(place):
        found = inside.info if inside.name == name else _newest(inside.around, name)
        if found:
            return _read_info(found)
    first = name.partition("/")[0]

    def known(folder):
        return [first] if _newest(folder, name, strict=False) else []

    place = nearby(place, known, field="data.dir")
    return _read_info(found) if (found := _newest(place, name)) else None


def _given(data_dir: str) -> epath.Path:
    return storage.path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def _newest(folder: epath.Path, name: str, *, strict: bool = True) -> epath.Path | None:
    """The dataset_info.json of the newest version of `name` in a folder of tensorflow-datasets."""
    for part in name.split("/"):  # the set, and perhaps one of its configs
        with storage.reading(folder):
            if part not in (path.name for path in folder.iterdir()):
                return None
        folder /= part
        if not strict and not folder.is_dir():
            return None
        storage.has_folder(folder, what="the folder of a dataset")
    versions = _versions(folder)
    found = [path / _INFO for path in versions if storage.is_file(path / _INFO)]
    if versions and not found and strict:
        raise UserError(f"{versions[-1]} holds no readable {_INFO}; {REMEDY}")
    return found[-1] if found else None


def _versions(folder: epath.Path) -> list[epath.Path]:
    with storage.reading(folder):
        if not folder.is_dir():
            return []
        versions = [p for p in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]
    return sorted(versions, key=lambda path: tuple(map(int, path.name.split("."))))


@dataclasses.dataclass(frozen=True)
class _Inside:
    """A set, as its newest version's dataset_info.json names it, and the folder of all sets."""

    name: str
    info: epath.Path
    around: epath.Path


def _set_in(place: epath.Path) -> _Inside | None:
    """The set whose folder, or one of whose versions' or configs' folders, is `place`."""
    try:
        if not place.is_dir():
            return None
        own = [place] if storage.is_file(place / _INFO) else _versions(place)
        others = (_versions(path) for path in place.iterdir() if not is_hidden(path.name))
        info = (own or next(filter(None, others)))[-1] / _INFO
        told = limits.read_json(info)
        parts = [told["name"], *([told["configName"]] if told.get("configName") else [])]
        around = info.parent.parent
        for part in reversed(parts):
            around = around.parent if around.name == part else around
    except Exception:  # there is none, or it cannot be read, which others will say
        return None
    return _Inside("/".join(parts), info, around) if own or around != place else None


def _read_info(path: epath.Path) -> Prepared:
    try:
        info = limits.read_json(path)
        sizes = {s["name"]: sum(map(int, s.get("shardLengths", ()))) for s in info["splits"]}
        description, file_format = info.get("description", ""), info.get("fileFormat", "tfrecord")
        if not isinstance(description, str):
            raise ValueError(f"description must be text, not {description!r}")
        if file_format not in _FORMATS:
            raise ValueError(f"fileFormat must be {' or '.join(_FORMATS)}, not {file_format!r}")
        return Prepared(path.parent, description, file_format, sizes)
    except Exception as error:  # whatever a file of any content makes of the lines above
        message = first_line(error)
        raise UserError(
            f"{path} is not a readable tfds dataset_info.json: {message}; {REMEDY}"
        ) from None
