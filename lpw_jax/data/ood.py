"""Out-of-distribution test sets of the CIFAR experiments: LSUN, TIN, SVHN and the other CIFAR.

`find_ood_sets` is cheap and runs before training; the loaders it returns read the images.
Nothing but the other CIFAR is ever downloaded here, and only if asked for.
"""

import contextlib
import functools
import pathlib
import tarfile
from collections.abc import Callable, Iterator

import numpy as np

from lpw_jax.data import cifar, tfds_source
from lpw_jax.errors import UserError

OOD_SETS = ("LSUN", "TIN", "SVHN", "CIFAR")
OFFICIAL_SIZES = {"LSUN": 10_000, "TIN": 10_000, "SVHN": 26_032, "CIFAR": 10_000}
_ARCHIVES = {"LSUN": "LSUN_resize", "TIN": "Imagenet_resize"}
_OTHER_CIFAR = {"cifar10": "cifar100", "cifar100": "cifar10"}
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Loader = Callable[[], np.ndarray]


def find_ood_sets(
    dataset_name: str, *, data_dir: str, ood_dir: str, download: bool = False
) -> tuple[dict[str, Loader], dict[str, str]]:
    """Finds the sets for `dataset_name`; none are defined for a dataset that is not a CIFAR.

    Args:
      dataset_name: the in-distribution dataset.
      data_dir: a tensorflow-datasets folder ('' for tfds' default): the other CIFAR, and SVHN.
      download: whether tfds may download the other CIFAR if it is not prepared.
      ood_dir: a folder with LSUN_resize.tar.gz, Imagenet_resize.tar.gz (or the folders that
        they unpack to) and perhaps test_32x32.mat; may be ''.

    Returns:
      The loaders of the sets that are there, each returning uint8 [N, 32, 32, 3] (UserError
      naming the file if it is damaged), and for each other set one line: what to put where.
      Both in the order of `OOD_SETS`.
    """
    if dataset_name not in _OTHER_CIFAR:
        return {}, {}
    finders = {
        "LSUN": functools.partial(_find_archive, _ARCHIVES["LSUN"], ood_dir),
        "TIN": functools.partial(_find_archive, _ARCHIVES["TIN"], ood_dir),
        "SVHN": functools.partial(_find_svhn, data_dir, ood_dir),
        "CIFAR": functools.partial(_find_cifar, _OTHER_CIFAR[dataset_name], data_dir, download),
    }
    found, missing = {}, {}
    for name in OOD_SETS:
        try:
            found[name] = finders[name]()
        except UserError as error:
            missing[name] = str(error)
    return found, missing


def ood_note(sizes: dict[str, int]) -> str:
    """Names the sets whose number of images is not the official one; '' if all are."""
    return "; ".join(
        f"{name}: {size:,} of {OFFICIAL_SIZES[name]:,} images"
        for name, size in sizes.items()
        if size != OFFICIAL_SIZES[name]
    )


def _find_archive(name: str, ood_dir: str) -> Loader:
    advice = f"put {name}.tar.gz, or the folder {name} of its images, into {_ood_folder(ood_dir)}"
    if not ood_dir:
        raise UserError(advice)
    folder = pathlib.Path(ood_dir).expanduser() / name
    archive = folder.with_name(f"{name}.tar.gz")
    if next(_image_paths(folder), None):
        return functools.partial(_read_folder, folder)
    if not archive.is_file():
        raise UserError(advice)
    try:
        with tarfile.open(archive) as tar:
            tar.next()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive} is not a readable tar.gz archive ({error}); {advice}") from None
    return functools.partial(_read_archive, archive)


def _find_svhn(data_dir: str, ood_dir: str) -> Loader:
    prepared = tfds_source.find_prepared("svhn_cropped", data_dir)
    if prepared and prepared.split_sizes.get("test"):
        return lambda: tfds_source.read_split(prepared, "test")[0]
    advice = (
        f"put test_32x32.mat into {_ood_folder(ood_dir)}, or svhn_cropped prepared by "
        f"tensorflow-datasets into data.dir ({tfds_source.root(data_dir)})"
    )
    path = pathlib.Path(ood_dir).expanduser() / "test_32x32.mat"
    if not ood_dir or not path.is_file():
        raise UserError(advice)
    import scipy.io

    try:
        shapes = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
    except Exception as error:  # scipy's readers raise nearly anything on a damaged file
        raise UserError(f"{path} is not a readable .mat file ({error}); {advice}") from None
    shape, kind = shapes.get("X", ((), "nothing"))
    if len(shape) != 4 or shape[:3] != (32, 32, 3) or not shape[3] or kind != "uint8":
        raise UserError(
            f"{path}: X must be uint8 [32, 32, 3, N], found {kind} {list(shape)}; {advice}"
        )
    return functools.partial(_read_mat, path)


def _find_cifar(name: str, data_dir: str, download: bool) -> Loader:
    prepared = tfds_source.find_prepared(name, data_dir)
    if not prepared and download:
        with contextlib.suppress(UserError):  # without a network it is missing, and said to be
            prepared = tfds_source.prepare(name, data_dir=data_dir, url=cifar.SPECS[name].url)
    if not prepared or not prepared.split_sizes.get("test"):
        raise UserError(
            f"put {name}, prepared by tensorflow-datasets, into data.dir "
            f"({tfds_source.root(data_dir)}), e.g. with `tfds build {name} --data_dir DIR "
            "--file_format array_record` on a machine with a network"
        )
    return lambda: cifar.read_split(name, prepared, "test")[0]


def _ood_folder(ood_dir: str) -> str:
    return f"data.ood_dir ({ood_dir or 'not set'})"


def _is_image(path: pathlib.PurePath) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")


def _image_paths(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (p for p in folder.rglob("*") if _is_image(p) and p.is_file() and not p.is_symlink())


def _read_folder(folder: pathlib.Path) -> np.ndarray:
    paths = sorted(_image_paths(folder), key=lambda p: p.relative_to(folder).as_posix())
    return np.stack([tfds_source.decode_image(p.read_bytes(), str(p)) for p in paths])


def _read_archive(archive: pathlib.Path) -> np.ndarray:
    # Decoded as the stream passes: members are regular files only, and nothing is unpacked.
    images = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg() and _is_image(pathlib.PurePosixPath(member.name)):
                    where = f"{archive}, member {member.name}"
                    encoded = tar.extractfile(member).read()
                    images[member.name] = tfds_source.decode_image(encoded, where)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive} is damaged: {error}") from None
    if not images:
        raise UserError(f"{archive} holds no PNG images")
    return np.stack([images[name] for name in sorted(images)])


def _read_mat(path: pathlib.Path) -> np.ndarray:
    import scipy.io

    try:
        images = scipy.io.loadmat(path, variable_names=["X"])["X"]
    except Exception as error:  # scipy's readers raise nearly anything on a damaged file
        raise UserError(f"{path} is damaged: {error}") from None
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2))
