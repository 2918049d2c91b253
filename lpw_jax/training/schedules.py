"""Rates by epoch and phase, and lengths of epochs: the one place where epochs become numbers."""

import dataclasses
import math
from typing import Any, NamedTuple


class Rates(NamedTuple):
    """What the step is told anew each epoch; leaves are scalars (host floats or device arrays)."""

    shared_learning_rate: Any
    shared_weight_decay: Any
    late_learning_rate: Any
    late_weight_decay: Any
    shared_grad_scale: Any  # gamma of the paper's Algorithm 1


class Epoch(NamedTuple):
    """What is planned for one epoch.

    Attributes:
      number: from 1.
      phase: 'tied', 'late' or 'SWA', from `phase`.
      num_members: K, 1 before the release.
      cycles: of K minibatches each.
      rates: as floats.
    """

    number: int
    phase: str
    num_members: int
    cycles: int
    rates: Rates


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Factor of learning rates by epoch (from 1), constant within each. With i = epoch - 1:

    Attributes:
      name: 'annealing', from 1 at i <= start linear to `end_factor` at i >= end; 'cosine', the same
        along half a cosine; 'multistep', `milestone_factor` to the power of the number of
        milestones <= i.
      start, end, end_factor: of the first two.
      milestones, milestone_factor: of the last.
      warmup_epochs: epochs n at the start, where the factor is multiplied by epoch / (n + 1).
    """

    name: str = "annealing"
    start: int = 0
    end: int = 1
    end_factor: float = 1.0
    milestones: tuple[int, ...] = ()
    milestone_factor: float = 1.0
    warmup_epochs: int = 0

    def __call__(self, epoch: int) -> float:
        """The factor in `epoch`."""
        return min(epoch / (self.warmup_epochs + 1), 1.0) * self._after_warmup(epoch - 1)

    def _after_warmup(self, i: int) -> float:
        if self.name == "multistep":
            return self.milestone_factor ** sum(milestone <= i for milestone in self.milestones)
        progress = min(max((i - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.name == "cosine":
            progress = (1.0 - math.cos(math.pi * progress)) / 2
        return 1.0 - progress * (1.0 - self.end_factor)


def is_released(epoch: int, *, release_epoch: int) -> bool:
    """Whether members are trained in `epoch`: the release is at the end of `release_epoch`."""
    return 0 <= release_epoch < epoch


def phase(epoch: int, *, release_epoch: int, swa_start_epoch: int) -> str:
    """Name of the phase that `epoch` belongs to: tied, late or SWA."""
    if 0 < swa_start_epoch <= epoch:
        return "SWA"
    return "late" if is_released(epoch, release_epoch=release_epoch) else "tied"
