"""Folders that lie beside the package in a clone and inside of it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Where the folder `name`, 'configs' or 'scripts', is here."""
    inside = _PACKAGE / name  # as setup.py puts it there
    return inside if inside.is_dir() else _PACKAGE.parent / name
