"""The one place that knows orbax: weights on disk, and the checkpoints of a run."""

import contextlib
import json
import logging
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from lpw_jax.errors import UserError, first_line
from lpw_jax.files import storage
from lpw_jax.weights import soundness

# Failures to read that say nothing about what is stored.
_NO_ACCESS = (PermissionError, MemoryError, TimeoutError, ConnectionError)


def save_weights(path: epath.PathLike, weights: dict[str, Any]) -> None:
    """Writes a tree of arrays as host arrays, so that it can be read on any device.

    `path` must not exist; it appears whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    path = storage.absolute(path)
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(path, jax.tree.map(np.asarray, jax.device_get(weights)))
            checkpointer.wait_until_finished()
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise UserError(f"{path}: cannot be written; {first_line(error)}") from error


def load_weights(path: epath.PathLike) -> dict[str, Any]:
    """The tree that `save_weights` wrote, as nested dicts of numpy arrays.

    Raises:
      UserError: it is damaged.
    """
    path = storage.absolute(path)
    try:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(path)
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise UserError(f"{path}: damaged, cannot be read; {first_line(error)}") from error


def load_arrays(path: epath.PathLike, number: int) -> dict[str, Any]:
    """The arrays of checkpoint `number` in the folder `path`, while it may be in use.

    Raises:
      UserError: there is no such checkpoint, or it is damaged.
    """
    folder = storage.absolute(path) / str(number)
    if not folder.exists():
        there = ", ".join(map(str, numbers(path))) or "none"
        raise UserError(f"{folder}: there is no such checkpoint; there are: {there}")
    with (
        storage.reading(folder),
        _failures_in_one_line(),
        ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(), multiprocessing_options=_alone()
        ) as checkpointer,
    ):
        return _checked(checkpointer.restore(folder, args=_restored()))[0]


def numbers(path: epath.PathLike) -> list[int]:
    """Of the checkpoints in the folder `path`, damaged ones included; none if it is not there."""
    return sorted(int(place.name) for place in epath.Path(path).glob("*") if place.name.isdigit())


def checksum(arrays: dict[str, Any], info: dict[str, Any] | None = None) -> int:
    """CRC-32 of the JSON and of every leaf's path, type, shape and bytes, in whatever order."""
    found = zlib.crc32(json.dumps(info or {}, sort_keys=True).encode())
    for path, leaf in _leaves(arrays):
        leaf = np.ascontiguousarray(leaf)
        header = f"{path} {leaf.dtype} {np.shape(leaf)}"
        found = zlib.crc32(header.encode(), found)
        found = zlib.crc32(leaf.reshape(-1).view(np.uint8), found)
    return found


class Checkpoints:
    """Numbered checkpoints in a folder, each a tree of arrays and some JSON. A context manager.

    Saving goes on in the background and is atomic. For one process of a run, the one that writes.

    Args:
      path: their folder; made if it is not there.
      keep: how many of the newest are kept.
    """

    def __init__(self, path: epath.PathLike, *, keep: int = 1):
        self.path = storage.absolute(path)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=_alone(),
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._manager = _Manager(self.path, options=options)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be used for checkpoints; {error}") from error

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(_failures_in_one_line())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        with self._stack:
            self._close(kind)

    def _close(self, kind: type[BaseException] | None) -> None:
        if kind is not None and not issubclass(kind, Exception):
            return  # Ctrl-C: orbax, cut short, would wait for minutes for what it has not started
        try:
            self._manager.close()
        except Exception as failure:  # orbax and tensorstore raise many kinds
            if kind is None:  # otherwise the first error tells more
                raise self._not_written(failure) from failure

    @property
    def newest(self) -> int | None:
        """Number of the newest whole one, None if there is none. Waits for one being written."""
        with contextlib.suppress(Exception):  # orbax and tensorstore raise many kinds
            self._manager.wait_until_finished()
        self._manager.reload()  # it counts one that failed
        return max(self._manager.all_steps(), default=None)

    def save(self, number: int, arrays: dict[str, Any], info: dict[str, Any]) -> None:
        """Starts to write a checkpoint: nested dicts of host arrays, and JSON.

        Raises:
          UserError: this or the one before cannot be written.
        """
        info = info | {"checksum": checksum(arrays, info)}
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), info=ocp.args.JsonSave(info)
        )
        try:
            self._manager.save(number, args=args, force=True)
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._not_written(error) from error

    def check(self, *, wait: bool = False) -> None:
        """Raises UserError if the checkpoint being written has failed; may wait for its end."""
        try:
            if wait:
                self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._not_written(error) from error

    def restore(self) -> tuple[int, dict[str, Any], dict[str, Any], list[str]] | None:
        """The newest intact checkpoint: number, arrays, JSON, and a line on each one passed over.

        Damaged ones are renamed, so that their numbers are free again. None if there are none.

        Raises:
          UserError: there are checkpoints, but none is intact; nothing is changed.
        """
        damage = {}
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays, info = self._read(number)
            except Exception as error:  # whatever a damaged file makes the readers raise
                place, line = self.path / str(number), first_line(error)[:120]
                if isinstance(error, _NO_ACCESS):
                    raise UserError(f"{place}: cannot be read, {line}; try again") from error
                damage[number] = f"{place} is damaged: {line}"
                continue
            for damaged in damage:
                renamed = storage.set_aside(self.path / str(damaged))
                damage[damaged] += f"; renamed {renamed.name}"
            if damage:
                self._manager.reload()
            return number, arrays, info, list(damage.values())
        if damage:
            raise UserError(
                f"{'; '.join(damage.values())}. No checkpoint is intact; nothing was changed. To "
                f"start again from the beginning, remove {self.path}"
            )
        return None

    def _read(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return _checked(self._manager.restore(number, args=_restored()))

    def _not_written(self, error: Exception) -> UserError:
        newest = self.newest
        there = "there is none" if newest is None else f"the newest one is step {newest}"
        return UserError(
            f"{self.path}: a checkpoint could not be written; {there}. Make room, or mend the "
            f"access, and run the same command again. {first_line(error)}"
        )


class _Manager(ocp.CheckpointManager):
    """Leaves JAX's count of the steps before a preemption to `preemption.Preemption`.

    Orbax would count in its own numbers, and the hosts would then wait for a step that never comes.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def _alone() -> ocp.options.MultiprocessingOptions:
    """This process reads and writes without the others, which have the same arrays."""
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.StandardCheckpointer]:
    checkpointer = ocp.StandardCheckpointer(multiprocessing_options=_alone())
    with _failures_in_one_line():
        try:
            yield checkpointer
        except Exception:
            checkpointer.close()
            raise
        checkpointer.close()  # not after Ctrl-C, see Checkpoints


@contextlib.contextmanager
def _failures_in_one_line() -> Iterator[None]:
    """Leaves of orbax's failures what it raises.

    It logs each with its traceback besides, and tensorstore reports for every array that it could
    not tell orbax, which no longer listens. asyncio reports those that orbax did not wait for.
    """
    report = getattr(sys.unraisablehook, "before", sys.unraisablehook)
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]

    def reported(found):
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    def is_heard(record):
        return "orbax" not in record.pathname and "never retrieved" not in record.getMessage()

    reported.before, sys.unraisablehook = report, reported
    for logger in loggers:
        logger.addFilter(is_heard)
    try:
        yield
        sys.unraisablehook = report  # not after a failure: tensorstore goes on to report it
    finally:
        for logger in loggers:
            logger.removeFilter(is_heard)


def _restored() -> ocp.args.Composite:
    return ocp.args.Composite(arrays=ocp.args.StandardRestore(), info=ocp.args.JsonRestore())


def _checked(found: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the JSON of a checkpoint; raises ValueError if they are not what was saved."""
    arrays, info = found.arrays, dict(found.info)
    if info.pop("checksum") != checksum(arrays, info):
        raise ValueError("the contents are not those that were saved (checksum)")
    if fault := soundness.found({name: arrays.get(name) for name in ("state", "averages")}):
        raise ValueError(fault)
    return arrays, info


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for name in sorted(tree):
            yield from _leaves(tree[name], f"{path}/{name}")
    else:
        yield path, tree
