"""What a run was made with: versions, devices, settings, commit."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from lpw_jax.devices import jax_settings

NAME = "environment.json"
_PACKAGES = (
    "lpw_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn",
    "tensorflow-datasets", "array_record", "tensorflow", "tensorflow-cpu", "pillow",
)  # fmt: skip
_NO_RESULT = ("arguments", "resumed")  # change none


def environment() -> dict[str, Any]:
    """Versions, devices, settings and commit, in JSON's types."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "packages": versions,
        "backend": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "num_devices": len(devices),
        "settings": jax_settings.recorded(),
        "commit": _commit(),
        "arguments": sys.argv[1:],
    }


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What differs between two environments and could change results, a phrase each.

    What one of them does not tell, as of an older version, does not count.
    """
    found = []
    for name in (name for name in here if name in there and name not in _NO_RESULT):
        both = there[name], here[name]
        if not all(isinstance(value, Mapping) for value in both):
            both, prefix = ({name: both[0]}, {name: both[1]}), ""
        else:
            prefix = f"{name}."
        for key in sorted(both[0].keys() | both[1].keys()):
            was, now = (side.get(key) for side in both)
            if was != now:
                found.append(f"{prefix}{key} = {now!r}, not {was!r}")
    return found


def _commit() -> str | None:
    """The package's git commit, '+' behind it if the sources differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments):
        result = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
        return result.stdout.strip() if result.returncode == 0 else None

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "lpw_jax")
    except OSError:  # no git on this machine
        return None
    return commit and commit + ("+" if changes else "")
