"""The folder of a run: what is in it, and how it is written."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
from etils import epath

from lpw_jax.devices import hosts
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint, limits, lock, storage
from lpw_jax.files import environment as environments
from lpw_jax.measures import bounds
from lpw_jax.weights import soundness

SCHEDULE = "schedule.png"
PROFILE = "profile"
# What a folder may hold that is no run yet: a lock, the picture of a dry run, and traces.
_NO_RUN = (lock.NAME, SCHEDULE, PROFILE)
# Names of logs: shells make them before the program starts, in a new folder, too.
_LOGS = ("*.log", "*.out", "*.err", "log*.txt", "*log.txt")


class Workdir:
    """Files of one run under `path`, which may be local or remote (gs://...).

    config.json, environment.json, metrics.jsonl (one line an epoch), checkpoints/, weights/
    (`shared`, `late_phase` and `batch_stats` as trained), predictions/*.npz, results.json,
    tensorboard/ (`events`) and report.html (`report`).

    Methods that write are collective: of several processes all must call them, the primary one
    writes, and all raise its UserError when the file cannot be written.
    """

    def __init__(self, path: epath.PathLike):
        self.path = storage.path(path)

    @property
    def checkpoints(self) -> epath.Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Makes the folder and keeps other runs out of it; an empty one is removed at the end.

        Raises:
          UserError: the folder cannot be written, or another process uses it.
        """
        with contextlib.ExitStack() as stack:

            def claim():
                with self.writing(self.path):
                    new = not self.path.exists()
                    self.path.mkdir(parents=True, exist_ok=True)
                    if new:
                        stack.callback(self._remove_if_empty)
                    stack.enter_context(lock.held(self.path))

            hosts.on_primary(claim)
            yield

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Contents of a JSON file, None if there is none.

        Raises:
          UserError: the file does not hold a JSON object.
        """
        file = self.path / name
        if not file.exists():
            return None
        try:
            value = limits.read_json(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: must be JSON as a run writes it; {error}") from error
        if not isinstance(value, dict):
            raise UserError(f"{file}: must be JSON as a run writes it; found {value!r}")
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file; numbers that are not finite become null."""
        text = json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"
        self._replace(name, lambda temporary: temporary.write_bytes(storage.utf8(text)))

    def identify(self, config: dict[str, Any]) -> None:
        """Writes config.json, unless an earlier session of the run has."""
        if hosts.on_primary(lambda: self.read_json("config.json")) is None:
            self.write_json("config.json", config)

    def start_session(self) -> list[str]:
        """Writes environment.json: that of the first session, and under `resumed` of later ones.

        Returns what differs from the first session's and could change results, a phrase each.
        """

        def described():
            first, now = self.read_json(environments.NAME), environments.environment()
            if first is None:
                return now, []
            differing = environments.differences(first, now)
            return first | {"resumed": [*first.get("resumed", []), now]}, differing

        found, differing = hosts.on_primary(described)
        self.write_json(environments.NAME, found)
        return differing

    def check_free(self) -> None:
        """Refuses a folder that holds something else than a run.

        Raises:
          UserError: it is not empty and has no config.json.
        """
        if self.path.exists() and not (self.path / "config.json").exists():
            others = sorted(path.name for path in self.path.iterdir() if not _may_be_there(path))
            if others:
                raise UserError(
                    f"--workdir = {str(self.path)!r}: must be new, empty or a run's folder, but "
                    f"holds {', '.join(others[:5])} and no config.json"
                )

    def read_results(self) -> dict[str, Any] | None:
        """Contents of results.json, None if training has not ended.

        Raises:
          UserError: the file is not as a run writes it, or its figures are impossible.
        """
        results = self.read_json("results.json")
        if results is not None:
            status = results.get("status")
            parts = ["data", "train", *(["views"] if status == "complete" else [])]
            is_whole = all(isinstance(results.get(name), dict) for name in parts)
            if status not in ("trained", "complete") or not is_whole:
                raise UserError(
                    f"{self.path / 'results.json'}: must be JSON as a run writes it, with status, "
                    f"data and train; found {', '.join(results) or 'nothing'}"
                )
            bounds.check_results(self.path / "results.json", results)
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

    def write_file(self, name: str, content: bytes) -> None:
        """Writes a file of any kind. The primary process alone calls it."""
        self._replace_here(name, lambda temporary: temporary.write_bytes(content))

    def write_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl, a line for each finished epoch."""
        lines = [json.dumps(_finite(record), allow_nan=False) + "\n" for record in records]
        content = storage.utf8("".join(lines))
        self._replace("metrics.jsonl", lambda temporary: temporary.write_bytes(content))

    def save_weights(self, weights: dict[str, Any]) -> None:
        """Saves the final `shared`, `late_phase` and `batch_stats`, in place of earlier ones."""

        def save():
            with self.writing(self.path):
                killed = self.path.glob("weights.orbax*")  # what an earlier process had begun
                for earlier in (self.path / "weights", *killed):
                    _remove(earlier)
            checkpoint.save_weights(self.path / "weights", weights)

        hosts.on_primary(save)

    def load_weights(self) -> dict[str, Any]:
        """The final weights as numpy arrays.

        Raises:
          UserError: there are none, because training has not finished, or they are damaged, or
            not those of a trained network.
        """
        if not (self.path / "weights").exists():
            raise UserError(
                f"--workdir = {str(self.path)!r}: must hold the final weights of a finished "
                "training, but there is no folder 'weights' in it"
            )
        weights = checkpoint.load_weights(self.path / "weights")
        soundness.check(self.path / "weights", weights)
        return weights

    def clear_predictions(self) -> None:
        """Removes predictions of an earlier evaluation, whose sets may have been others."""

        def clear():
            with self.writing(self.path):
                _remove(self.path / "predictions")

        hosts.on_primary(clear)

    def save_predictions(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes predictions/NAME.npz."""

        def write(temporary):
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        self._replace(f"predictions/{name}.npz", write)

    def _replace(self, name: str, write: Callable[[epath.Path], Any]) -> None:
        hosts.on_primary(lambda: self._replace_here(name, write))

    def _replace_here(self, name: str, write: Callable[[epath.Path], Any]) -> None:
        target = self.path / name
        with self.writing(target):
            if target.parent != self.path:
                target.parent.mkdir(exist_ok=True)
            with storage.replacing(target) as temporary:
                write(temporary)

    @contextlib.contextmanager
    def writing(self, path: epath.Path) -> Iterator[None]:
        """What fails in writing `path` becomes a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) and not storage.is_remote(path):
                raise  # a fault of the program; clients of buckets raise anything
            raise UserError(
                f"--workdir = {str(self.path)!r}: {path} cannot be written, "
                f"{storage.first_line(error)}; make room or mend the access, and run the same "
                "command again"
            ) from error


def _finite(value: Any) -> Any:
    """JSON has no infinities and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _may_be_there(path: epath.Path) -> bool:
    """Whether a file is no sign that the folder is another's than a run's."""
    if path.name in _NO_RUN or path.name.endswith(storage.PARTIAL):
        return True
    if any(fnmatch(path.name, pattern) for pattern in _LOGS):
        return not path.is_dir()
    with contextlib.suppress(OSError):  # what is printed goes there
        return any(os.path.samestat(os.stat(path), os.fstat(number)) for number in (1, 2))
    return False


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink(missing_ok=True)
