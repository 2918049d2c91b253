"""The results of a run as a table."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lpw_jax import registry
from lpw_jax.display import console
from lpw_jax.display.console import accuracies
from lpw_jax.files import described
from lpw_jax.files.measured import Metrics, View
from lpw_jax.files.results import Data, Pretrained, Results
from lpw_jax.measures.views import VIEWS

# Metric, its header, its decimal places; accuracies are shown in percent.
_COLUMNS = (
    ("bpc", "\nbpc", 4),
    ("accuracy", "acc\n%", 2),
    ("top5_accuracy", "top-5\n%", 2),
    ("nll", "\nNLL", 4),
    ("brier", "\nBrier", 4),
    ("ece", "\nECE", 4),
)


def network_name(model: Mapping[str, Any]) -> str:
    """Of a config's section `model`: 'WRN-28-10', or its name."""
    return registry.network(model["name"]).title.format(**model)


def pretrained_line(found: Pretrained) -> str:
    """How good pretrained weights are here, beside what torchvision states for its own."""
    which = "these are its weights" if found.published else "these are other weights"
    return (
        f"pretrained {found.model}: test {accuracies(described.plain(found))}; torchvision states "
        f"{100 * found.published_accuracy:.3f} % for its own, and {which}"
    )


def say(results: Results) -> None:
    """Prints the final table, and what else a finished run has to tell."""
    with console.optional("the results cannot be shown"):
        console.say(results_table(results))
        for line in (*further_lines(results), *in_words(results)):
            console.say(line)


def further_lines(results: Results) -> Iterator[str]:
    """What stands below the table: what else there is to know."""
    data, views = results.data, results.views
    told = filter(None, [data.note, data.ood_note, _skipped(data)])
    notes = "; ".join(told).replace(".; ", "; ")
    yield f"Test set of {data.name}{f': {notes}' if notes else ''}"
    yield from _measures({name: view for name in VIEWS if (view := getattr(views, name))})
    if results.pretrained:
        yield pretrained_line(results.pretrained)
    if results.best_epoch:
        collapsed = described.plain(results.best_epoch.views.collapsed)
        yield (
            f"Best epoch: {results.best_epoch.epoch}, collapsed {accuracies(collapsed)}. It was "
            "chosen on the test set, so the result is that of the last epoch, in the table."
        )


def results_table(results: Results) -> Table:
    """Final table of the three views: collapsed, ensemble, members (mean and sample deviation).

    What is null in `results`, which must be complete (an OOD set, its mean), is shown as `-`, a
    view that is null not at all.
    """
    views = results.views
    # A deep ensemble has no collapsed network.
    shown = {name: view for name in VIEWS if (view := getattr(views, name))}
    ood_sets = list(dict.fromkeys(name for view in shown.values() for name in view.ood))
    if not any(found for view in shown.values() for found in view.ood.values()):
        ood_sets = []  # they would all be dashes

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,  # the columns' minimal widths leave the gaps: four OOD sets fit in 80 columns
        show_edge=False,
    )
    table.add_column("\nview", no_wrap=True)
    columns = [c for c in _COLUMNS if c[0] in described.plain(views.ensemble)]
    for _, header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True, min_width=7)
    auroc_columns = [*ood_sets, "mean"] if ood_sets else []
    for name in auroc_columns:
        table.add_column(Text(f"AUROC\n{name}"), justify="right", overflow="fold", min_width=6)

    for name, view in shown.items():
        sets = [view.ood.get(ood_set) for ood_set in ood_sets]
        aurocs = [*(ood and ood.auroc for ood in sets), view.ood_mean_auroc]
        cells = [_decimal(auroc, 3) for auroc in aurocs[: len(auroc_columns)]]
        table.add_row(name, *_result_cells([view], statistics.mean, columns), *cells)
    for name, statistic, least in (("mean", statistics.mean, 1), ("std", statistics.stdev, 2)):
        members = views.members if len(views.members) >= least else []
        cells = _result_cells(members, statistic, columns)
        table.add_row(f"member {name}", *cells, *["-" for _ in auroc_columns])
    return table


def _skipped(data: Data) -> str:
    """Which images were left out of an evaluation (`data.skip_corrupt`), in words."""
    counts = (data.skipped or {}).items()
    return ", ".join(f"{n} {name} images left out as corrupt" for name, n in counts if n)


def _measures(views: Mapping[str, View]) -> list[str]:
    """A line on how the members differ and one on temperatures, if these were measured."""
    lines, ensemble = [], views["ensemble"]
    if None not in (ensemble.disagreement, ensemble.mutual_information):
        lines.append(
            f"Two members disagree on {100 * ensemble.disagreement:.2f} % of the images; "
            f"mutual information {ensemble.mutual_information:.4f} nats"
        )
    calibrated = [
        f"{name} T = {found.temperature:.3f}, NLL {found.nll:.4f}, ECE {found.ece:.4f}"
        for name, view in views.items()
        if (found := view.temperature_scaled)
    ]
    if calibrated:
        lines.append(f"At validation's temperature: {'; '.join(calibrated)}")
    return lines


def in_words(results: Results) -> Iterator[str]:
    """What came out: the collapsed network, the ensemble and the members, compared."""
    views = results.views
    if views.collapsed is None:
        return
    is_text = views.collapsed.bpc is not None
    name, scale = ("bpc", 1) if is_text else ("accuracy", 100)
    all_views = (views.collapsed, views.ensemble, *views.members)
    found = [getattr(view, name) for view in all_views]
    if None in found:
        return
    collapsed, ensemble, *members = (scale * value for value in found)
    mean, number = statistics.mean(members), len(members)

    def told(value, verb):
        shown = f"{value:.4f} bits per character" if is_text else f"{value:.2f} % of the test set"
        return f"{verb} {shown}"

    def beside(value):
        shown = f"{value:.4f}" if is_text else f"{value:.2f} %"
        places = 4 if is_text else 2
        more = f" ({value - mean:+.{places}f})" if round(value - mean, places) else ""
        return f"{shown}{more}"

    if number < 2:
        yield f"The network {told(collapsed, 'needs' if is_text else 'is right on')}."
        return
    verb = "need" if is_text else "are right on"
    yield (
        f"The {number} members {told(mean, verb)} on average. Collapsed into one network they "
        f"{verb} {beside(collapsed)}; as an ensemble, at {number} times the cost, "
        f"{'' if is_text else 'on '}{beside(ensemble)}."
    )


def _result_cells(found: Sequence[Metrics], statistic: Any, columns: Any) -> list[str]:
    cells = []
    for name, _, places in columns:
        values = [getattr(metrics, name) for metrics in found]
        value = statistic(values) if values and None not in values else None
        percent = "accuracy" in name and value is not None
        cells.append(_decimal(100 * value if percent else value, places))
    return cells


def _decimal(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
