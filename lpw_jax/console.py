"""What a run shows on the terminal: its config, its parameters, its progress and its results."""

import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

terminal = Console(highlight=False)


def be_quiet() -> None:
    """Silences this process: another one of the same run speaks for all."""
    terminal.quiet = True


def say(what: Any) -> None:
    """Prints a line or a table to stdout."""
    terminal.print(what)


def warn(message: str) -> None:
    """Prints a warning to stderr."""
    if not terminal.quiet:
        print(f"warning: {message}", file=sys.stderr)


def print_config(config: Mapping[str, Any], *, console: Console = terminal) -> None:
    """Prints a nested config, one row a section; fields that are None or empty are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    top_level = {name: value for name, value in config.items() if not isinstance(value, Mapping)}
    sections = {name: value for name, value in config.items() if isinstance(value, Mapping)}
    for name, section in [("run", top_level), *sections.items()]:
        fields = [
            f"{field}={_field_value(value)}"
            for field, value in section.items()
            if value is not None and value != ""
        ]
        if fields:
            table.add_row(Text(name), Text("  ".join(fields)))
    console.print(table)


def parameter_table(shared: Mapping[str, Any], late_phase: Mapping[str, Any]) -> Table:
    """Table of one member's weights by top-level module.

    Args:
        shared: nested dict whose leaves have a `shape`.
        late_phase: likewise, each leaf `[K, ...]`; the member axis is not counted.

    Raises:
        ValueError: late-phase leaves do not agree on K.
    """
    num_members = _num_members(late_phase)
    shared_sizes = {name: _size(tree) for name, tree in shared.items()}
    late_sizes = {name: _size(tree) // max(num_members, 1) for name, tree in late_phase.items()}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    totals = sum(shared_sizes.values()), sum(late_sizes.values())
    headers = ("shared", "late-phase", "total", "late-phase share")
    table.add_column("weights of one member", footer="total")
    for header, footer in zip(headers, _parameter_cells(*totals), strict=True):
        table.add_column(header, footer=footer, justify="right")
    for name in dict.fromkeys([*shared_sizes, *late_sizes]):
        cells = _parameter_cells(shared_sizes.get(name, 0), late_sizes.get(name, 0))
        table.add_row(Text(name), *cells)
    return table


class TrainProgress:
    """One progress bar for a whole training, as a context manager.

    On a terminal `update` moves the bar and `epoch_line` is silent; elsewhere (a file, a pipe) it
    is the other way round, so that a log holds one line an epoch.

    Args:
        total_steps: minibatches of the whole training.
        batch_size: images in a minibatch.
        epochs: epochs of the whole training.
        first_step: minibatches done before, when a training is resumed.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        batch_size: int,
        epochs: int,
        first_step: int = 0,
        console: Console = terminal,
    ):
        self._console = console
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._epochs = epochs
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            TextColumn("{task.fields[phase]:4}", style="bold"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            _ImagesPerSecond(batch_size),
            TextColumn("{task.fields[loss]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not self._live,
            expand=True,
            refresh_per_second=4,
            speed_estimate_period=300,  # seconds: a cycle of a large network is slow on a CPU
        )
        self._task: TaskID = self._progress.add_task(
            "", total=total_steps, completed=first_step, epoch=0, epochs=epochs, phase="", loss=""
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, steps: int, *, epoch: int, phase: str, loss: float | None = None) -> None:
        """Counts `steps` more minibatches.

        Args:
            steps: minibatches done since the last call.
            epoch: the current one, counted from 1.
            phase: `tied`, `late` or `SWA`.
            loss: the current training loss; None leaves the last one shown.
        """
        shown = {} if loss is None else {"loss": f"loss {loss:.4f}"}
        self._progress.update(self._task, advance=steps, epoch=epoch, phase=phase, **shown)

    def epoch_line(self, record: Mapping[str, Any]) -> None:
        """Shows the end of an epoch: its loss at the bar or, where there is no bar, one line.

        Args:
            record: `epoch`, `phase`, `loss`, `accuracy` (a fraction), `images_per_second`, and
                optionally `member_accuracy`, whose range is shown when there are several.
        """
        if self._live:
            self._progress.update(self._task, loss=f"loss {record['loss']:.4f}")
            return
        width = len(str(self._epochs))
        members = record.get("member_accuracy", [])
        spread = f" ({100 * min(members):.2f}..{100 * max(members):.2f})" if members[1:] else ""
        words = (
            f"epoch {record['epoch']:{width}}/{self._epochs}",
            f"{record['phase']:4}",
            f"loss {record['loss']:.4f}",
            f"accuracy {100 * record['accuracy']:.2f} %{spread}",
            f"{record['images_per_second']:.0f} images/s",
        )
        self._console.print(Text("  ".join(words)), soft_wrap=True)


def results_table(results: Mapping[str, Any]) -> Table:
    """Final table of the three views: collapsed, ensemble, members (mean and sample deviation).

    Args:
        results: `data.{name,note}` and `views.{collapsed,ensemble,members}` of `results.json`.
            What is missing or null there (an OOD set, its mean) is shown as `-`.
    """
    views = results["views"]
    collapsed, ensemble, members = views["collapsed"], views["ensemble"], views["members"]
    ood_sets = list(dict.fromkeys([*collapsed.get("ood", {}), *ensemble.get("ood", {})]))
    if not any([*collapsed.get("ood", {}).values(), *ensemble.get("ood", {}).values()]):
        ood_sets = []  # they would all be dashes
    data = results["data"]
    notes = "; ".join(filter(None, [data.get("note"), data.get("ood_note")]))
    note = f": {notes}" if notes else ""

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,  # the columns' minimal widths leave the gaps: four OOD sets fit in 80 columns
        show_edge=False,
        caption=Text(f"Test set of {data['name']}{note}"),
        caption_justify="left",
    )
    table.add_column("\nview", no_wrap=True)
    for header in ("acc\n%", "\nNLL", "\nBrier", "\nECE"):
        table.add_column(header, justify="right", no_wrap=True, min_width=7)
    auroc_columns = [*ood_sets, "mean"] if ood_sets else []
    for name in auroc_columns:
        table.add_column(Text(f"AUROC\n{name}"), justify="right", overflow="fold", min_width=6)

    for name, view in (("collapsed", collapsed), ("ensemble", ensemble)):
        sets = [view.get("ood", {}).get(ood_set) or {} for ood_set in ood_sets]
        aurocs = [*(ood.get("auroc") for ood in sets), view.get("ood_mean_auroc")]
        cells = [_decimal(auroc, 3) for auroc in aurocs[: len(auroc_columns)]]
        table.add_row(name, *_result_cells(view), *cells)
    for name, statistic, least in (("mean", statistics.mean, 1), ("std", statistics.stdev, 2)):
        view = _over_members(members, statistic) if len(members) >= least else {}
        table.add_row(f"member {name}", *_result_cells(view), *["-" for _ in auroc_columns])
    return table


class _ImagesPerSecond(ProgressColumn):
    """Recent speed; rich leaves the first step, which compiles, out of it."""

    def __init__(self, batch_size: int):
        super().__init__()
        self._batch_size = batch_size

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed * self._batch_size:.0f} img/s")


def _field_value(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "-"
    return str(value)


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, tuple[int, ...]]]:
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(branch, f"{path}/{name}" if path else name)
    else:
        yield path, tree.shape


def _size(tree: Any) -> int:
    return sum(math.prod(shape) for _, shape in _leaves(tree))


def _num_members(late_phase: Mapping[str, Any]) -> int:
    """K, the leading axis that every late-phase leaf must have; 0 without any leaf."""
    shapes = dict(_leaves(late_phase))
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) > 1 or None in sizes:
        raise ValueError(
            f"late_phase: every leaf must lead with the same member axis, got {shapes}"
        )
    return sizes.pop() if sizes else 0


def _parameter_cells(shared: int, late: int) -> tuple[str, str, str, str]:
    total = shared + late
    share = f"{100 * late / total:.2f} %" if total else "-"
    return f"{shared:,}", f"{late:,}", f"{total:,}", share


def _over_members(members: Sequence[Mapping[str, Any]], statistic: Any) -> dict[str, float]:
    names = ("accuracy", "nll", "brier", "ece")
    return {name: statistic([member[name] for member in members]) for name in names}


def _result_cells(view: Mapping[str, Any]) -> list[str]:
    accuracy = view.get("accuracy")
    percent = None if accuracy is None else 100 * accuracy
    return [_decimal(percent, 2), *(_decimal(view.get(key), 4) for key in ("nll", "brier", "ece"))]


def _decimal(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
