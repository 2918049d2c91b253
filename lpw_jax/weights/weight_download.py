"""Fetches the weights that torchvision publishes, once."""

import hashlib

import requests
from etils import epath
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lpw_jax.display import console
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import storage
from lpw_jax.weights import weight_files
from lpw_jax.weights.pretrained import PUBLISHED

URL = "https://download.pytorch.org/models"
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte
_CHUNK = 1 << 20


def fetch(model_name: str, *, url: str = URL, folder: epath.PathLike | None = None) -> epath.Path:
    """torchvision's original ImageNet weights of a network, from `folder` or else from `url`.

    A file that is there is used if its SHA-256 begins as its name says, else fetched again.

    Args:
      model_name: a key of `PUBLISHED`.
      url: folder on a server that has torchvision's files.
      folder: where they are kept; by default `~/.cache/lpw_jax/weights`
        (`$XDG_CACHE_HOME/lpw_jax/weights`).

    Raises:
      UserError: it cannot be fetched or kept, or what the server sends is another file.
    """
    published = PUBLISHED[model_name]
    target = storage.path(folder or storage.cache_folder("weights")) / published.file
    source = f"{url.rstrip('/')}/{published.file}"
    if storage.has_file(target, what=f"the file {source}"):
        with storage.reading(target), target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest.startswith(published.sha256_start):
            return target
        console.warn(f"{target} is damaged; it is fetched again")
    with weight_files.replacing(target) as temporary:
        try:
            digest = _download(source, temporary)
        except requests.RequestException as error:
            raise UserError(
                f"{source} cannot be fetched: {first_line(error)}; on a machine with a "
                "network get that file, copy it here, and give it as --weights FILE"
            ) from error
        if not digest.startswith(published.sha256_start):
            raise UserError(
                f"{source}: must have a SHA-256 that begins with {published.sha256_start}, but "
                f"what was fetched has {digest}; try again, or get the file elsewhere and give it "
                "as --weights FILE"
            )
    return target


def _download(source: str, target: epath.Path) -> str:
    """Writes what `source` sends, with a bar if on a terminal; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        requests.get(source, stream=True, timeout=_TIMEOUT) as reply,
        target.open("wb") as file,
        Progress(
            TextColumn("{task.description}"),
            *columns,
            console=console.terminal,
            disable=not console.terminal.is_terminal,
        ) as progress,
    ):
        reply.raise_for_status()
        size = int(reply.headers.get("Content-Length", 0)) or None
        console.say(f"fetching {source}" + (f", {size / 1e6:.0f} MB" if size else ""))
        task = progress.add_task(target.name.partition(".")[0], total=size)
        for chunk in reply.iter_content(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            progress.update(task, advance=len(chunk))
    return digest.hexdigest()
