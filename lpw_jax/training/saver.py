"""When a run is saved, and where it goes on."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from lpw_jax.devices import hosts
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console
from lpw_jax.errors import SharedError, UserError
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.method.state import State
from lpw_jax.training.progress import Progress

CLOCK_EVERY = 50  # cycles after which several hosts compare clocks, which makes them wait


class Saver:
    """Saves a training when it is time to, and ends it when it was asked to end.

    All processes have the same progress, of which the primary one writes and reads checkpoints.

    Args:
      checkpoints: where to; None on other processes.
      preemption: whether the run was asked to end.
      every_minutes: the age from which the newest checkpoint is followed by another; 0 = none.
      identity: what identifies the run, of JSON's types.
      snapshot: returns the minibatches done, the progress, on the host, and why that must not take
        the place of an earlier one, '' if it may.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        preemption: Preemption,
        *,
        every_minutes: float,
        identity: dict[str, Any],
        snapshot: Callable[[], tuple[int, Progress, str]],
    ):
        self._checkpoints, self._preemption = checkpoints, preemption
        self._seconds, self._identity, self._snapshot = 60 * every_minutes, identity, snapshot
        self._last_save, self._last_number, self._pauses = time.monotonic(), None, 0

    @property
    def newest(self) -> str:
        """The newest whole checkpoint in words. All processes ask together."""
        number = hosts.on_primary(lambda: self._checkpoints.newest)
        return "none" if number is None else f"step {number}"

    def restore(self, like: Callable[[bool], State]) -> Progress | None:
        """Progress of the newest intact checkpoint, on the host; None if there is no checkpoint.

        `like` is as in `Progress.from_checkpoint`.

        Raises:
          UserError: it is of another run, or none is intact.
        """
        found = hosts.on_primary(lambda: self._checkpoints.restore())
        if found is None:
            return None
        number, arrays, info, damage = found
        for line in damage:
            console.warn(f"{line}; an older checkpoint is used")
        identity = info.pop("identity")
        if identity != self._identity:
            raise SharedError(
                "the checkpoints in --workdir must be of the same config and data; choose another "
                f"folder. There {identity}, here {self._identity}"
            )
        self._last_number = number
        return Progress.from_checkpoint(arrays, info, like)

    def pause(self, *, save: bool = False, between_cycles: bool = True) -> None:
        """To be called where the run can be saved and resumed.

        Args:
          save: whether it is time to by other reasons than age.
          between_cycles: otherwise nothing that is saved has changed since the last cycle, and age
            is no reason: the end of the epoch would find its number taken.

        Raises:
          Preempted: after the run was saved.
          UserError: a checkpoint could not be written.
        """
        if self._checkpoints:
            self._checkpoints.check()
        preempted = self._preemption.due()
        if save or preempted or (between_cycles and self._is_old()):
            self.save()
        if preempted:
            self.wait()
            raise self._preemption.end()

    @contextlib.contextmanager
    def before_errors(self) -> Iterator[None]:
        """Saves the run before an error of one process, such as an image that cannot be read."""
        try:
            yield
        except SharedError:
            raise
        except UserError as error:
            if jax.process_count() > 1:  # the others are in the midst of a cycle
                raise
            self.save()
            self.wait()
            raise UserError(
                f"{error}. Saved at {self.newest}: the same command continues there"
            ) from error

    def save(self) -> None:
        """Starts to write a checkpoint, unless there is one of this very moment."""
        number, progress, fault = self._snapshot()
        if fault:
            console.warn(f"{fault}. They are not saved; last good checkpoint: {self.newest}")
        elif self._checkpoints and number != self._last_number:
            arrays, info = progress.to_checkpoint()
            self._checkpoints.save(number, arrays, {"identity": self._identity, **info})
        self._last_save, self._last_number = time.monotonic(), number

    def wait(self) -> None:
        """Waits until the checkpoint being written is whole, on all processes.

        Raises:
          UserError: it could not be written.
        """
        hosts.on_primary(lambda: self._checkpoints.check(wait=True))

    def _is_old(self) -> bool:
        self._pauses += 1
        if not self._seconds or self._pauses % (CLOCK_EVERY if jax.process_count() > 1 else 1):
            return False
        return hosts.exchange(time.monotonic() - self._last_save > self._seconds)[0]
