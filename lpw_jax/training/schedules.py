"""Rates by epoch and phase, and lengths of epochs: the one place where epochs become numbers."""

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
      rates: from `rates`, as floats.
    """

    number: int
    phase: str
    num_members: int
    cycles: int
    rates: Rates


def annealing_factor(epoch: int, *, anneal_start: int, anneal_end: int, end_factor: float) -> float:
    """Factor of every learning rate in `epoch` (from 1), constant within it (reference schedule).

    With i = epoch - 1: 1 up to i = anneal_start, linear to `end_factor` at i = anneal_end, then
    `end_factor`.
    """
    progress = (epoch - 1 - anneal_start) / (anneal_end - anneal_start)
    progress = min(max(progress, 0.0), 1.0)
    return 1.0 - progress * (1.0 - end_factor)


def is_released(epoch: int, *, release_epoch: int) -> bool:
    """Whether members are trained in `epoch`: the release is at the end of `release_epoch`."""
    return 0 <= release_epoch < epoch


def phase(epoch: int, *, release_epoch: int, swa_start_epoch: int) -> str:
    """Name of the phase that `epoch` belongs to: tied, late or SWA."""
    if 0 < swa_start_epoch <= epoch:
        return "SWA"
    return "late" if is_released(epoch, release_epoch=release_epoch) else "tied"


def rates(
    epoch: int,
    *,
    released: bool,
    anneal_start: int,
    anneal_end: int,
    learning_rate: float,
    end_learning_rate: float,
    weight_decay: float,
    late_learning_rate: float,
    late_weight_decay: float,
    shared_grad_scale: float,
    anneal_late: bool = True,
    num_microbatches: int = 1,
    shared_rate_divisor: int = 1,
) -> Rates:
    """Rates of `epoch` (from 1). Before the release the tied copy is trained as shared weights.

    All learning rates are divided by `num_microbatches`, whose gradients are summed, and the
    shared one by `shared_rate_divisor` after the release; the members' rate is annealed with the
    shared one or not at all (reference, ImageNet).
    """
    factor = late_factor = annealing_factor(
        epoch,
        anneal_start=anneal_start,
        anneal_end=anneal_end,
        end_factor=end_learning_rate / learning_rate,
    )
    if not released:
        late_learning_rate, late_weight_decay = learning_rate, weight_decay
        shared_grad_scale, shared_rate_divisor = 1.0, 1
    elif not anneal_late:
        late_factor = 1.0
    return Rates(
        shared_learning_rate=learning_rate * factor / num_microbatches / shared_rate_divisor,
        shared_weight_decay=weight_decay,
        late_learning_rate=late_learning_rate * late_factor / num_microbatches,
        late_weight_decay=late_weight_decay,
        shared_grad_scale=shared_grad_scale,
    )
