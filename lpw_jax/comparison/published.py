"""The published figures, with the source of each and the config whose settings made it."""

import importlib.resources
import json
from typing import Any

from lpw_jax.comparison import settings
from lpw_jax.comparison.sides import Measured, Side
from lpw_jax.comparison.statistics import Sample

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
    return json.loads(file.read_text(encoding="utf-8"))


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
