"""Where a run is: with its config and its data, all that its continuation depends on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lpw_jax.files.nested import from_nested, to_nested
from lpw_jax.method.average import Average
from lpw_jax.method.state import State
from lpw_jax.training.schedules import Rates


@dataclasses.dataclass
class Progress:
    """The position and the arrays of a training.

    Attributes:
      state: weights, statistics and optimisers.
      averages: of weights over time, None before the first are taken.
      epoch: the current one, from 1; one more than the run has during the pass after SWA.
      cycle: cycles done in it, or batches of that pass.
      history: `loss` and `accuracy` [K] of each of those cycles.
      records: lines of metrics.jsonl of the finished epochs.
      corrupt: numbers of the training images that were damaged and skipped, over all processes.
      pretrained: what is known of pretrained weights, None before their evaluation.
      epoch_seconds: time spent in the current epoch.
      seconds: time spent in all.
    """

    state: State
    averages: Average | None = None
    epoch: int = 1
    cycle: int = 0
    history: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    corrupt: list[int] = dataclasses.field(default_factory=list)
    pretrained: dict[str, Any] | None = None
    epoch_seconds: float = 0.0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """Moves to the start of the next epoch."""
        self.epoch, self.cycle, self.history, self.epoch_seconds = self.epoch + 1, 0, [], 0.0

    def epoch_record(self, *, phase: str, rates: Rates, batch_size: int) -> dict[str, Any]:
        """The current epoch's line of metrics.jsonl, after its last cycle."""
        history = stacked(self.history)
        images = history["loss"].size * batch_size
        return {
            "epoch": self.epoch,
            "phase": phase,
            "step": int(self.state.step),
            "learning_rate": rates.shared_learning_rate,
            "late_phase_learning_rate": rates.late_learning_rate,
            "loss": float(history["loss"].mean()),
            "accuracy": float(history["accuracy"].mean()),
            "member_loss": history["loss"].mean(0).tolist(),
            "member_accuracy": history["accuracy"].mean(0).tolist(),
            "images": images,
            "seconds": self.epoch_seconds,
            "images_per_second": images / self.epoch_seconds,
        }

    def report(self) -> dict[str, Any]:
        """The parts of `Results` that tell of the finished training, by name."""
        images, seconds = (
            sum(record[name] for record in self.records) for name in ("images", "seconds")
        )
        evaluated = [record for record in self.records if record.get("evaluation")]
        best = max(evaluated, key=lambda r: r["evaluation"]["collapsed"]["accuracy"], default=None)
        return {
            "train": {
                "epochs": len(self.records),
                "seconds": self.seconds,
                "images_per_second": images / seconds,
                "skipped_images": len(self.corrupt),
            },
            "pretrained": self.pretrained,
            "best_epoch": best and {"epoch": best["epoch"], "views": best["evaluation"]},
        }

    def to_checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """As nested dicts of arrays, and JSON. `state` and `averages` must be on the host."""
        arrays = {"state": to_nested(self.state)}
        if self.averages is not None:
            arrays["averages"] = to_nested(self.averages)
        if self.history:
            arrays["history"] = stacked(self.history)
        names = ("epoch", "cycle", "epoch_seconds", "seconds", "corrupt", "pretrained")
        # A list of its own: the training adds to the other while this one is being written.
        info = {name: getattr(self, name) for name in names}
        info |= {"records": list(self.records), "released": self.state.is_released}
        return arrays, info

    @classmethod
    def from_checkpoint(
        cls, arrays: dict[str, Any], info: dict[str, Any], like: Callable[[bool], State]
    ) -> "Progress":
        """Inverse of `to_checkpoint`; `like(released)` gives shapes of a state, of any K."""
        info = dict(info)
        like = like(info.pop("released"))
        averages = None
        if "averages" in arrays:
            averages = from_nested(arrays["averages"], jax.eval_shape(Average.start, like))
        history = arrays.get("history", {"loss": ()})
        return cls(
            state=from_nested(arrays["state"], like),
            averages=averages,
            history=[
                {name: values[i] for name, values in history.items()}
                for i in range(len(history["loss"]))
            ],
            **info,
        )


@functools.partial(jax.jit, static_argnames="decay")
def averaged(average: Average | None, state: State, *, decay: float | None = None) -> Average:
    """The averages with another state; `decay` is as in `Average.add`."""
    return (average or Average.start(state)).add(state, decay=decay)


def stacked(history: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A history as arrays [cycles, K]."""
    return {name: np.stack([metrics[name] for metrics in history]) for name in history[0]}
