"""Preparing ImageNet (ILSVRC 2012) with tensorflow-datasets out of its published archives."""

import contextlib
import dataclasses
import io
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from etils import epath

from lpw_jax import registry
from lpw_jax.data import imagenet_tars, tfds_folder
from lpw_jax.data.imagenet_tars import FILES, Tars
from lpw_jax.data.nearby import nearby
from lpw_jax.data.tfds_prepared import Prepared, find_prepared, root
from lpw_jax.data.tfds_source import import_tensorflow
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import storage

NAME = next(name for name, known in registry.DATA.items() if known.archives)
OFFICIAL_SIZES = {"train": 1_281_167, "validation": 50_000}


def find_or_prepare(
    data_dir: str, manual_dir: str, *, splits: Collection[str] = ("validation",)
) -> Prepared:
    """ImageNet as array_record in `data_dir`, prepared from `manual_dir` if it is not there.

    Args:
      data_dir: a tensorflow-datasets folder; '' means tfds' default.
      manual_dir: the folder of the archives; '' means <data_dir>/downloads/manual, as for tfds.
      splits: those that are needed, of `OFFICIAL_SIZES`; preparing always needs 'validation'.

    Raises:
      UserError: it is there as tfrecord or without one of `splits`, or as `prepare`.
    """
    tfds_folder.check_local(root(data_dir), field="data.dir")
    prepared = find_prepared(NAME, data_dir)
    if prepared is None:
        _find_tars(data_dir, manual_dir, splits)
        return prepare(data_dir, manual_dir)
    if prepared.file_format != "array_record":
        folder = prepared.folder.parent.parent
        command = (
            f"python -m lpw_jax.data convert {NAME} --data_dir {shlex.quote(str(folder))} "
            "--output_dir NEW"
        )
        raise UserError(
            f"{prepared.folder} is {prepared.file_format}, but ImageNet is read at random and "
            f"must be array_record. Convert it once with\n  {command}\nand set data.dir to NEW."
        )
    for split in splits:
        if not prepared.split_sizes.get(split):
            raise UserError(
                f"{prepared.folder} holds no {split} images: it was prepared without "
                f"{FILES[split]}; put that beside {FILES['validation']} in data.manual_dir, remove "
                "this folder and prepare it again"
            )
    return prepared


def prepare(data_dir: str, manual_dir: str) -> Prepared:
    """Writes <data_dir>/imagenet2012/<version> as tfds does, as array_record (needs TensorFlow).

    The splits are those whose archives are in `manual_dir`. Validation images get the label of
    the number in their name, wherever they are in the archive. What is there under its final
    name is whole; what an interrupted call left is removed by the next one.

    Raises:
      UserError: before anything is written, for folders in a bucket, archives that `check` of
        `imagenet_tars` does not accept, or too little room; afterwards, if writing fails.
    """
    folder = root(data_dir) / NAME
    tfds_folder.check_local(root(data_dir), field="data.dir")
    tars = _find_tars(data_dir, manual_dir)
    try:
        import_tensorflow()
    except ImportError as error:
        raise UserError(f"{NAME}: {error}") from None
    with tfds_folder.reserved(folder, num_bytes=tars.num_bytes):
        counts = _check(tars)
        try:
            _write(folder.parent, tars, counts)
        except Exception as error:  # tfds, array_record and TensorFlow share no base class
            raise UserError(
                f"{NAME} could not be written to {folder} ({type(error).__name__}: "
                f"{first_line(error)})"
            ) from error
    prepared = find_prepared(NAME, data_dir)
    if prepared is None or prepared.split_sizes != counts:
        raise UserError(f"{folder} does not hold what was written: remove it and try again")
    return prepared


def unofficial(split_sizes: Mapping[str, int]) -> str:
    """Numbers of images that are not ImageNet's, beside those that are; '' for ImageNet's own.

    A split that is absent, or empty, is not counted: validation alone is enough to evaluate.
    """
    return " and ".join(
        f"{split_sizes[split]:,} {split} images, officially {official:,}"
        for split, official in OFFICIAL_SIZES.items()
        if split_sizes.get(split, 0) not in (0, official)
    )


def _find_tars(data_dir: str, manual_dir: str, splits: Collection[str] = ()) -> Tars:
    manual = storage.path(manual_dir) if manual_dir else root(data_dir) / "downloads" / "manual"
    if not manual_dir and not manual.exists() and imagenet_tars.known(root(data_dir)):
        manual = root(data_dir)
    tfds_folder.check_local(manual, field="data.manual_dir")
    manual = nearby(manual, imagenet_tars.known, field="data.manual_dir")
    try:
        tars = imagenet_tars.find(manual)
    except UserError as error:
        where = f"{root(data_dir)} holds no prepared {NAME}"
        raise UserError(f"{where}, nor is there what it is prepared from: {error}") from None
    for split in splits:
        if split not in tars.paths:
            raise UserError(
                f"data.manual_dir = {str(manual)!r}: holds no {FILES[split]}, which training needs"
            )
    return tars


def _check(tars: Tars) -> dict[str, int]:
    from tqdm import tqdm

    synsets, validation = _labels()
    with tqdm(
        total=tars.num_bytes, desc="Checking archives", unit="B", unit_scale=True, delay=1
    ) as bar:
        return imagenet_tars.check(
            tars, synsets=synsets, num_validation=len(validation), progress=bar.update
        )


def _labels() -> tuple[list[str], list[str]]:
    """The 1000 classes, and those of validation images 1 to 50,000, as tfds lists them."""
    import tensorflow_datasets as tfds

    lists = epath.Path(tfds.core.tfds_path("datasets/imagenet2012"))
    files = (lists / "labels.txt", lists / "validation_labels.txt")
    return tuple(file.read_text().split() for file in files)


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Examples that know their number, for the progress bar."""

    num: int
    examples: Iterator[Any]

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[Any]:
        return self.examples


def _write(data_dir: epath.Path, tars: Tars, counts: dict[str, int]) -> None:
    import tensorflow_datasets as tfds

    # tfds itself would label by the position among the names that happen to be in the archive.
    validation = {
        f"ILSVRC2012_val_{number:08d}.JPEG": synset for number, synset in enumerate(_labels()[1], 1)
    }
    labels = {"train": None, "validation": validation}

    class Imagenet2012(tfds.builder_cls(NAME), skip_registration=True):
        def _split_generators(self, dl_manager):
            return {
                split: _Examples(
                    counts[split],
                    self._generate_examples(
                        dl_manager.iter_archive(path), validation_labels=labels[split]
                    ),
                )
                for split, path in tars.paths.items()
            }

    builder = Imagenet2012(data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):  # tfds announces "Unknown size"
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
