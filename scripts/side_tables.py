"""Tables of the sides of a comparison, each beside the first, for the pages in docs/."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpw_jax.comparison import words
from lpw_jax.comparison.quantities import BY_NAME
from lpw_jax.comparison.statistics import paired_by_seed


def table(file: Path, quantities: Sequence[str], names: Mapping[str, str]) -> str:
    """Means over seeds, and the difference of the first quantity, paired where seeds are the same.

    Args:
      file: comparison.json.
      quantities: of BY_NAME.
      names: what the table calls the sides that it has, in its order; the first is the baseline.
    """
    first, what = next(iter(names)), BY_NAME[quantities[0]]
    sides = {side["name"]: side for side in json.loads(file.read_text())["sides"]}
    header = ["method", *(BY_NAME[name].label for name in quantities)]
    header += [f"{what.label}, difference", "seconds of training"]
    lines = [_row(header), _row(["---"] * len(header))]
    base = view(sides[first])[what.name]
    for name, title in names.items():
        found = view(sides[name])
        cells = [title, *(words.sample(found[each], BY_NAME[each].places) for each in quantities)]
        own = found[what.name]
        difference = paired_by_seed(_by_seed(own), _by_seed(base)) or {
            "difference": own["mean"] - base["mean"]
        }
        told = words.difference(difference, what.places)
        cells.append(words.NOTHING if name == first else told)
        cells.append(f"{3600 * sides[name]['cost']['device_hours']:.0f}")
        lines.append(_row(cells))
    return "\n".join(lines) + "\n\n"


def view(side: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured of the collapsed network, of a deep ensemble of its mean probabilities."""
    measured = side["measured"]
    return measured.get("collapsed") or measured["ensemble"]


def _by_seed(found: Mapping[str, Any]) -> dict[int, float]:
    values = found["values"]
    return {each["seed"]: each["value"] for each in values if each["seed"] is not None}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
