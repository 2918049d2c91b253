"""The folder of a run: what is in it, and how it is written."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from lpw_jax import checkpoint
from lpw_jax.errors import UserError

_PACKAGES = (
    "lpw_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn",
    "tensorflow-datasets", "array_record", "tensorflow", "tensorflow-cpu",
)  # fmt: skip
# What a run writes, besides config.json.
_OUTPUTS = ("environment.json", "metrics.jsonl", "weights", "predictions", "results.json")


class Workdir:
    """Files of one run under `path`.

    config.json, environment.json, metrics.jsonl (one line an epoch), weights/ (`shared`,
    `late_phase` and `batch_stats` as trained), predictions/*.npz, results.json.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Contents of a JSON file, None if there is none.

        Raises:
          UserError: the file does not hold a JSON object.
        """
        file = self.path / name
        if not file.exists():
            return None
        try:
            value = json.loads(file.read_text())
        except ValueError as error:
            raise UserError(f"{file}: must be JSON as a run writes it; {error}") from error
        if not isinstance(value, dict):
            raise UserError(f"{file}: must be JSON as a run writes it; found {value!r}")
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file; a reader sees the old one or the whole new one."""
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
        self._replace(name, lambda temporary: temporary.write_text(text))

    def start(self, config: dict[str, Any]) -> bool:
        """Makes the folder, writes what identifies the run, and removes an earlier attempt's files.

        Returns:
          Whether there was an earlier attempt.

        Raises:
          UserError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            earlier = (self.path / "config.json").exists()
            for name in _OUTPUTS:
                _remove(self.path / name)
            self.write_json("config.json", config)
            self.write_json("environment.json", environment())
            (self.path / "metrics.jsonl").write_text("")
            return earlier
        except OSError as error:
            raise UserError(f"--workdir = {str(self.path)!r}: must be writable; {error}") from error

    def check_free(self) -> None:
        """Refuses a folder that holds something else than a run.

        Raises:
          UserError: it is not empty and has no config.json.
        """
        if self.path.exists() and not (self.path / "config.json").exists():
            others = sorted(path.name for path in self.path.iterdir())
            if others:
                raise UserError(
                    f"--workdir = {str(self.path)!r}: must be new, empty or a run's folder, but "
                    f"holds {', '.join(others[:5])} and no config.json"
                )

    def read_results(self) -> dict[str, Any] | None:
        """Contents of results.json, None if training has not ended.

        Raises:
          UserError: the file is not as a run writes it.
        """
        results = self.read_json("results.json")
        if results is not None and not {"status", "data", "train"} <= results.keys():
            raise UserError(
                f"{self.path / 'results.json'}: must be JSON as a run writes it, with status, data "
                f"and train; found {', '.join(results) or 'nothing'}"
            )
        return results

    def read_trained(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Contents of config.json and results.json of a run whose training has ended.

        Raises:
          UserError: there is no such run in the folder.
        """
        config, results = self.read_json("config.json"), self.read_results()
        if config is None or results is None:
            raise UserError(
                f"--workdir = {str(self.path)!r}: must hold a finished training; see lpw_jax.main"
            )
        return config, results

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds an epoch's line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def save_weights(self, weights: dict[str, Any]) -> None:
        """Saves the final `shared`, `late_phase` and `batch_stats`."""
        checkpoint.save_weights(self.path / "weights", weights)

    def load_weights(self) -> dict[str, Any]:
        """The final weights as numpy arrays.

        Raises:
          UserError: there are none, because training has not finished.
        """
        if not (self.path / "weights").exists():
            raise UserError(
                f"--workdir = {str(self.path)!r}: must hold the final weights of a finished "
                "training, but there is no folder 'weights' in it"
            )
        return checkpoint.load_weights(self.path / "weights")

    def clear_predictions(self) -> None:
        """Removes predictions of an earlier evaluation, whose sets may have been others."""
        _remove(self.path / "predictions")

    def save_predictions(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes predictions/NAME.npz."""
        (self.path / "predictions").mkdir(parents=True, exist_ok=True)

        def write(temporary):
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        self._replace(f"predictions/{name}.npz", write)

    def _replace(self, name: str, write: Callable[[epath.Path], Any]) -> None:
        target = self.path / name
        temporary = target.with_name(target.name + ".partial")
        write(temporary)
        temporary.replace(target)


def environment() -> dict[str, Any]:
    """Versions, devices and commit that a run was made with."""
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
        "commit": _commit(),
        "arguments": sys.argv[1:],
    }


def _commit() -> str | None:
    """The package's git commit, '+' behind it if the sources differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
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


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink(missing_ok=True)
