"""Downloading a dataset with tensorflow-datasets into a local or remote folder."""

import contextlib
import tempfile
import textwrap

from etils import epath

from lpw_jax.data.tfds_prepared import Prepared, find_prepared, root
from lpw_jax.data.tfds_source import import_tensorflow
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import storage


def prepare(name: str, *, data_dir: str, url: str) -> Prepared:
    """Downloads and prepares `name` as array_record with tfds' progress bar (needs TensorFlow).

    `url` is probed first: without a network tfds itself would retry for many minutes. For a
    remote `data_dir` that is done in a temporary local folder, which is then copied.

    Raises:
      UserError: nothing could be downloaded or written; says what to do instead.
    """
    folder = root(data_dir)
    try:
        import requests

        requests.head(url, timeout=10, allow_redirects=True).raise_for_status()
        import_tensorflow()
        with contextlib.ExitStack() as stack:
            local = folder
            if storage.is_remote(folder):
                local = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _download_and_prepare(name, local)
            if local != folder:
                _upload(find_prepared(name, str(local)).folder, folder / name)
    except Exception as error:  # tfds, requests and TensorFlow share no base class
        command = (
            "import tensorflow_datasets as tfds; "
            f"tfds.builder('{name}', data_dir='tfds', file_format='array_record')"
            ".download_and_prepare()"
        )
        reason = textwrap.shorten(first_line(error), 80, placeholder=" ...")
        where = f"is not in {folder}" if folder.exists() else f"is not there, nor is {folder},"
        raise UserError(
            f"data.dir: {name} {where} and could not be downloaded "
            f"({type(error).__name__}: {reason}). "
            "On a machine with a network run\n"
            f'  python -c "{command}"\n'
            f"and copy the folder tfds/{name} to {_place(folder, name)}, or point data.dir at a "
            "tensorflow-datasets folder that holds it."
        ) from None
    prepared = find_prepared(name, data_dir)
    if prepared is None:
        raise UserError(f"{folder / name} holds no complete dataset: remove it and try again")
    return prepared


def _place(folder: epath.Path, name: str) -> epath.Path:
    """Where the set belongs: `folder`, if that is named after it, or a folder in it."""
    parts = tuple(name.split("/"))
    return folder if folder.parts[-len(parts) :] == parts else folder / name


def _download_and_prepare(name: str, folder: epath.Path) -> None:
    import tensorflow_datasets as tfds

    tfds.builder(name, data_dir=folder, file_format="array_record").download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _upload(version: epath.Path, folder: epath.Path) -> None:
    """Copies a prepared version into `folder`, last what makes `find_prepared` see it."""
    target = folder / version.name
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(version.iterdir(), key=lambda path: path.name == "dataset_info.json")
    storage.copy(files, target)
