"""report.html of a run's folder: one page with its results, figures, config and cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lpw_jax.display import console
from lpw_jax.files import storage

if TYPE_CHECKING:
    from lpw_jax.files.workdir import Workdir

NAME = "report.html"
_SECONDS = 60  # from the start, and between two reports of a training
_SHARE = 0.01  # of a training's time that its reports may take


def refresh(folder: Workdir, *, due: Callable[[], bool] = lambda: True) -> None:
    """Writes the report if it is `due`, on the primary process.

    One that cannot be made or written is a warning: no run should end by it.
    """
    from lpw_jax.devices import hosts  # JAX, which `--serve` does without

    if hosts.is_primary() and due():
        with console.optional(f"{NAME} was not written"):
            from lpw_jax.report import page

            folder.write_file(NAME, storage.utf8(page.build(folder)))


class Live:
    """The report of a training on its way: once a minute, and less often where that is slow."""

    def __init__(self, folder: Workdir):
        self._folder, self._next = folder, time.monotonic() + _SECONDS

    def refresh(self) -> None:
        """To be called at the end of an epoch."""
        start = time.monotonic()
        refresh(self._folder, due=lambda: start >= self._next)
        end = time.monotonic()
        if start >= self._next:
            self._next = end + max(_SECONDS, (end - start) / _SHARE)
