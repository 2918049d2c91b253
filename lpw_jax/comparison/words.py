"""Numbers and findings as readers see them."""

from collections.abc import Mapping
from typing import Any

from lpw_jax.comparison.quantities import BY_NAME
from lpw_jax.comparison.statistics import MAX_SEEDS

NOTHING = "-"
_NO_SEEDS = {
    "decided": NOTHING,
    "none": "none can",
    "too many": f"> {MAX_SEEDS}",
    "unknown": "unknown",
}


def number(value: float | None, places: int) -> str:
    """'96.46', or '-' for None; never '-0.00'."""
    if value is None:
        return NOTHING
    return f"{round(value, places) + 0.0:.{places}f}"


def sample(found: Mapping[str, Any] | None, places: int) -> str:
    """'96.46 ± 0.15 (5)': mean, standard deviation and number of seeds."""
    if found is None:
        return NOTHING
    spread = "" if found["std"] is None else f" ± {number(found['std'], places)}"
    seeds = "n unknown" if found["n"] is None else found["n"]
    return f"{number(found['mean'], places)}{spread} ({seeds})"


def difference(row: Mapping[str, Any], places: int) -> str:
    """'+0.12 [-0.10, +0.34]'."""
    text = signed(row["difference"], places)
    if row.get("low") is not None:
        text += f" [{signed(row['low'], places)}, {signed(row['high'], places)}]"
    return text


def signed(value: float, places: int) -> str:
    """With its sign, unless it is 0."""
    text = number(value, places)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def p_value(value: float | None, floor: float = 0.0) -> str:
    """Two digits; what is smaller than 0.0001 or than a test's `floor` is not told."""
    if value is None:
        return NOTHING
    if value <= floor:
        return f"< {floor:.1g}"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def seeds(row: Mapping[str, Any]) -> str:
    """How many seeds of ours would bring a verdict, in a cell."""
    status = row["seeds_status"]
    return str(row["seeds_to_decide"]) if status == "found" else _NO_SEEDS[status]


def label(quantity: str) -> str:
    """The quantity's label: 'accuracy, %'."""
    return BY_NAME[quantity].label


def places(quantity: str) -> int:
    """Decimal places of the quantity."""
    return BY_NAME[quantity].places


def megabytes(value: int | None) -> str:
    """Bytes as '1,234 MB'."""
    return NOTHING if value is None else f"{value / 1e6:,.0f} MB"


def count(value: float | None) -> str:
    """'36,502,394'."""
    return NOTHING if value is None else f"{value:,.0f}"


def hours(value: float | None) -> str:
    """Three digits: 0.00703, 12.3."""
    return NOTHING if value is None else f"{value:.3g}"


def title(comparison: Mapping[str, Any]) -> str:
    """What is compared with what: 'cifar10_bn against cifar10_bn (published)'."""
    kind = {"published": " (published)", "pytorch": "", "runs": ""}[comparison["kind"]]
    return f"{comparison['ours']} against {comparison['theirs']}{kind}"
