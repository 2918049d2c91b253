"""What a training tells of its epochs: metrics.jsonl, TensorBoard's events, report.html."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpw_jax import report
from lpw_jax.display.events import Events
from lpw_jax.files.workdir import Workdir


class Journal:
    """Files of a run that follow its finished epochs; every session begins them again.

    Args:
      folder: of the run.
      records: of the finished epochs, lines of metrics.jsonl.

    Raises (as `add` does):
      UserError: metrics.jsonl cannot be written.
    """

    def __init__(self, folder: Workdir, records: Sequence[Mapping[str, Any]]):
        self._folder, self._records = folder, list(records)
        folder.write_metrics(self._records)
        self._events, self._report = Events(folder, self._records), report.Live(folder)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds an epoch."""
        self._records.append(record)
        self._folder.write_metrics(self._records)
        self._events.add(record)
        self._report.refresh()
