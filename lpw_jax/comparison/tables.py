"""The report as tables with notes: the one form from which terminal, Markdown and HTML are made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lpw_jax.comparison import words
from lpw_jax.comparison.quantities import BY_NAME, POINTS
from lpw_jax.measures.views import VIEWS

MEANS = "Mean ± sample standard deviation (number of seeds)."
_VERDICT_STACKS = ((0, 1), (2, 3), (4,), (5, 6), (8, 7))
_VIEW_ORDER = {view: position for position, view in enumerate(VIEWS)}


class Table(NamedTuple):
    """Cells are text; `align` has 'l' or 'r' for each column; `notes` stand below.

    Where there is little room, the columns of each group in `stacked` are put over one another.
    """

    title: str
    header: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    stacked: Sequence[Sequence[int]] = ()


def comparisons(report: Mapping[str, Any]) -> list[Table]:
    """A sweep, the verdicts of each comparison and, where there are any, paired comparisons."""
    found = [_sweep(report["sweep"])] if "sweep" in report else []
    for comparison in report["comparisons"]:
        found += [_verdicts(comparison), _paired(comparison)]
    return [table for table in found if table.rows or table.notes]


def background(report: Mapping[str, Any]) -> list[Table]:
    """All that was measured, what it cost, and what others published."""
    found = [_results(report["sides"]), _costs(report["sides"])]
    found += [_other_published(*item) for item in report["other_published"].items()]
    return [table for table in found if table.rows]


def how_to_read(report: Mapping[str, Any]) -> list[str]:
    """What the columns mean."""
    margins = [
        f"{width:g} points for percentages" if name == POINTS else f"{width:g} for {name}"
        for name, width in report["margins"].items()
    ]
    alpha = report["alpha"]
    return [
        f"{MEANS} The difference is ours - theirs, with "
        f"its {100 * (1 - alpha):g} % confidence interval (Welch).",
        "Welch p asks whether the means differ; TOST p (two one-sided tests) whether they differ "
        f"by the margin or more. Margins: {', '.join(margins)}; other quantities have none.",
        f"Verdict, the first that holds: no verdict (one seed, or a spread or number of seeds is "
        f"unknown), equivalent (TOST p < {alpha:g}), better or worse (Welch p < {alpha:g}), "
        "undecided, which does not mean equal. What stands in brackets behind it says why the two "
        "are not the same experiment.",
        "Every line is a test of its own, without correction for their number: where nothing "
        f"differs, {100 * alpha:g} % of them say that something does.",
        "Data are recognised by what files say of them: their description and remarks, the numbers "
        "of images and, of two runs, digests. Against published figures there is no digest: a copy "
        "of full size that was changed, say recompressed, passes for the original if its "
        "description or data.note does not say so.",
        "Seeds: how many of ours (between runs: of each) would bring a verdict, if means and "
        "spreads stay as they are.",
    ]


def remaining(report: Mapping[str, Any]) -> list[str]:
    """What was named but is in no table, and why."""
    return [*report["left_out"], *report["not_compared"]]


def _sweep(found: Mapping[str, Any]) -> Table:
    rows = []
    for point in found["points"]:
        label = point["label"] + (" (base)" if point["name"] == found["base"] else "")
        for row in point["rows"]:
            places, paired = words.places(row["quantity"]), row["paired"]
            mean = {**row, "std": row["standard_error"]}
            rows.append(
                (
                    label,
                    row["view"],
                    words.label(row["quantity"]),
                    words.sample(mean, places),
                    words.difference(paired, places) if paired else words.NOTHING,
                    words.p_value(paired["p"]) if paired else words.NOTHING,
                    str(paired["n"]) if paired else words.NOTHING,
                )
            )
    notes = [
        "Mean ± standard error (number of seeds). Paired: runs with the same seed, value - base, "
        "their mean difference with its 95 % interval and p (Student), over so many seeds. Every "
        "line is a test of its own.",
        *(f"{point['label']}: {mark}" for point in found["points"] for mark in point["marks"]),
    ]
    header = ("value", "view", "quantity", "mean", "paired difference", "p", "seeds")
    stacked = ((0, 1), (2, 3), (4,), (5, 6))
    return Table(f"Sweep of {', '.join(found['fields'])}", header, "lllrrrr", rows, notes, stacked)


def _verdicts(comparison: Mapping[str, Any]) -> Table:
    rows = []
    for row in comparison["rows"]:
        places = words.places(row["quantity"])
        rows.append(
            (
                row["view"],
                words.label(row["quantity"]),
                words.sample(row["theirs"], places),
                words.sample(row["ours"], places),
                words.difference(row, places),
                words.p_value(row["welch_p"]),
                words.p_value(row["tost_p"]),
                row["shown"],
                words.seeds(row),
            )
        )
    other = "baseline" if comparison["kind"] == "runs" else "theirs"
    header = ("view", "quantity", other, "ours", "difference", "Welch p", "TOST p", "verdict",
              "seeds")  # fmt: skip
    notes = [*_notes(comparison)]
    if not rows:
        notes.append("they have no quantity in common")
    return Table(words.title(comparison), header, "llrrrrrlr", rows, notes, _VERDICT_STACKS)


def _notes(comparison: Mapping[str, Any]) -> Iterator[str]:
    other = "baseline" if comparison["kind"] == "runs" else "theirs"
    yield f"{other}: {comparison['source']}"
    for mark in comparison["marks"]:
        yield f"({mark['label']}) {mark['detail']}"
    if comparison["kind"] == "runs" and comparison["differing_settings"]:
        found = comparison["differing_settings"].items()
        fields = (f"{name} = {both['ours']!r}, not {both['theirs']!r}" for name, both in found)
        yield f"settings that differ, ours and theirs: {'; '.join(fields)}"
    yield from comparison["remarks"]
    reasons: dict[str, None] = {}
    for row in comparison["rows"]:
        if row["verdict"] == "no verdict":
            reasons[f"no verdict: {row['reason']}"] = None
        elif row["verdict"] == "equivalent" and row["significant"]:
            name = f"{row['view']} {BY_NAME[row['quantity']].label}"
            reasons[f"{name}, equivalent: {row['reason']}"] = None
    yield from reasons
    yield from comparison["paired_missing"]


def _paired(comparison: Mapping[str, Any]) -> Table:
    rows = []
    order = {name: position for position, name in enumerate(BY_NAME)}
    for row in sorted(
        comparison["paired"], key=lambda r: (_VIEW_ORDER[r["view"]], order[r["quantity"]])
    ):
        counts = words.NOTHING
        if "only_ours" in row:
            counts = f"{row['only_ours']} / {row['only_theirs']}"
        places = words.places(row["quantity"])
        rows.append(
            (
                row["view"],
                words.label(row["quantity"]),
                str(row["seed"]),
                words.difference(row, places),
                counts,
                words.p_value(row["p"], row.get("p_floor", 0.0)),
                f"{row['test']} ({row['marks']})" if row["marks"] else row["test"],
            )
        )
    header = ("view", "quantity", "seed", "difference", "only ours / theirs", "p", "test")
    notes = (
        "Each line is one trained network against one other on the same test images; it says "
        "nothing about other seeds. Interval and p of paired bootstraps are over images.",
        *_not_made_sure(comparison["paired"]),
    )
    title = f"{words.title(comparison)}, image by image"
    stacked = ((0, 1), (2, 4), (3,), (6, 5))
    return Table(title, header, "llrrrrl", rows, notes if rows else (), stacked)


def _not_made_sure(paired: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Which images are taken for the same without a digest that says so."""
    by_labels = [row for row in paired if row["images"] == "labels"]
    outside = [row for row in by_labels if row["quantity"].startswith("auroc")]
    inside = [row for row in by_labels if row not in outside]
    if inside:
        seeds = ", ".join(dict.fromkeys(str(row["seed"]) for row in inside))
        yield (
            f"seed {seeds}: only the labels of the test images could be compared, as not both "
            "results have data.test_sha256"
        )
    if outside:
        sets = ", ".join(dict.fromkeys(row["quantity"].removeprefix("auroc_") for row in outside))
        yield (
            f"{sets}: only the number of images outside and the labels of the test images could "
            "be compared where not both results have data.test_sha256 and data.ood_digests"
        )


def _results(sides: Sequence[Mapping[str, Any]]) -> Table:
    """Everything measured; columns that no side has are left out."""
    measured = [
        (side, view, found)
        for side in sides
        for view, found in side["measured"].items()
        if not _is_repeated(side, view)
    ]
    columns = [name for name in BY_NAME if any(name in found for *_, found in measured)]
    rows = [
        (side["name"], view, *(words.sample(found.get(n), words.places(n)) for n in columns))
        for side, view, found in measured
    ]
    header = ("run", "view", *(words.label(name) for name in columns))
    height = 2 if len(header) <= 8 else 3
    notes: dict[str, list[str]] = {}
    for side in sides:
        if side["note"]:
            notes.setdefault(side["note"], []).append(side["name"])
    return Table(
        "All that was measured",
        header,
        "ll" + "r" * len(columns),
        rows,
        [f"{', '.join(names)}: {note}" for note, names in notes.items()],
        [(0, 1), *(range(len(header))[i : i + height] for i in range(2, len(header), height))],
    )


def _is_repeated(side: Mapping[str, Any], view: str) -> bool:
    """A single network is its own ensemble."""
    passes = side["cost"]["forward_passes"] or {}
    return view != VIEWS[0] and passes.get(view) == 1


def _costs(sides: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for side in sides:
        cost = side["cost"]
        for view, passes in (cost["forward_passes"] or {}).items():
            if _is_repeated(side, view):
                continue
            rows.append(
                (
                    side["name"],
                    view,
                    cost["network"],
                    words.count(cost["num_parameters"]),
                    words.count(passes),
                    words.count(cost["images_per_second"]),
                    words.hours(cost["device_hours"]),
                    cost["device_kind"] or words.NOTHING,
                    words.megabytes(cost["peak_memory_bytes"]),
                )
            )
    header = ("run", "view", "network", "parameters", "forward passes", "training images/s",
              "device hours", "device", "peak memory")  # fmt: skip
    notes = (
        "Parameters are those of one network that predicts, in a deep ensemble the mean of its "
        "runs (with all members' weights if they take part as ensembles); forward passes are for "
        "one prediction; device hours are those of a training, of a deep ensemble the sum over its "
        "networks.",
    )
    stacked = ((0, 1), (2, 3), (4, 5), (6, 8), (7,))
    return Table("Cost", header, "lllrrrrlr", rows, notes if rows else (), stacked)


def _other_published(dataset: str, found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            row["method"],
            words.number(row["accuracy"], 2),
            words.number(row["nll"], 3),
            words.number(row["ece"], 4),
            row["source"],
        )
        for row in found
    ]
    header = ("method", "accuracy, %", "NLL", "ECE", "source")
    notes = ("To look at only: other settings, and no spread is known.",)
    return Table(f"Other methods as published, {dataset}", header, "lrrrl", rows, notes)
