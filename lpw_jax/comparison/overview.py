"""The PyTorch code's `performance_overview.txt`: a run's final figures, one `key value` a line."""

import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from lpw_jax import registry
from lpw_jax.data.ood import OFFICIAL_SIZES, OOD_SETS
from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.measures import bounds

FILE = "performance_overview.txt"
# The file is written for CIFAR only, and either CIFAR has as many test images as this.
DATASETS = tuple(registry.CIFAR)
NUM_TEST = OFFICIAL_SIZES["CIFAR"]
_NUMBERS = ("num_parameters", "num_train_epochs", "final_test_acc", "final_nll", "finished")


# Least and largest value of a figure.
_RANGES = {
    "num_parameters": (1, math.inf),
    "num_train_epochs": (1, math.inf),
    "final_test_acc": (0, 1),
    "final_nll": (0, math.inf),
    "final_auroc": (0, 1),
}


def read(file: epath.Path) -> dict[str, Any]:
    """The file's figures by key; `final_auroc` is a list, and what is not known stays text.

    Raises:
      UserError: it cannot be read or is something else, or a figure is no finite number or an
        impossible one.
    """
    found: dict[str, Any] = {}
    with storage.reading(file):
        lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        key, _, value = line.strip().partition(" ")
        if not key:
            continue
        try:
            if key in _NUMBERS:
                found[key] = _finite(value)
            elif key == "final_auroc":
                found[key] = [_finite(part) for part in value.split()]
            else:
                found[key] = value.strip()
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}: {key} must be a finite number as the PyTorch code writes "
                f"it, found {value.strip()!r}"
            ) from error
    if not found.keys() & {*_NUMBERS, "final_auroc"}:
        raise UserError(f"{file}: must be a {FILE} of the PyTorch code, with lines as 'finished 1'")
    for key, (least, largest) in _RANGES.items():
        values = found.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            if not least <= value <= largest:
                raise UserError(f"{file}: {key} must be {least} to {largest}, found {value:g}")
    if "final_test_acc" in found and "final_nll" in found:
        both = {"accuracy": found["final_test_acc"], "nll": found["final_nll"] / NUM_TEST}
        if fault := bounds.impossible(both):
            raise UserError(
                f"{file}: final_nll must be a sum over the {NUM_TEST:,} test images (a mean times "
                f"that), found {found['final_nll']:g}, a mean of {both['nll']:g}; {fault}"
            )
    return found


def unfinished(found: Mapping[str, Any]) -> str:
    """Why the run cannot be compared; '' if it can."""
    if found.get("finished") != 1:
        return "not finished"
    missing = [key for key in ("final_test_acc", "final_nll") if key not in found]
    return f"no {' and no '.join(missing)}" if missing else ""


def quantities(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The quantities by view, in our units: its figures are those of the collapsed network.

    The accuracy is a fraction there, the NLL a sum over the test set, and the AUROCs are listed in
    the order of `OOD_SETS`; a list of another length names no set, so it is left out.
    """
    values = {
        "accuracy": 100.0 * found["final_test_acc"],
        "nll": found["final_nll"] / NUM_TEST,
    }
    aurocs = found.get("final_auroc", [])
    if len(aurocs) == len(OOD_SETS):
        values |= {
            f"auroc_{name}": 100.0 * auroc for name, auroc in zip(OOD_SETS, aurocs, strict=True)
        }
        values["auroc_mean"] = 100.0 * sum(aurocs) / len(aurocs)
    return {"collapsed": values}


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What a reader of these figures has to know."""
    notes = [
        "its file tells neither data nor settings beyond the number of parameters and of epochs; "
        f"its NLL, a sum, is divided by {NUM_TEST:,} test images"
    ]
    aurocs = found.get("final_auroc", [])
    if aurocs and len(aurocs) != len(OOD_SETS):
        notes.append(
            f"{len(aurocs)} AUROCs where those of {', '.join(OOD_SETS)} belong, so none is used"
        )
    return notes


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
