"""Out-of-distribution test sets of the CIFAR experiments: LSUN, TIN, SVHN and the other CIFAR.

`find_ood_sets` is cheap and runs before training; the loaders it returns read the images.
Nothing but the other CIFAR is ever downloaded here, and only if asked for.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable

import numpy as np
from etils import epath

from lpw_jax import registry
from lpw_jax.data import cifar, folders, tfds_prepare, tfds_prepared, tfds_source
from lpw_jax.data.archive import check_archive, read_archive
from lpw_jax.data.images import MAX_ENCODED, decode_image
from lpw_jax.data.nearby import nearby
from lpw_jax.errors import UserError
from lpw_jax.files import storage

OOD_SETS = ("LSUN", "TIN", "SVHN", "CIFAR")
OFFICIAL_SIZES = {"LSUN": 10_000, "TIN": 10_000, "SVHN": 26_032, "CIFAR": 10_000}
_ARCHIVES = {"LSUN": "LSUN_resize", "TIN": "Imagenet_resize"}
_ENDINGS = (".tar.gz", ".tgz", ".tar")  # of archives that are read
_MAT = "test_32x32.mat"
_REMEDY = "fetch it again, or remove it to go without this set"
_MAX_MAT_BYTES = 1 << 30  # of its images; SVHN's test set takes 80 MB

Loader = Callable[[], np.ndarray]
Tell = Callable[[str], object]


class _Missing(Exception):
    """A set is not there; says what to put where."""


def find_ood_sets(
    dataset_name: str,
    *,
    data_dir: str,
    ood_dir: str,
    download: bool = False,
    tell: Tell = lambda message: None,
) -> tuple[dict[str, Loader], dict[str, str]]:
    """Finds the sets for `dataset_name`; none are defined for a dataset that is not a CIFAR.

    Args:
      dataset_name: the in-distribution dataset.
      data_dir: a tensorflow-datasets folder ('' for tfds' default): the other CIFAR, and SVHN.
      ood_dir: a folder with LSUN_resize.tar.gz, Imagenet_resize.tar.gz (or the folders that
        they unpack to, slow to read if remote) and perhaps test_32x32.mat, or one near it, as for
        `nearby`; may be ''.
      download: whether tfds may download the other CIFAR if it is not prepared.
      tell: is told in one line each what was left out of a folder or archive as no image.

    Returns:
      The loaders of the sets that are there, each returning uint8 [N, 32, 32, 3] (UserError
      naming the file if it is damaged), and for each other set one line: what to put where.
      Both in the order of `OOD_SETS`.

    Raises:
      UserError: `ood_dir` is no folder, or what is there is seen to be damaged or of no use.
    """
    if ood_dir:
        place = nearby(storage.path(ood_dir), _known, field="data.ood_dir")
        with storage.reading(ood_dir):
            if not place.is_dir():
                raise UserError(f"data.ood_dir = {ood_dir!r}: must be a folder, or '' for none")
        ood_dir = str(place)
    other = registry.data(dataset_name).ood
    if not other:
        return {}, {}
    finders = {
        "LSUN": functools.partial(_find_archive, _ARCHIVES["LSUN"], ood_dir, tell),
        "TIN": functools.partial(_find_archive, _ARCHIVES["TIN"], ood_dir, tell),
        "SVHN": functools.partial(_find_svhn, data_dir, ood_dir),
        "CIFAR": functools.partial(_find_cifar, other, data_dir, download),
    }
    found, missing = {}, {}
    for name in OOD_SETS:
        try:
            found[name] = finders[name]()
        except _Missing as error:
            missing[name] = str(error)
    return found, missing


def digest(images: np.ndarray) -> str:
    """Says which images [N, H, W, C] these are: 16 hex digits of their SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()[:16]


def ood_note(sizes: dict[str, int]) -> str:
    """Names the sets whose number of images is not the official one; '' if all are."""
    return "; ".join(
        f"{name}: {size:,} of {OFFICIAL_SIZES[name]:,} images"
        for name, size in sizes.items()
        if size != OFFICIAL_SIZES[name]
    )


def _known(folder: epath.Path) -> list[str]:
    """The names in a folder that are those of sets."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.name != folder.name]  # unpacked twice
    return [name for name in names if name == _MAT or name.split(".")[0] in _ARCHIVES.values()]


def _find_archive(name: str, ood_dir: str, tell: Tell) -> Loader:
    advice = f"put {name}.tar.gz, or the folder {name} of its images, into {_ood_folder(ood_dir)}"
    if not ood_dir:
        raise _Missing(advice)
    place, unusable = storage.path(ood_dir), ""
    with storage.reading(place):
        there = sorted(path.name for path in place.iterdir() if path.name.split(".")[0] == name)
    if name in there:
        folder, left_out = place / name, folders.LeftOut()
        storage.has_folder(folder, what="a folder of images")
        if images := folders.images(folder, left_out):
            return functools.partial(_read_folder, folder, images, left_out, tell)
        unusable = f"{folder} is there, but holds {left_out or 'nothing'} and no images"
    for archive in (place / f"{name}{ending}" for ending in _ENDINGS):
        if archive.name in there and storage.has_file(archive, what="a tar.gz archive"):
            check_archive(archive, remedy=_REMEDY)
            return functools.partial(read_archive, archive, remedy=_REMEDY, tell=tell)
    if others := [other for other in there if other != name]:
        unusable = (
            f"{place / others[0]} is there, but only {', '.join(_ENDINGS)} are read: unpack it"
        )
    if unusable:
        raise UserError(f"{unusable}; {advice}, or remove it to go without this set")
    raise _Missing(advice)


def _find_svhn(data_dir: str, ood_dir: str) -> Loader:
    prepared = tfds_prepared.find_prepared("svhn_cropped", data_dir)
    if prepared:
        _check_has_test(prepared)
        return lambda: tfds_source.read_split(prepared, "test")[0]
    advice = (
        f"put {_MAT} into {_ood_folder(ood_dir)}, or svhn_cropped prepared by "
        f"tensorflow-datasets into data.dir ({tfds_prepared.root(data_dir)})"
    )
    if not ood_dir:
        raise _Missing(advice)
    path = storage.path(ood_dir) / _MAT
    if not storage.has_file(path, what="a .mat file"):
        raise _Missing(advice)
    import scipy.io

    with storage.reading(path, _REMEDY), path.open("rb") as file:
        shapes = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(file)}
    _check_mat(path, *shapes.get("X", ((), "nothing")))
    return functools.partial(_read_mat, path)


def _find_cifar(name: str, data_dir: str, download: bool) -> Loader:
    prepared = tfds_prepared.find_prepared(name, data_dir)
    if not prepared and download:
        with contextlib.suppress(UserError):  # without a network it is missing, and said to be
            prepared = tfds_prepare.prepare(name, data_dir=data_dir, url=registry.DATA[name].url)
    if not prepared:
        raise _Missing(
            f"put {name}, prepared by tensorflow-datasets, into data.dir "
            f"({tfds_prepared.root(data_dir)}), e.g. with `tfds build {name} --data_dir DIR "
            "--file_format array_record` on a machine with a network"
        )
    _check_has_test(prepared)
    return lambda: cifar.read_split(name, prepared, "test")[0]


def _check_has_test(prepared: tfds_prepared.Prepared) -> None:
    if not prepared.split_sizes.get("test"):
        raise UserError(
            f"{prepared.folder} is there, but its split 'test' holds no images; "
            f"{tfds_prepared.REMEDY}, or remove it to go without this set"
        )


def _ood_folder(ood_dir: str) -> str:
    return f"data.ood_dir ({ood_dir or 'not set'})"


def _read_folder(
    folder: epath.Path, paths: list[epath.Path], left_out: folders.LeftOut, tell: Tell
) -> np.ndarray:
    left_out.tell(folder, tell)
    return np.stack(
        [
            decode_image(folders.read(path, _REMEDY, max_bytes=MAX_ENCODED), str(path), _REMEDY)
            for path in paths
        ]
    )


def _read_mat(path: epath.Path) -> np.ndarray:
    import scipy.io

    with storage.reading(path, _REMEDY), path.open("rb") as file:
        images = scipy.io.loadmat(file, variable_names=["X"])["X"]
    _check_mat(path, images.shape, str(images.dtype))
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2))


def _check_mat(path: epath.Path, shape: tuple[int, ...], kind: str) -> None:
    """Nothing but plain numbers of the right shape is read, and no more than fits in memory."""
    fits = len(shape) == 4 and tuple(shape[:3]) == (32, 32, 3) and shape[3] > 0
    if not fits or kind != "uint8":
        raise UserError(
            f"{path}: X must be uint8 [32, 32, 3, N], found {kind} {list(shape)}; {_REMEDY}"
        )
    if shape[3] * 32 * 32 * 3 > _MAX_MAT_BYTES:
        raise UserError(f"{path}: X must be at most 1 GiB, found {shape[3]:,} images; {_REMEDY}")
