"""The schedule of a run as a table, shown before it starts."""

import math
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.table import Table

from lpw_jax.training.schedules import Epoch


def schedule_table(epochs: Sequence[Epoch]) -> Table:
    """Table of rates and phases, one row while each learning rate stays, rises or falls.

    Where rates change, a row shows those of its first and its last epoch. gamma, the factor of the
    shared gradient, has a column if it is not always 1.
    """
    stretches = [part for phase in phases(epochs) for part in _stretches(phase)]
    with_gamma = any(epoch.rates.shared_grad_scale != 1 for epoch in epochs)
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)  # nine columns fit in 80
    for header in ("\nepochs", "\nphase"):
        table.add_column(header)
    headers = [
        ("\nK", 2), ("\ncycles", 6),
        ("learning rate\nshared", 15), ("decay\nshared", 6),
        ("learning rate\nlate-phase", 15), ("decay\nlate", 6),
    ]  # fmt: skip
    for header, width in [*headers, *([("\ngamma", 5)] if with_gamma else [])]:
        table.add_column(header, justify="right", min_width=width)
    for stretch in stretches:
        first, last = stretch[0], stretch[-1]
        rates = first.rates
        cells = [
            "-".join(dict.fromkeys((str(first.number), str(last.number)))),
            first.phase,
            str(first.num_members),
            str(first.cycles),
            _from_to(rates.shared_learning_rate, last.rates.shared_learning_rate),
            f"{rates.shared_weight_decay:.3g}",
            _from_to(rates.late_learning_rate, last.rates.late_learning_rate),
            f"{rates.late_weight_decay:.3g}",
        ]
        table.add_row(*cells, *([f"{rates.shared_grad_scale:.3g}"] if with_gamma else []))
    return table


def phases(epochs: Sequence[Epoch]) -> list[list[Epoch]]:
    """Consecutive epochs that differ in their learning rates only."""

    def plan(epoch):
        rates = epoch.rates._replace(shared_learning_rate=None, late_learning_rate=None)
        return epoch._replace(number=None, rates=rates)

    return [list(group) for _, group in groupby(epochs, key=plan)]


def _stretches(epochs: Sequence[Epoch]) -> list[list[Epoch]]:
    """Parts in which each of both learning rates stays, rises or falls from epoch to epoch.

    Where shared weights do not move, perhaps because they are frozen, is a part of its own.
    """
    parts = [[epochs[0]]]
    for epoch in epochs[1:]:
        *_, last = part = parts[-1]
        steady = len(part) == 1 or _change(part[-2], last) == _change(last, epoch)
        if steady and bool(last.rates.shared_learning_rate) == bool(
            epoch.rates.shared_learning_rate
        ):
            part.append(epoch)
        else:
            parts.append([epoch])
    return parts


def _change(before: Epoch, after: Epoch) -> list[int]:
    """-1, 0 or 1 for both learning rates; rounding is no change."""
    names = ("shared_learning_rate", "late_learning_rate")
    pairs = [(getattr(before.rates, name), getattr(after.rates, name)) for name in names]
    return [0 if math.isclose(a, b, rel_tol=1e-9) else (b > a) - (b < a) for a, b in pairs]


def _from_to(first: float, last: float) -> str:
    return " -> ".join(dict.fromkeys((f"{first:.3g}", f"{last:.3g}")))
