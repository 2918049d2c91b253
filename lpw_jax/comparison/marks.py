"""What makes a comparison another one than it seems: other data, other settings, and the like."""

from typing import Any, NamedTuple

from lpw_jax.comparison import overview, published, settings
from lpw_jax.comparison.sides import Side


class Mark(NamedTuple):
    """A mark behind every verdict that it touches.

    Attributes:
      label: as in 'undecided (other data)'.
      detail: the footnote.
      only: prefix of the names of the quantities that it touches; '' for all.
    """

    label: str
    detail: str
    only: str = ""


def marks(ours: Side, theirs: Side) -> list[Mark]:
    """Why `ours` may not be compared with `theirs` as if they were the same experiment.

    Published figures and those of the PyTorch code are of the original data and of the settings of
    their config. Of two sides of our runs differing settings are what is compared: they stand in
    `setting_differences`, and only data and test images are marked.
    """
    found = _data_marks(ours, theirs)
    differing = setting_differences(ours, theirs)
    if theirs.kind != "runs":
        coasting = differing.pop(settings.COASTING, None)
        if differing:
            found.append(Mark("other settings", settings.describe(differing)))
        if coasting:
            described = settings.describe({settings.COASTING: coasting})
            found.append(Mark("other coasting rule", described))
        if published.UNKNOWN_SETTINGS in theirs.remarks:
            found.append(Mark("other settings", f"{theirs.name}: {published.UNKNOWN_SETTINGS}"))
    for side in (ours, theirs):
        skipped = {run.place: _train(run.results).get("skipped_images") for run in side.runs}
        skipped = {place: number for place, number in skipped.items() if number}
        if skipped:
            detail = "; ".join(f"{place}: {number:,}" for place, number in skipped.items())
            found.append(Mark("skipped images", f"damaged training images skipped, {detail}"))
    return found


def setting_differences(ours: Side, theirs: Side) -> dict[str, tuple[Any, Any]]:
    """The settings in which the sides are known to differ, as (ours, theirs)."""
    if theirs.fields is not None and ours.fields is not None:
        return settings.differences(ours.fields, theirs.fields)
    differing = {}
    for name, mine in _pytorch_facts(ours).items():
        other = theirs.runs[0].results.get(name)
        if other is not None and mine != other:
            differing[name] = (mine, int(other))
    return differing


def nothing_in_common(ours: Side, theirs: Side) -> str:
    """Why the sides cannot be compared at all; '' if they can."""
    if theirs.dataset in (None, ours.dataset):
        return ""
    return (
        f"{ours.name} is of {ours.dataset} and {theirs.name} of {theirs.dataset}; only runs on the "
        "same data set are compared"
    )


def _pytorch_facts(side: Side) -> dict[str, int]:
    """What the PyTorch code's file would tell of our runs: it counts the tied copy, too."""
    results = side.runs[0].results
    late = results["num_late_phase_parameters"]
    shared = results["num_parameters"] - late
    members = side.fields["late_phase.num_members"]
    return {
        "num_parameters": shared + (members + 1) * late,
        "num_train_epochs": side.fields["train.epochs"],
    }


def _data_marks(ours: Side, theirs: Side) -> list[Mark]:
    notes, outside, digests, test_digests, sizes = (
        [_of_data(side, key) for side in (ours, theirs)]
        for key in ("note", "ood_note", "sha256", "test_sha256", "num_test")
    )
    found = []
    if theirs.kind == "runs":
        original = notes[0] == notes[1] and (_agree(digests) or _agree(test_digests, known=True))
        where = "ours: {}; theirs: {}"
    else:
        original = not any(notes[0]) and len(digests[0]) < 2
        where = "ours: {}; theirs: the original data"
    if not original:
        words = [
            " / ".join(sorted(text.rstrip(".") for text in note)) or "no remark" for note in notes
        ]
        detail = where.format(*words)
        if notes[0] == notes[1] or not any(notes[0]):
            detail += "; their images or splits differ (sha256)"
        found.append(Mark("other data", detail))
    if theirs.kind == "pytorch":
        sizes[1] = {overview.NUM_TEST}
    if not _agree(test_digests) or not _agree(sizes):
        numbers = " and ".join("/".join(map(str, sorted(side))) or "?" for side in sizes)
        found.append(Mark("other test set", f"the test images differ (images: {numbers})"))
    if outside[0] != outside[1]:
        words = [" / ".join(sorted(note)) or "all images" for note in outside]
        detail = f"out-of-distribution sets, ours: {words[0]}; theirs: {words[1]}"
        found.append(Mark("other OOD images", detail, only="auroc"))
    return found


def _of_data(side: Side, key: str) -> set[Any]:
    """What the runs of a side say of their data; '' and nothing alike."""
    found = {run.results.get("data", {}).get(key) for run in side.runs if side.kind == "runs"}
    return found - {None, ""}


def _agree(both: list[set], *, known: bool = False) -> bool:
    """Whether nothing is known to differ; with `known`, whether it is known."""
    one, other = both
    return one == other and len(one) == 1 if known else len(one | other) < 2 or not (one and other)


def _train(results: Any) -> dict[str, Any]:
    return results.get("train") or {} if "config" in results else {}
