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

from lpw_jax.measures.views import VIEWS

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


def parameter_counts(
    shared: Mapping[str, Any], late_phase: Mapping[str, Any]
) -> dict[str, dict[str, int]]:
    """Number of `shared` and `late_phase` weights of one member by top-level module.

    Args:
        shared: nested dict whose leaves have a `shape`.
        late_phase: likewise, each leaf `[K, ...]`; the member axis is not counted.

    Raises:
        ValueError: late-phase leaves do not agree on K.
    """
    num_members = _num_members(late_phase)
    return {
        name: {
            "shared": _size(shared.get(name, {})),
            "late_phase": _size(late_phase.get(name, {})) // max(num_members, 1),
        }
        for name in dict.fromkeys([*shared, *late_phase])
    }


def parameter_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Table of the numbers from `parameter_counts`."""
    totals = [sum(count[kind] for count in counts.values()) for kind in ("shared", "late_phase")]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    headers = ("shared", "late-phase", "total", "late-phase share")
    table.add_column("weights of one member", footer="total")
    for header, footer in zip(headers, _parameter_cells(*totals), strict=True):
        table.add_column(header, footer=footer, justify="right")
    for name, count in counts.items():
        table.add_row(Text(name), *_parameter_cells(count["shared"], count["late_phase"]))
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
                optionally `member_accuracy`, whose range is shown when there are several, and
                `evaluation` and `evaluation_swa`, views as in results.json.
        """
        views = record.get("evaluation") or {}
        tested = [
            f"test: {averages}{view} {accuracies(record[name][view])}"
            for name, averages in (("evaluation", ""), ("evaluation_swa", "SWA "))
            for view in VIEWS
            if record.get(name)
        ]
        if self._live:
            self._progress.update(self._task, loss=f"loss {record['loss']:.4f}")
            if tested:
                self._console.print(Text("  ".join([f"epoch {record['epoch']}", *tested])))
            return
        width = len(str(self._epochs))
        members = record.get("member_accuracy", [])
        spread = f" ({100 * min(members):.2f}..{100 * max(members):.2f})" if members[1:] else ""
        if len(views.get("members", [])) > 1:
            mean = statistics.mean(member["accuracy"] for member in views["members"])
            tested.append(f"test: members {100 * mean:.2f} % (mean)")
        words = (
            f"epoch {record['epoch']:{width}}/{self._epochs}",
            f"{record['phase']:4}",
            f"loss {record['loss']:.4f}",
            f"accuracy {100 * record['accuracy']:.2f} %{spread}",
            f"{record['images_per_second']:.0f} images/s",
            *tested,
        )
        self._console.print(Text("  ".join(words)), soft_wrap=True)


def accuracies(view: Mapping[str, Any]) -> str:
    """Accuracy of a view of results.json in words, and its top-5 accuracy if it has one."""
    percent = {
        name: f"{100 * view[name]:.2f} %"
        for name in ("accuracy", "top5_accuracy")
        if view.get(name) is not None
    }
    top5 = f" (top-5 {percent['top5_accuracy']})" if "top5_accuracy" in percent else ""
    return f"{percent.get('accuracy', '-')}{top5}"


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
