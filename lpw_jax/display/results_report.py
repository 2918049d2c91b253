"""The results of a run as a table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lpw_jax import registry
from lpw_jax.display import console
from lpw_jax.display.console import accuracies
from lpw_jax.measures.views import VIEWS
from lpw_jax.plain_text import visible

# Metric, its header, its decimal places; accuracies are shown in percent.
_COLUMNS = (
    ("accuracy", "acc\n%", 2),
    ("top5_accuracy", "top-5\n%", 2),
    ("nll", "\nNLL", 4),
    ("brier", "\nBrier", 4),
    ("ece", "\nECE", 4),
)


def network_name(model: Mapping[str, Any]) -> str:
    """Of a config's section `model`: 'WRN-28-10', or its name."""
    return registry.network(model["name"]).title.format(**model)


def pretrained_line(found: Mapping[str, Any]) -> str:
    """How good pretrained weights are here, beside what torchvision states for its own.

    Args:
        found: `model`, `accuracy`, `published_accuracy` (fractions) and whether these are the
            `published` weights.
    """
    which = "these are its weights" if found["published"] else "these are other weights"
    return (
        f"pretrained {found['model']}: test {accuracies(found)}; torchvision states "
        f"{100 * found['published_accuracy']:.3f} % for its own, and {which}"
    )


def say(results: Mapping[str, Any]) -> None:
    """Prints the final table, and what else a finished run has to tell."""
    with console.optional("the results cannot be shown"):
        console.say(results_table(results))
        if results.get("pretrained"):
            console.say(pretrained_line(results["pretrained"]))
        if results.get("best_epoch"):
            console.say(best_line(results["best_epoch"]))


def best_line(best: Mapping[str, Any]) -> str:
    """How good the best epoch was, and why it is not the result; `best` has `epoch`, `views`."""
    return (
        f"best epoch {best['epoch']}: collapsed {accuracies(best['views']['collapsed'])}; the test "
        "set chose it, so that the table's last epoch is the result"
    )


def results_table(results: Mapping[str, Any]) -> Table:
    """Final table of the three views: collapsed, ensemble, members (mean and sample deviation).

    Args:
        results: `data.{name,note}` and `views.{collapsed,ensemble,members}` of `results.json`.
            What is missing or null there (an OOD set, its mean) is shown as `-`, a view that is
            null not at all; how members differ and temperatures stand below, if they are there.
    """
    views = results["views"]
    # A deep ensemble has no collapsed network.
    collapsed, ensemble, members = views["collapsed"] or {}, views["ensemble"], views["members"]
    ood_sets = list(dict.fromkeys([*collapsed.get("ood", {}), *ensemble.get("ood", {})]))
    if not any([*collapsed.get("ood", {}).values(), *ensemble.get("ood", {}).values()]):
        ood_sets = []  # they would all be dashes
    data = results["data"]
    told = filter(None, [data.get("note"), data.get("ood_note"), _skipped(data)])
    notes = "; ".join(told).replace(".; ", "; ")
    note = f": {notes}" if notes else ""

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,  # the columns' minimal widths leave the gaps: four OOD sets fit in 80 columns
        show_edge=False,
        caption=Text(visible("\n".join([f"Test set of {data['name']}{note}", *_measures(views)]))),
        caption_justify="left",
    )
    table.add_column("\nview", no_wrap=True)
    columns = [column for column in _COLUMNS if column[0] in ensemble]
    for _, header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True, min_width=7)
    auroc_columns = [*ood_sets, "mean"] if ood_sets else []
    for name in auroc_columns:
        table.add_column(Text(f"AUROC\n{name}"), justify="right", overflow="fold", min_width=6)

    for name, view in (("collapsed", collapsed), ("ensemble", ensemble)):
        if not view:
            continue
        sets = [view.get("ood", {}).get(ood_set) or {} for ood_set in ood_sets]
        aurocs = [*(ood.get("auroc") for ood in sets), view.get("ood_mean_auroc")]
        cells = [_decimal(auroc, 3) for auroc in aurocs[: len(auroc_columns)]]
        table.add_row(name, *_result_cells(view, columns), *cells)
    for name, statistic, least in (("mean", statistics.mean, 1), ("std", statistics.stdev, 2)):
        view = _over_members(members, statistic, columns) if len(members) >= least else {}
        cells = _result_cells(view, columns)
        table.add_row(f"member {name}", *cells, *["-" for _ in auroc_columns])
    return table


def _skipped(data: Mapping[str, Any]) -> str:
    """Which images were left out of an evaluation (`data.skip_corrupt`), in words."""
    counts = (data.get("skipped") or {}).items()
    return ", ".join(f"{n} {name} images left out as corrupt" for name, n in counts if n)


def _measures(views: Mapping[str, Any]) -> list[str]:
    """A line on how the members differ and one on temperatures, if these were measured."""
    lines, ensemble = [], views["ensemble"]
    if ensemble.get("disagreement") is not None:
        lines.append(
            f"Two members disagree on {100 * ensemble['disagreement']:.2f} % of the images; "
            f"mutual information {ensemble['mutual_information']:.4f} nats"
        )
    calibrated = [
        f"{name} T = {found['temperature']:.3f}, NLL {found['nll']:.4f}, ECE {found['ece']:.4f}"
        for name in VIEWS
        if (found := (views[name] or {}).get("temperature_scaled"))
    ]
    if calibrated:
        lines.append(f"At validation's temperature: {'; '.join(calibrated)}")
    return lines


def _over_members(members: Sequence[Mapping[str, Any]], statistic: Any, columns: Any) -> dict:
    return {name: statistic([member[name] for member in members]) for name, *_ in columns}


def _result_cells(view: Mapping[str, Any], columns: Any) -> list[str]:
    values = {name: view.get(name) for name, *_ in columns}
    values |= {n: 100 * v for n, v in values.items() if v is not None and "accuracy" in n}
    return [_decimal(values[name], places) for name, _, places in columns]


def _decimal(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
