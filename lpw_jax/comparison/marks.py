"""What makes a comparison another one than it seems: other data, other settings, and the like."""

import itertools
from typing import Any, NamedTuple

from lpw_jax.comparison import overview, published, settings
from lpw_jax.comparison.sides import Run, Side
from lpw_jax.data import overlap
from lpw_jax.files import environment

_REMARKS = ("note", "ood_note")


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
        if ours.fields[settings.IMPORTED]:
            differing.pop(settings.IMPORTED, None)
            found.append(Mark("imported", "ours: networks that the PyTorch code trained"))
        if differing:
            found.append(Mark("other settings", settings.describe(differing)))
        if coasting:
            described = settings.describe({settings.COASTING: coasting})
            found.append(Mark("other coasting rule", described))
        if published.UNKNOWN_SETTINGS in theirs.remarks:
            found.append(Mark("other settings", f"{theirs.name}: {published.UNKNOWN_SETTINGS}"))
    for side in (ours, theirs):
        skipped = {run.place: _skipped(run) for run in side.runs}
        skipped = {place: number for place, number in skipped.items() if number}
        if skipped:
            detail = "; ".join(f"{place}: {number:,}" for place, number in skipped.items())
            found.append(Mark("skipped images", f"damaged images left out, {detail}"))
    for side in (ours, theirs):
        if seen := {run.place: number for run in side.runs if (number := _seen(run))}:
            detail = "; ".join(f"{place}: {number:,}" for place, number in seen.items())
            found.append(Mark("trained on test images", f"test images in training, {detail}"))
    if changed := _environment_differences(ours, theirs):
        found.append(Mark("other computing settings", changed))
    return found


def setting_differences(ours: Side, theirs: Side) -> dict[str, tuple[Any, Any]]:
    """The settings in which the sides are known to differ, as (ours, theirs)."""
    if theirs.fields is not None and ours.fields is not None:
        return settings.differences(ours.fields, theirs.fields)
    differing = {}
    for name, mine in _pytorch_facts(ours).items():
        other = theirs.runs[0].facts.get(name)
        if other is not None and mine != other:
            differing[name] = (mine, int(other))
    return differing


def nothing_in_common(ours: Side, theirs: Side) -> str:
    """Why the sides cannot be compared at all; '' if they can."""
    if theirs.kind == "pytorch" and ours.dataset not in overview.DATASETS:
        return (
            f"{ours.name} is of {ours.dataset}, and {overview.FILE} of the PyTorch code is of "
            f"{' or '.join(overview.DATASETS)}"
        )
    if theirs.dataset in (None, ours.dataset):
        return ""
    return (
        f"{ours.name} is of {ours.dataset} and {theirs.name} of {theirs.dataset}; only runs on the "
        "same data set are compared"
    )


def _pytorch_facts(side: Side) -> dict[str, int]:
    """What the PyTorch code's file would tell of our runs: it counts the tied copy, too."""
    results = side.runs[0].results
    late = results.num_late_phase_parameters
    shared = results.num_parameters - late
    members = side.fields["late_phase.num_members"]
    return {
        "num_parameters": shared + (members + 1) * late,
        "num_train_epochs": side.fields["train.epochs"],
    }


def _data_marks(ours: Side, theirs: Side) -> list[Mark]:
    notes, outside = ([_remarks(side, key) for side in (ours, theirs)] for key in _REMARKS)
    digests, test_digests, sizes = (
        [_known(side, key) for side in (ours, theirs)]
        for key in ("sha256", "test_sha256", "num_test")
    )
    found = []
    if not _alike(notes) or not (_agree(digests) or _same_test_images(ours, theirs)):
        words = [_words(note, "no remark") for note in notes]
        words[1] = words[1] if theirs.kind == "runs" else "the original data"
        detail = f"ours: {words[0]}; theirs: {words[1]}"
        if _alike(notes):
            detail += "; their images or splits differ (sha256)"
        found.append(Mark("other data", detail))
    elif not _agree(digests):
        detail = "the training images or their split differ (sha256), the test images are the same"
        found.append(Mark("other training images", detail))
    if theirs.kind == "pytorch":
        sizes[1] = {overview.NUM_TEST}
    if not _agree(test_digests) or not _agree(sizes):
        numbers = " and ".join("/".join(map(str, sorted(side))) or "?" for side in sizes)
        found.append(Mark("other test set", f"the test images differ (images: {numbers})"))
    if not _alike(outside):
        words = [_words(note, "all images") for note in outside]
        detail = f"out-of-distribution sets, ours: {words[0]}; theirs: {words[1]}"
        found.append(Mark("other OOD images", detail, only="auroc"))
    return found


def _same_test_images(ours: Side, theirs: Side) -> bool:
    """Whether all runs are known to be tested on the same images, whatever they were trained on."""
    runs = (run for side in (ours, theirs) if side.kind == "runs" for run in side.runs)
    found = {run.results.data.test_sha256 for run in runs}
    return len(found) == 1 and None not in found


def _remarks(side: Side, key: str) -> set[str]:
    """What the runs of a side remark on their data: '' for ordinary data, as others' is."""
    if side.kind != "runs":
        return {""}
    return {getattr(run.results.data, key) or "" for run in side.runs}


def _alike(both: list[set[str]]) -> bool:
    return both[0] == both[1] and len(both[0]) == 1


def _words(remarks: set[str], none: str) -> str:
    return " / ".join(sorted(text.rstrip(".") or none for text in remarks))


def _known(side: Side, key: str) -> set[Any]:
    """What the files of a side's runs tell of their data."""
    found = {getattr(run.results.data, key) for run in side.runs if side.kind == "runs"}
    return found - {None}


def _agree(both: list[set]) -> bool:
    """Whether nothing is known to differ, within a side or between them."""
    one, other = both
    return max(len(one), len(other)) < 2 and (one == other or not (one and other))


def _seen(run: Run) -> int:
    """Test images that are training images, if they are more than original data have."""
    data = run.results and run.results.data
    number = ((data and data.in_training) or {}).get("test", 0)
    return number if data and number > overlap.TOLERATED * (data.num_test or 0) else 0


def _environment_differences(ours: Side, theirs: Side) -> str:
    """In which settings of JAX and XLA the runs were not made alike, as far as they tell."""
    sides = [side.runs for side in (ours, theirs) if side.kind == "runs"]
    told = {}
    for run in itertools.chain(*sides):
        made = run.files and run.files.read_environment()
        if made and made.settings:
            told[run.place] = made
    first, *others = told.items() or [(None, None)]
    for place, here in others:
        # Other versions of JAX have other settings.
        if here.packages.get("jax") == first[1].packages.get("jax") and (
            differing := environment.differences(first[1], here, ("settings",))
        ):
            return f"{place} and {first[0]}: {'; '.join(differing)}"
    return ""


def _skipped(run: Run) -> int:
    """Images that were left out, of training and of what was evaluated on."""
    if run.results is None:  # of the PyTorch code
        return 0
    return (run.results.train.skipped_images or 0) + sum((run.results.data.skipped or {}).values())
