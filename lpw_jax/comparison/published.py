"""The published figures, with the source of each and the config whose settings made it."""

import importlib.resources
import json
from typing import Any

from lpw_jax.comparison import settings
from lpw_jax.comparison.sides import Measured, Side
from lpw_jax.comparison.statistics import Sample
from lpw_jax.errors import UserError
from lpw_jax.measures import bounds

_CHANCE = 1.0  # percent, of 100 classes
UNKNOWN_SETTINGS = "its settings were not published with it"


def sides() -> list[Side]:
    """Every published figure: test accuracy in percent, of the collapsed network."""
    facts = _facts()
    return [_side(figure, facts["sources"]) for figure in facts["figures"]]


def context(dataset: str) -> list[dict[str, Any]]:
    """Published figures of other methods: `method`, `accuracy` (%), `nll`, `ece`, `source`.

    To look at, not to compare with: one figure each, with settings of their own.
    """
    facts = _facts()
    return [
        {**row, "source": facts["sources"][row["source"]]}
        for row in facts["context"]
        if row["dataset"] == dataset
    ]


def _facts() -> dict[str, Any]:
    file = importlib.resources.files("lpw_jax.comparison") / "published.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    for row in (*facts["figures"], *facts["context"]):
        if fault := impossible(row):
            raise UserError(f"{file}: {row.get('name') or row.get('method')}: {fault}")
    return facts


def impossible(row: dict[str, Any]) -> str:
    """Why a row's `accuracy` (%), its `std` (points), `nll` and `ece` cannot be; '' if they can."""
    accuracy, std = row["accuracy"], row.get("std") or 0.0
    if not _CHANCE < accuracy <= 100:
        return f"accuracy must be a percentage, above {_CHANCE:g}, chance, found {accuracy:g}"
    if not 0 <= std <= 50:
        return f"std must be 0 to 50 points, found {std:g}"
    return bounds.impossible({**row, "accuracy": accuracy / 100})


def _side(figure: dict[str, Any], sources: dict[str, str]) -> Side:
    fields = settings.shipped(figure["config"]) | figure.get("overrides", {})
    sample = Sample(figure["accuracy"], figure["std"], figure["n"])
    table = figure["table"] and f"{figure['table']}; "
    return Side(
        name=figure["name"],
        kind="published",
        source=table + sources[figure["source"]],
        dataset=fields["data.name"],
        fields=fields,
        measured={"collapsed": {"accuracy": Measured(sample)}},
        remarks=(UNKNOWN_SETTINGS,) if figure.get("settings_unknown") else (),
    )
