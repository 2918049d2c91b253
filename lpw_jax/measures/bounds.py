"""What measures of predictions can be, alone and together: others are in another unit, or wrong.

With C classes, accuracy a, and p the probability of an image's true class: a wrong prediction has
p <= 1/2 (of two classes one at least is as probable as the mean of both) and, outside the top
five, p <= 1/6, so that NLL >= (1 - a) ln 2 and so on. Its squared error is at least 1/2, and at
most 2; that of a right one at most 1 - 1/C. A squared error is at most 2 (1 - p)^2, and
(1 - e^-x)^2 <= 0.4074 x. That of the largest probability alone, at least ECE^2 on average (Jensen),
has as much again, spread over the other classes. All of these hold of means over runs, too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ROUNDED = 1e-4  # figures may have been rounded to so many places
# Areas are sums, and probabilities are rounded: figures may be out of range by so much.
_BEYOND = {"nll": 1e-3, "ece": 1e-3}
_SUMMED = 1e-9
_SEPARATION = ("auroc", "aupr_in", "aupr_out", "fpr95")
_FRACTIONS = ("accuracy", "top5_accuracy", "ece", "ood_mean_auroc", "disagreement", *_SEPARATION)
_RANGES = dict.fromkeys(_FRACTIONS, (0.0, 1.0)) | {
    "nll": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "mutual_information": (-_ROUNDED, math.inf),
    "temperature": (0.0, math.inf),
}
_SQUARED_ERROR_PER_NLL = 2 * 0.4074


def impossible(found: Mapping[str, Any], num_classes: int | None = None) -> str:
    """Why figures cannot all be of the same predictions; '' if they can.

    Args:
      found: perhaps `accuracy`, `top5_accuracy` and `ece`, fractions, `nll`, a mean in nats,
        `brier`, summed over classes, and others of a view of results.json; None is unknown.
      num_classes: C, if it is known.
    """
    known = {name: found[name] for name in _RANGES if found.get(name) is not None}
    for name, value in known.items():
        low, high = _RANGES[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            return f"{name} must be a finite number, found {value!r}"
        beyond = _BEYOND.get(name, _SUMMED)
        if not low - beyond <= value <= high + beyond:
            percent = f" (as a percentage that is {value / 100:g})" if 1 < value <= 100 else ""
            hint = percent if name in _FRACTIONS else ""
            return f"{name} must be {low:g} to {high:g}, found {value:g}{hint}"
    for rule, least, name in _at_least(known, num_classes):
        if known[name] < least - _ROUNDED:
            return f"{name} must be at least {least:.4g}, {rule}, found {known[name]:g}"
    for rule, largest, name in _at_most(known, num_classes):
        if known[name] > largest + _ROUNDED:
            return f"{name} must be at most {largest:.4g}, {rule}, found {known[name]:g}"
    return ""


def impossible_views(views: Mapping[str, Any], num_classes: int | None = None) -> str:
    """Likewise of `views` of results.json; an ensemble's errors are at most its members' means."""
    members = [member for member in views.get("members") or () if member]
    single = {name: view for name, view in views.items() if name != "members" and view}
    single |= {f"members[{k}]": member for k, member in enumerate(members)}
    for name, figures in (part for item in single.items() for part in _parts(*item)):
        if fault := impossible(figures, num_classes):
            return f"{name}: {fault}"
    for name in ("nll", "brier"):
        values = [member.get(name) for member in members]
        pooled = (views.get("ensemble") or {}).get(name)
        if values and None not in (pooled, *values):
            mean = math.fsum(values) / len(values)
            if pooled > mean + _ROUNDED:
                rule = f"must be at most {mean:.4g}, the mean of the members (Jensen)"
                return f"ensemble: {name} {rule}, found {pooled:g}"
    return ""


def _parts(name: str, view: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The figures of a view, and by name those of other predictions or scores that are in it."""
    yield name, view
    if scaled := view.get("temperature_scaled"):
        yield f"{name}.temperature_scaled", {**scaled, "accuracy": view.get("accuracy")}
    for outside, scores in (view.get("ood") or {}).items():
        plain = {key: value for key, value in (scores or {}).items() if key in _SEPARATION}
        yield f"{name}.ood.{outside}", plain
        for score in (scores or {}).keys() - plain.keys():
            yield f"{name}.ood.{outside}.{score}", scores[score] or {}


def impossible_results(results: Mapping[str, Any]) -> str:
    """Likewise of results.json, in JSON's types."""
    classes = results["data"]["num_classes"]
    for part in ("validation", "views"):
        if fault := impossible_views(results.get(part) or {}, classes):
            return f"{part}.{fault}"
    return ""


def _at_least(known: Mapping[str, float], classes: int | None) -> Iterator[tuple[str, float, str]]:
    """Rule, bound and the name of the figure that it is of."""
    accuracy = known.get("accuracy")
    if accuracy is not None:
        wrong = f"what wrong predictions have at accuracy {accuracy:g}"
        if "top5_accuracy" in known:
            yield "the accuracy", accuracy, "top5_accuracy"
        if "nll" in known:
            top5 = known.get("top5_accuracy", 1.0)
            yield wrong, (top5 - accuracy) * math.log(2) + (1 - top5) * math.log(6), "nll"
        if "brier" in known:
            yield wrong, (1 - accuracy) / 2, "brier"
        if "ece" in known and classes:
            rule = f"as no confidence is below 1 / {classes}"
            yield rule, 1 / classes - accuracy, "ece"
    if "nll" in known:
        for name, squared in _squared_errors(known):
            yield f"by the {name} of {known[name]:g}", squared / _SQUARED_ERROR_PER_NLL, "nll"


def _at_most(known: Mapping[str, float], classes: int | None) -> Iterator[tuple[str, float, str]]:
    accuracy = known.get("accuracy")
    if accuracy is not None:
        rule = f"at accuracy {accuracy:g}"
        if "brier" in known:
            right = 1 - 1 / classes if classes else 1
            yield rule, 2 * (1 - accuracy) + accuracy * right, "brier"
        if "ece" in known and classes:
            yield rule, 1 - accuracy / classes, "ece"
        if "nll" in known and classes and accuracy == 1:
            yield rule, math.log(classes), "nll"
    if "ece" in known and "brier" in known:
        others = (classes - 1) / classes if classes else 1
        yield f"by the brier of {known['brier']:g}", math.sqrt(known["brier"] * others), "ece"


def _squared_errors(known: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    squares = (("brier", known.get("brier")), ("ece", known.get("ece", 0.0) ** 2))
    return [(name, value) for name, value in squares if name in known]
