"""The folder of a run: what is in it, and how it is written."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax.devices import hosts
from lpw_jax.display import console
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import checkpoint, checksums, described, lock, storage
from lpw_jax.files.environment import differences, environment
from lpw_jax.files.results import Results
from lpw_jax.files.run_files import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, RESULTS, RunFiles

SCHEDULE = "schedule.png"
PROFILE = "profile"
SAMPLE = "sample.txt"
# What a folder may hold that is no run yet: a lock, the picture of a dry run, and traces.
_NO_RUN = (lock.NAME, SCHEDULE, PROFILE)
# Names of logs: shells make them before the program starts, in a new folder, too.
_LOGS = ("*.log", "*.out", "*.err", "log*.txt", "*log.txt")
_INFORMING = (CONFIG, ENVIRONMENT, METRICS, RESULTS)


class Workdir(RunFiles):
    """Files of one run, to be written, too.

    config.json, environment.json, metrics.jsonl (one line an epoch), checkpoints/, weights/
    (`shared`, `late_phase` and `batch_stats` as trained), predictions/*.npz, results.json,
    tensorboard/ (`events`) and report.html (`report`); and checksums.json, of what is read again.
    Of several processes only the primary one writes.

    Methods that write are collective: of several processes all must call them, the primary one
    writes, and all raise its UserError when the file cannot be written.
    """

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Makes the folder and keeps other runs out of it; an empty one is removed at the end.

        Raises:
          UserError: the folder cannot be written, or another process uses it.
        """
        with contextlib.ExitStack() as stack:

            def claim():
                storage.absolute(self.path)
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

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file; numbers that are not finite become null."""
        text = json.dumps(_finite(described.plain(value)), indent=2, allow_nan=False) + "\n"
        self._replace(name, lambda temporary: temporary.write_bytes(storage.utf8(text)))

    def write_results(self, results: Results) -> None:
        """Writes results.json."""
        self.write_json(RESULTS, results)

    def known(self) -> tuple[ConfigDict | None, Results | None]:
        """What the folder tells of the run in it, config and results; None is what it does not.

        Checkpoints tell what the run is, too: where they are, the others may be damaged or missing.

        Raises:
          UserError: it holds something else than a run, or damaged files and no checkpoint.
        """
        has_checkpoints = bool(checkpoint.numbers(self.checkpoints))
        results = self._unless_damaged(self.read_results, may_be=has_checkpoints)
        is_run = has_checkpoints or results is not None
        config = self._unless_damaged(self.read_config, may_be=is_run)
        if config is None and results is not None:
            config = config_lib.from_dict(results.config)
        if config is None and not is_run:
            self._check_unused()
        return config, results

    def _check_unused(self) -> None:
        places = self.path.iterdir() if self.path.exists() else ()
        if others := sorted(place.name for place in places if not _may_be_there(place)):
            raise UserError(
                f"--workdir = {str(self.path)!r}: must be new, empty or a run's folder, but "
                f"holds {', '.join(others[:5])} and no {CONFIG}"
            )

    def _unless_damaged(self, read: Callable, *, may_be: bool) -> Any:
        try:
            return read()
        except UserError:
            if not may_be:
                raise
            return None

    def identify(self, config: ConfigDict) -> None:
        """Writes config.json, unless there is one; a damaged one is renamed."""

        def is_new():
            self._set_damaged_aside((CONFIG,))
            return not (self.path / CONFIG).exists()

        if hosts.on_primary(is_new):
            self.write_json(CONFIG, config_lib.to_dict(config))

    def start_session(self, config: ConfigDict, *, resumed: bool) -> list[str]:
        """Writes config.json as `identify`, and environment.json.

        The latter is that of the first session, and under `resumed` of later ones. What only
        informs and is damaged is renamed, and written again in time.

        Returns what differs from the first session's and could change results, a phrase each.
        """

        def sessions():
            self._set_damaged_aside(_INFORMING, resumed=resumed)
            first, now = self.read_environment(), environment()
            if first is None:
                return now, []
            later = [*(first.resumed or []), now]
            return dataclasses.replace(first, resumed=later), differences(first, now)

        found, differing = hosts.on_primary(sessions)
        self.identify(config)
        self.write_json(ENVIRONMENT, found)
        return differing

    def _set_damaged_aside(self, names: Sequence[str], *, resumed: bool = False) -> None:
        told = []
        for name in names:
            file = self.path / name
            if resumed and name != RESULTS and not file.exists():
                told.append(f"{file} is missing")
            try:
                self.read(name)
            except UserError as error:
                with self.writing(file):
                    told.append(f"{error}; renamed {storage.set_aside(file).name}")
        if told:
            console.warn(f"{'; '.join(told)}. The run continues, and writes these files again")

    def write_file(self, name: str, content: bytes) -> None:
        """Writes a file of any kind. The primary process alone calls it."""
        self._replace_here(name, lambda temporary: temporary.write_bytes(content), is_read=False)

    def write_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl, a line for each finished epoch."""
        lines = [json.dumps(_finite(record), allow_nan=False) + "\n" for record in records]
        content = storage.utf8("".join(lines))
        self._replace(METRICS, lambda temporary: temporary.write_bytes(content))

    def save_weights(self, weights: dict[str, Any]) -> None:
        """Saves the final `shared`, `late_phase` and `batch_stats`, in place of earlier ones."""

        def save():
            with self.writing(self.path):
                self._checksums.add("weights", checkpoint.checksum(weights))
                killed = self.path.glob("weights.orbax*")  # what an earlier process had begun
                for earlier in (self.path / "weights", *killed):
                    _remove(earlier)
            checkpoint.save_weights(self.path / "weights", weights)

        hosts.on_primary(save)

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

    def _replace_here(
        self, name: str, write: Callable[[epath.Path], Any], *, is_read: bool = True
    ) -> None:
        """A reader sees the old file or the whole new one, with its checksum if it `is_read`."""
        target = self.path / name
        with self.writing(target):
            if target.parent != self.path:
                target.parent.mkdir(exist_ok=True)
            with storage.replacing(target) as temporary:
                write(temporary)
                if is_read:
                    self._checksums.add(name, checksums.of_file(temporary, name))

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
                f"{first_line(error)}; make room or mend the access, and run the same "
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
    if path.name == CHECKPOINTS and path.is_dir():
        return not any(path.iterdir())
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
