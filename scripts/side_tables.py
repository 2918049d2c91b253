"""Tables of the sides of a comparison, each beside the first, for the pages in docs/."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpw_jax.comparison.statistics import paired_by_seed

PLACES = {"accuracy": 2}
TITLES = {"accuracy": "accuracy, %", "nll": "NLL", "ece": "ECE", "bpc": "bits per character"}


def table(file: Path, quantities: Sequence[str], names: Mapping[str, str]) -> str:
    """Means of the collapsed network over seeds, and of the first quantity the difference.

    Args:
      file: comparison.json.
      quantities: of TITLES.
      names: what the table calls the sides that it has, in its order; the first is the baseline.
    """
    first, what = next(iter(names)), quantities[0]
    sides = {side["name"]: side for side in json.loads(file.read_text())["sides"]}
    header = ["method", *(TITLES[name] for name in quantities), f"{TITLES[what]}, difference"]
    header += ["runs", "seconds of training"]
    lines = [_row(header), _row(["---"] * len(header))]
    base = _by_seed(_view(sides[first])[what])
    for name, title in names.items():
        found = _view(sides[name])
        cells = [title, *(_spread(found[each], PLACES.get(each, 4)) for each in quantities)]
        paired = None if name == first else paired_by_seed(_by_seed(found[what]), base)
        cells.append(_difference(found[what], _view(sides[first])[what], paired, what))
        cells.append(str(found[what]["n"]))
        cells.append(f"{3600 * sides[name]['cost']['device_hours']:.0f}")
        lines.append(_row(cells))
    return "\n".join(lines) + "\n\n"


def _view(side: Mapping[str, Any]) -> dict[str, Any]:
    """Of deep ensembles there is no collapsed network."""
    measured = side["measured"]
    return measured.get("collapsed") or measured["ensemble"]


def _by_seed(found: Mapping[str, Any]) -> dict[int, float]:
    values = found["values"]
    return {each["seed"]: each["value"] for each in values if each["seed"] is not None}


def _spread(found: Mapping[str, Any], places: int) -> str:
    spread = f" ± {found['std']:.{places}f}" if found["std"] is not None else ""
    return f"{found['mean']:.{places}f}{spread}"


def _difference(found: Any, base: Any, paired: Mapping[str, Any] | None, what: str) -> str:
    places = PLACES.get(what, 4)
    if paired is None or paired["low"] is None:
        gap = found["mean"] - base["mean"]
        return f"{gap:+.{places}f}" if found is not base else "-"
    low, high = (f"{paired[end]:+.{places}f}" for end in ("low", "high"))
    return f"{paired['difference']:+.{places}f} [{low}, {high}]"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
