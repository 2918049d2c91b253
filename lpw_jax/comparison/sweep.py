"""Sides that differ in one field: the measured figures over its values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lpw_jax.comparison import marks as marks_lib
from lpw_jax.comparison import settings
from lpw_jax.comparison.quantities import BY_NAME
from lpw_jax.comparison.sides import Measured, Side
from lpw_jax.comparison.statistics import paired_by_seed
from lpw_jax.errors import UserError
from lpw_jax.measures.views import VIEWS

SHOWN = ("accuracy", "nll", "ece")


def sweep(sides: Sequence[Side], base: Side, fields: Sequence[str]) -> dict[str, Any]:
    """Every side's figures and its values of `fields`, in JSON's types.

    Args:
      sides: with `base`; numbers are sorted, words keep this order.
      fields: dotted paths. Several are for what takes more than one, such as a kind of late-phase
        weights.

    Returns:
      fields, base (its name), is_numeric, and `points`: for each side its name, label, value (None
      unless numeric), marks, and rows of view, quantity, mean, standard_error (None of one seed),
      n, and paired, which is `paired_by_seed` of value - base, or None.

    Raises:
      UserError: fewer than two sides, or one that differs from the base in anything else than the
        fields and the seed.
    """
    if len(sides) < 2:
        raise UserError(
            f"--sweep {' '.join(fields)}: needs runs of two values or more, got those of "
            f"{sides[0].name} only"
        )
    for side in sides:
        _check_alike(side, base, fields)
    values = [[side.fields[field] for field in fields] for side in sides]
    is_numeric = len(fields) == 1 and all(_is_number(value) for (value,) in values)
    points = [
        {
            "name": side.name,
            "label": _label(value, side),
            "value": value[0] if is_numeric else None,
            "marks": _marks(side, base),
            "rows": list(_rows(side, base)),
        }
        for side, value in zip(sides, values, strict=True)
    ]
    if is_numeric:
        points.sort(key=lambda point: point["value"])
    return {
        "fields": list(fields),
        "base": base.name,
        "is_numeric": is_numeric,
        "points": points,
    }


def _check_alike(side: Side, base: Side, fields: Sequence[str]) -> None:
    swept = f"--sweep {' '.join(fields)}"
    if reason := marks_lib.nothing_in_common(side, base):
        raise UserError(f"{swept}: {reason}")
    others = {
        name: both
        for name, both in settings.differences(side.fields, base.fields).items()
        if name not in fields and settings.UNUSED not in both
    }
    if others:
        raise UserError(
            f"{swept}: {side.name} must differ from {base.name} in nothing else but the seed; "
            f"it has {settings.describe(others)}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(values: Sequence[Any], side: Side) -> str:
    """The value if it is one number or word; regular expressions are told by the folder's name."""
    (value, *others) = values
    return side.name if others or isinstance(value, list) else str(value)


def _marks(side: Side, base: Side) -> list[str]:
    found = () if side is base else marks_lib.marks(side, base)
    return [f"({mark.label}) {mark.detail}" for mark in found]


def _rows(side: Side, base: Side) -> Iterator[dict[str, Any]]:
    for view in VIEWS:
        for name in SHOWN:
            found, other = side.view(view).get(name), base.view(view).get(name)
            if found is None:
                continue
            paired = None
            if side is not base and other is not None:
                paired = paired_by_seed(_by_seed(found), _by_seed(other))
            sample = found.sample
            yield {
                "view": view,
                "quantity": name,
                "unit": BY_NAME[name].unit,
                "mean": sample.mean,
                "standard_error": None if sample.std is None else sample.std / math.sqrt(sample.n),
                "n": sample.n,
                "paired": paired,
            }


def _by_seed(found: Measured) -> Mapping[int, float]:
    return {seed: value for seed, value in found.values if seed is not None}
