"""Paired comparisons of runs that predicted the same test images, seed by seed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from lpw_jax import registry
from lpw_jax.comparison.paired import (
    bootstrap_auroc_difference,
    bootstrap_mean_difference,
    mcnemar,
)
from lpw_jax.comparison.sides import Run, Side, places
from lpw_jax.errors import UserError
from lpw_jax.measures import agreement, metrics, text, views
from lpw_jax.measures.views import VIEWS

_RESAMPLES = 2000
_AUROC_RESAMPLES = 1000  # about 1 s a set and view at CIFAR's size


def pairs(
    ours: Side, theirs: Side, *, on_pair: Callable[[str], None] = lambda _: None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compares the runs of equal seeds image by image.

    Each row has `seed`, `view`, `quantity`, `difference` (ours - theirs; percentages in points)
    and `p`, of McNemar's test with `only_ours` and `only_theirs` for accuracy, and `low` and `high`
    of the 95 % interval of a paired bootstrap for NLL and AUROC; and `images`, by what these are
    taken for the same: 'digests', or, where both results.json do not have them, 'labels' (and
    number: that is all there is of images outside).

    Returns:
      The rows, and a line for each thing that could not be compared or not be made sure of.
    """
    by_seed = {run.seed: run for run in theirs.runs if run.seed is not None}
    common = [(run, by_seed[run.seed]) for run in ours.runs if run.seed in by_seed]
    if theirs.kind != "runs":
        return [], []  # no predictions to ask for
    if not common:
        return [], [f"no paired comparison of {ours.name} and {theirs.name}: no seed in common"]
    runs = [run for side in zip(*common, strict=True) for run in side]
    without = [run for run in runs if not run.files.has_predictions("test")]
    rows, missing = [], []
    if without:
        missing.append(f"no paired comparison without predictions/test.npz of {places(without)}")
    for mine, other in common:
        if mine in without or other in without:
            continue
        on_pair(f"paired comparison: seed {mine.seed} of {ours.name} and {theirs.name}")
        try:
            found, other_images = _compare(mine, other)
            rows += found
            both = f"{mine.place} and {other.place}"
            missing += [f"no paired comparison of {both} on {name}: its images differ (digest)"
                        for name in other_images]  # fmt: skip
        except ValueError as error:  # UserError, or what no measure can be taken of
            missing.append(f"no paired comparison of {mine.place} and {other.place}: {error}")
    return rows, missing


def _compare(ours: Run, theirs: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and the sets outside of which the runs predicted other images."""
    if registry.data(ours.results.data.name).is_text:
        return list(_compare_texts(ours, theirs)), []
    tests = [_load(run, "test") for run in (ours, theirs)]
    labels = [test["label"] for test in tests]
    digests = [run.results.data.test_sha256 for run in (ours, theirs)]
    same = _equal(digests)
    if not np.array_equal(*labels) or same is False:
        raise UserError("their test images differ")
    for run, test in zip((ours, theirs), tests, strict=True):
        agreement.check_results(f"{run.place}/predictions/test.npz", test, run.results)
    inside_by = "digests" if same else "labels"
    outside, other_images = _outside(ours, theirs)
    single = all(len(run.results.views.members) == 1 for run in (ours, theirs))
    rows = []
    for view in VIEWS[:1] if single else VIEWS:
        row = {"seed": ours.seed, "view": view, "images": inside_by}
        log_probs = [views.log_probs(test, view) for test in tests]
        scores = [metrics.example_scores(p, labels[0]) for p in log_probs]
        if not agreement.in_one_order(*(score["nll"] for score in scores)):
            raise UserError(
                "their test images seem to be in different orders: other images are hard for the "
                "one than for the other"
            )
        found = mcnemar(*(score["correct"] for score in scores))
        rows.append(
            row
            | {
                "quantity": "accuracy",
                "test": "McNemar",
                "difference": 100 * found["difference"],
                "only_ours": found["only_a"],
                "only_theirs": found["only_b"],
                "p": found["p"],
            }
        )
        found = bootstrap_mean_difference(
            *(score["nll"] for score in scores), num_resamples=_RESAMPLES
        )
        rows.append(row | {"quantity": "nll", "test": "paired bootstrap", **found}
                    | {"p_floor": _floor(_RESAMPLES)})  # fmt: skip
        inside = [metrics.predictive_entropy(p) for p in log_probs]
        for name, (both, same) in outside.items():
            away = [metrics.predictive_entropy(views.log_probs(p, view)) for p in both]
            found = bootstrap_auroc_difference(
                inside[0], away[0], inside[1], away[1], num_resamples=_AUROC_RESAMPLES
            )
            found |= {key: 100 * found[key] for key in ("difference", "low", "high")}
            found["images"] = inside_by if same else "labels"
            found["p_floor"] = _floor(_AUROC_RESAMPLES)
            rows.append(row | {"quantity": f"auroc_{name}", "test": "paired bootstrap", **found})
    return rows, other_images


def _compare_texts(ours: Run, theirs: Run) -> Iterator[dict[str, Any]]:
    """Likewise the rows of runs that predicted the same text, sequence by sequence."""
    if not _equal([run.results.data.test_sha256 for run in (ours, theirs)]):
        raise UserError("their test texts differ")
    tests = [_load(run, "test") for run in (ours, theirs)]
    single = all(len(run.results.views.members) == 1 for run in (ours, theirs))
    for view in VIEWS[:1] if single else VIEWS:
        bits = [text.bits(test[view], test["label"]) for test in tests]
        yield {
            "seed": ours.seed,
            "view": view,
            "images": "digests",
            "quantity": "bpc",
            "test": "paired bootstrap",
            **bootstrap_mean_difference(*bits, num_resamples=_RESAMPLES),
            "p_floor": _floor(_RESAMPLES),
        }


def _floor(num_resamples: int) -> float:
    """The smallest p that so many resamples can give."""
    return 2 / (num_resamples + 1)


def _equal(digests: Sequence[str | None]) -> bool | None:
    """Whether two digests are equal; None if one is not known."""
    return None if None in digests else digests[0] == digests[1]


def _outside(
    ours: Run, theirs: Run
) -> tuple[dict[str, tuple[list[dict[str, np.ndarray]], bool | None]], list[str]]:
    """By set that both predicted, the predictions of both and whether digests say it is the same.

    Sets with other images or another number of them are left out; also returns the former.
    """
    found, other_images = {}, []
    for name in ours.results.views.ensemble.ood:
        if not all(run.files.has_predictions(f"ood_{name}") for run in (ours, theirs)):
            continue
        known = (run.results.data.ood_digests or {} for run in (ours, theirs))
        same = _equal([digests.get(name) for digests in known])
        if same is False:
            other_images.append(name)
            continue
        both = [_load(run, f"ood_{name}") for run in (ours, theirs)]
        if len(both[0]["label"]) == len(both[1]["label"]):
            found[name] = both, same
    return found, other_images


def _load(run: Run, name: str) -> dict[str, np.ndarray]:
    return run.files.load_predictions(name, VIEWS, run.results)
