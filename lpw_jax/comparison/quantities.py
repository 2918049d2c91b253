"""The quantities that are compared: their names, units, directions and equivalence margins."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lpw_jax.data.ood import OOD_SETS
from lpw_jax.errors import UserError
from lpw_jax.files.measured import View

POINTS = "points"
DEFAULT_MARGIN = 0.5  # points


class Quantity(NamedTuple):
    """One measured quantity.

    Attributes:
      name: its key in the JSON output, as 'auroc_SVHN'.
      label: what tables call it.
      unit: 'points' for what is shown in percent, '' for the others.
      places: decimal places shown.
      higher_is_better: which direction is an improvement.
    """

    name: str
    label: str
    unit: str
    places: int
    higher_is_better: bool

    @property
    def family(self) -> str:
        """The name that a margin goes by: one for all AUROCs."""
        return self.name.partition("_")[0] if self.name.startswith("auroc") else self.name


QUANTITIES = (
    Quantity("bpc", "bits per character", "", 4, False),
    Quantity("accuracy", "accuracy, %", POINTS, 2, True),
    Quantity("top5_accuracy", "top-5, %", POINTS, 2, True),
    Quantity("nll", "NLL", "", 4, False),
    Quantity("brier", "Brier", "", 4, False),
    Quantity("ece", "ECE", "", 4, False),
    *(Quantity(f"auroc_{name}", f"AUROC {name}, %", POINTS, 2, True) for name in OOD_SETS),
    Quantity("auroc_mean", "AUROC mean, %", POINTS, 2, True),
)
BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
_FAMILIES = tuple(dict.fromkeys(quantity.family for quantity in QUANTITIES))


def of_view(view: View) -> dict[str, float]:
    """The quantities of a view that are there, percentages in percent."""
    names = ("bpc", "accuracy", "top5_accuracy", "nll", "brier", "ece")
    found = {name: getattr(view, name) for name in names}
    found |= {f"auroc_{name}": outside and outside.auroc for name, outside in view.ood.items()}
    found["auroc_mean"] = view.ood_mean_auroc
    return {
        name: 100.0 * found[name] if quantity.unit == POINTS else float(found[name])
        for name, quantity in BY_NAME.items()
        if found.get(name) is not None
    }


def read_margins(texts: Sequence[str]) -> dict[str, float]:
    """Margins by unit or family: ['0.3', 'nll=0.01'] is {'points': 0.3, 'nll': 0.01}.

    Raises:
      UserError: a margin is no number > 0, or belongs to no quantity.
    """
    margins = {POINTS: DEFAULT_MARGIN}
    for text in texts:
        name, equals, number = text.rpartition("=")
        name = name if equals else POINTS
        if name not in (POINTS, *_FAMILIES):
            raise UserError(f"--margin {text}: must be of {', '.join(_FAMILIES)}, as in nll=0.01")
        try:
            margins[name] = float(number)
        except ValueError:
            margins[name] = math.nan
        if not (math.isfinite(margins[name]) and margins[name] > 0):
            raise UserError(f"--margin {text}: must be a number > 0, as in 0.5 or nll=0.01")
    return margins


def margin(quantity: Quantity, margins: Mapping[str, float]) -> float | None:
    """The quantity's equivalence margin in its own unit; None if it has none."""
    return margins.get(quantity.family, margins[POINTS] if quantity.unit == POINTS else None)
