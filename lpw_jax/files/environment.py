"""environment.json: what a session of a run ran on."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpw_jax.files.described import described, optional, plain
from lpw_jax.files.measured import Count

_PACKAGES = (
    "lpw_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn",
    "tensorflow-datasets", "array_record", "tensorflow", "tensorflow-cpu", "pillow",
)  # fmt: skip
# Those of which another value could change results.
_TELLING = (
    "python", "platform", "packages", "backend", "device_kind", "num_devices", "settings", "commit",
)  # fmt: skip


@described
class Environment:
    """environment.json: what a session ran on; null is what is not known.

    Attributes:
      python, platform, packages: versions and machine.
      backend, device_kind, num_devices: of JAX.
      settings: of JAX and XLA that could change results, by name.
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
    settings: dict[str, Any] | None = optional()
    commit: str | None = None
    arguments: list[str] | None = None
    resumed: list["Environment"] | None = optional()


def environment() -> Environment:
    """That of this process."""
    import jax  # here: who only reads such files waits for no JAX

    from lpw_jax.devices import jax_settings

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
        settings=jax_settings.recorded(),
        commit=_commit(),
        arguments=sys.argv[1:],
    )


def differences(
    there: Environment, here: Environment, fields: Sequence[str] = _TELLING
) -> list[str]:
    """What differs between two environments and could change results, a phrase each.

    What one of them does not tell, as of an older version, does not count.
    """
    found = []
    for field in fields:
        both = [plain(getattr(side, field)) for side in (there, here)]
        if None in both or {} in both:
            continue
        prefix = f"{field}." if isinstance(both[0], dict) else ""
        was, now = both if prefix else [{field: value} for value in both]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                found.append(f"{prefix}{name} = {now.get(name)!r}, not {was.get(name)!r}")
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
