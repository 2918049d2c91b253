"""A folder that was named one or two levels too deep, or one too shallow."""

import os
from collections.abc import Callable, Collection

from etils import epath

from lpw_jax.data.folders import is_hidden
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_UP = 2  # levels


def nearby(
    place: epath.Path, known: Callable[[epath.Path], Collection[str]], *, field: str
) -> epath.Path:
    """`place`, or that folder near it that was meant.

    Args:
      place: what the user named; perhaps a file.
      known: the names of those parts of a folder that tell it for the right one, empty if it is
        not.
      field: what messages call `place`.

    Returns:
      `place` if it is right; else the folder around it of which it is (in) a known part; else the
      only right one in it; else `place`.

    Raises:
      UserError: several folders in `place` are right.
    """

    def seen(folder):
        try:
            return known(folder) if folder.is_dir() else ()
        except Exception:  # what cannot be read was not meant
            return ()

    with storage.reading(place):
        if not place.exists():
            return place
        is_folder = place.is_dir()
        if is_folder and known(place):
            return place
        part = place if storage.is_remote(place) else epath.Path(os.path.abspath(place))
        for around in list(part.parents)[: _UP + 1]:
            if part.name in seen(around):
                return around
            part = around
        inside = [path for path in place.iterdir() if not is_hidden(path.name)] if is_folder else []
        right = sorted(path.name for path in inside if seen(path))
    if len(right) > 1:
        raise UserError(
            f"{field} = {str(place)!r}: must be one of its folders {', '.join(right)}, which all "
            "hold what is looked for"
        )
    return place / right[0] if right else place
