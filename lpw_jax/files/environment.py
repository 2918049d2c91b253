"""environment.json: what a session of a run ran on."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax

from lpw_jax.files.described import described, optional
from lpw_jax.files.measured import Count

_PACKAGES = (
    "lpw_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn",
    "tensorflow-datasets", "array_record", "tensorflow", "tensorflow-cpu",
)  # fmt: skip


@described
class Environment:
    """environment.json: what a session ran on; null is what is not known.

    Attributes:
      python, platform, packages: versions and machine.
      backend, device_kind, num_devices: of JAX.
      commit: of the sources, '+' behind it if they differ from it.
      arguments: of the command line.
      resumed: the same of later sessions; only of the first one.
    """

    python: str | None = None
    platform: str | None = None
    packages: dict[str, str | None] = dataclasses.field(default_factory=dict)
    backend: str | None = None
    device_kind: str | None = None
    num_devices: Count | None = None
    commit: str | None = None
    arguments: list[str] | None = None
    resumed: list["Environment"] | None = optional()


def environment() -> Environment:
    """That of this process."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    devices = jax.devices()
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        packages=versions,
        backend=devices[0].platform,
        device_kind=devices[0].device_kind,
        num_devices=len(devices),
        commit=_commit(),
        arguments=sys.argv[1:],
    )


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
