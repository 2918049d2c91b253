"""Compares sides with sides: the report that every output shows, in JSON's types."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lpw_jax.comparison import marks as marks_lib
from lpw_jax.comparison import overview, predictions, published, settings
from lpw_jax.comparison.cost import cost
from lpw_jax.comparison.quantities import QUANTITIES, Quantity, margin
from lpw_jax.comparison.sides import Measured, Side
from lpw_jax.comparison.statistics import compare
from lpw_jax.comparison.sweep import sweep
from lpw_jax.errors import UserError
from lpw_jax.measures.views import VIEWS

ALPHA = 0.05


def against(
    ours: Sequence[Side],
    theirs: Sequence[Side],
    *,
    margins: Mapping[str, float],
    left_out: Sequence[str] = (),
    on_pair: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Each of our sides beside the one of theirs that it is nearest to.

    The nearest has the same data set, the same method (released or not, SWA or not), the fewest
    differing settings and, if that leaves several, the same name.

    Raises:
      UserError: no side of ours has anything in common with any of theirs.
    """
    both, not_compared = [], []
    for side in ours:
        possible = [other for other in theirs if not marks_lib.nothing_in_common(side, other)]
        if possible:
            both.append((side, min(possible, key=lambda other: _distance(side, other))))
        else:
            known = (other.dataset or " or ".join(overview.DATASETS) for other in theirs)
            datasets = ", ".join(dict.fromkeys(known))
            not_compared.append(
                f"{side.name} is of {side.dataset}, and there is nothing of that to compare with, "
                f"only of {datasets}"
            )
    if not both:
        raise UserError("nothing can be compared: " + "; ".join(not_compared))
    for other in theirs:
        if other.runs and not any(other is used for used in _used(both)):
            not_compared.append(
                f"{other.name} ({other.source}) is beside none of ours: each has one nearest side; "
                "seeds of one side are folders that differ in a number only, as seed0, seed1"
            )
    return _report(both, margins, [*left_out], not_compared, on_pair, [*ours, *_used(both)])


def among(
    sides: Sequence[Side],
    *,
    baseline: str | None,
    margins: Mapping[str, float],
    left_out: Sequence[str] = (),
    on_pair: Callable[[str], None] = lambda _: None,
    swept: Sequence[str] = (),
) -> dict[str, Any]:
    """Every other side beside the `baseline`, by default the first one.

    With `swept` fields the report has their `sweep`, too.

    Raises:
      UserError: there is no such baseline, or no side has anything in common with it; sides differ
        in more than the `swept` fields.
    """
    names = [side.name for side in sides]
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: must be one of {', '.join(names)}")
    base = sides[names.index(baseline) if baseline else 0]
    over_values = {"sweep": sweep(sides, base, swept)} if swept else {}
    others = [side for side in sides if side is not base]
    reasons = {side.name: marks_lib.nothing_in_common(side, base) for side in others}
    not_compared = [reason for reason in reasons.values() if reason]
    both = [(side, base) for side in others if not reasons[side.name]]
    if others and not both:
        raise UserError("nothing can be compared: " + "; ".join(not_compared))
    found = _report(both, margins, [*left_out], not_compared, on_pair, [base, *others])
    return found | over_values


def _distance(ours: Side, theirs: Side) -> tuple[Any, ...]:
    other_method = theirs.fields is not None and not settings.same_method(
        ours.fields, theirs.fields
    )
    differing = len(marks_lib.setting_differences(ours, theirs))
    unknown = published.UNKNOWN_SETTINGS in theirs.remarks
    return other_method, differing, unknown, not theirs.name.endswith(ours.name)


def _used(both: Sequence[tuple[Side, Side]]) -> list[Side]:
    """Sides of theirs that have runs, each once."""
    found = []
    for _, theirs in both:
        if theirs.runs and not any(theirs is other for other in found):
            found.append(theirs)
    return found


def _report(
    both: Sequence[tuple[Side, Side]],
    margins: Mapping[str, float],
    left_out: list[str],
    not_compared: list[str],
    on_pair: Callable[[str], None],
    sides: Sequence[Side],
) -> dict[str, Any]:
    datasets = dict.fromkeys(ours.dataset for ours, theirs in both if theirs.kind == "published")
    return {
        "alpha": ALPHA,
        "margins": dict(margins),
        "comparisons": [_comparison(*pair, margins, on_pair) for pair in both],
        "sides": [_described(side) for side in sides],
        "other_published": {
            dataset: rows for dataset in datasets if (rows := published.context(dataset))
        },
        "left_out": left_out,
        "not_compared": not_compared,
    }


def _comparison(
    ours: Side,
    theirs: Side,
    margins: Mapping[str, float],
    on_pair: Callable[[str], None],
) -> dict[str, Any]:
    marks = [
        mark
        for mark in marks_lib.marks(ours, theirs)
        if any(name.startswith(mark.only) for name in _shared_quantities(ours, theirs))
    ]
    differing = marks_lib.setting_differences(ours, theirs)
    paired, missing = predictions.pairs(ours, theirs, on_pair=on_pair)
    return {
        "ours": ours.name,
        "theirs": theirs.name,
        "kind": theirs.kind,
        "source": theirs.source,
        "dataset": ours.dataset,
        "marks": [mark._asdict() for mark in marks],
        "differing_settings": {
            name: {"ours": mine, "theirs": other} for name, (mine, other) in differing.items()
        },
        "remarks": [
            *(f"theirs: {remark}" for remark in theirs.remarks),
            *(f"ours: {remark}" for remark in ours.remarks),
        ],
        "rows": [
            _row(quantity, view, ours, theirs, margins, marks)
            for view in _views(ours, theirs)
            for quantity in QUANTITIES
            if all(quantity.name in side.view(view) for side in (ours, theirs))
        ],
        "paired": [{**row, "marks": _touching(marks, row["quantity"])} for row in paired],
        "paired_missing": missing,
    }


def _shared_quantities(ours: Side, theirs: Side) -> set[str]:
    return {name for view in VIEWS for name in ours.view(view) if name in theirs.view(view)}


def _views(ours: Side, theirs: Side) -> Sequence[str]:
    """Both views, unless neither side's differ: single networks have one, deep ensembles, too."""
    sides = [side for side in (ours, theirs) if side.kind == "runs"]
    deep = any(side.fields["networks"] > 1 for side in sides)
    if all(_has_one_view(side) for side in sides):
        return VIEWS[1:] if deep and len(sides) == 2 else VIEWS[:1]
    return VIEWS


def _has_one_view(side: Side) -> bool:
    members = {len(run.results.views.members) for run in side.runs}
    return members == {1} or side.fields["networks"] > 1


def _row(
    quantity: Quantity,
    view: str,
    ours: Side,
    theirs: Side,
    margins: Mapping[str, float],
    marks: Sequence[marks_lib.Mark],
) -> dict[str, Any]:
    mine, other = ours.view(view)[quantity.name], theirs.view(view)[quantity.name]
    width = margin(quantity, margins)
    found = compare(
        mine.sample,
        other.sample,
        margin=width,
        higher_is_better=quantity.higher_is_better,
        alpha=ALPHA,
        both_grow=theirs.kind == "runs",
    )
    labels = _touching(marks, quantity.name)
    return {
        "view": view,
        "quantity": quantity.name,
        "unit": quantity.unit,
        "theirs": _sample(other),
        "ours": _sample(mine),
        "margin": width,
        **dataclasses.asdict(found),
        "marks": labels,
        "shown": f"{found.verdict} ({labels})" if labels else found.verdict,
    }


def _touching(marks: Sequence[marks_lib.Mark], quantity: str) -> str:
    """The labels of the marks that touch a quantity, each once."""
    labels = (mark.label for mark in marks if quantity.startswith(mark.only))
    return ", ".join(dict.fromkeys(labels))


def _described(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "kind": side.kind,
        "dataset": side.dataset,
        "note": " / ".join(
            dict.fromkeys(
                run.results.data.note
                for run in side.runs
                if side.kind == "runs" and run.results.data.note
            )
        ),
        "runs": [{"place": run.place, "seed": run.seed} for run in side.runs],
        "measured": {
            view: {name: _sample(measured) for name, measured in found.items()}
            for view, found in side.measured.items()
        },
        "cost": cost(side),
    }


def _sample(measured: Measured) -> dict[str, Any]:
    return {
        **dataclasses.asdict(measured.sample),
        "values": [{"seed": seed, "value": value} for seed, value in measured.values],
    }
