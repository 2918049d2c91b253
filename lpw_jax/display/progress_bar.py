"""The progress of a training on the terminal: a bar, or a line an epoch."""

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
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
from rich.table import Column
from rich.text import Text

from lpw_jax.devices import compiling
from lpw_jax.display.console import accuracies, optional, terminal
from lpw_jax.measures.views import VIEWS


class TrainProgress:
    """One progress bar for a whole training, as a context manager.

    On a terminal `update` moves the bar, which tells what is being compiled, and `epoch_line` is
    silent; elsewhere (a file, a pipe) it is the other way round, so that a log holds one line an
    epoch.

    Args:
        total_steps: minibatches of the whole training.
        batch_size: examples in a minibatch.
        epochs: epochs of the whole training.
        first_step: minibatches done before, when a training is resumed.
        examples: what they are called, as in `tasks.Task`.
        averages: how the phase `SWA` is shown, `EMA` for a moving average.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        batch_size: int,
        epochs: int,
        first_step: int = 0,
        examples: str = "images",
        averages: str = "SWA",
        console: Console = terminal,
    ):
        self._console = console
        self._live = _is_live(console)
        self._epochs, self._examples, self._averages = epochs, examples, averages
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            TextColumn("{task.fields[phase]:4}", style="bold"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            _Speed(batch_size, "img" if examples == "images" else "seq"),
            _Loss(Column(no_wrap=True)),
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
        with _bar_shown():
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _bar_shown():
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
        with _bar_shown():
            self._progress.update(
                self._task, advance=steps, epoch=epoch, phase=self._phase(phase), **shown
            )

    def epoch_line(self, record: Mapping[str, Any]) -> None:
        """Shows the end of an epoch: its loss at the bar or, where there is no bar, one line.

        Args:
            record: `epoch`, `phase`, `loss`, `accuracy` (a fraction), `images_per_second`, and
                optionally `member_accuracy`, whose range is shown when there are several, and
                `evaluation` and `evaluation_swa`, views as in results.json.
        """
        with _bar_shown():
            self._show_epoch(record)

    def _show_epoch(self, record: Mapping[str, Any]) -> None:
        views = record.get("evaluation") or {}
        tested = [
            f"test: {averages}{view} {accuracies(record[name][view])}"
            for name, averages in (("evaluation", ""), ("evaluation_swa", f"{self._averages} "))
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
            names = views["members"][0].keys() & {"accuracy", "bpc"}
            means = {
                name: statistics.mean(member[name] for member in views["members"]) for name in names
            }
            tested.append(f"test: members {accuracies(means)} (mean)")
        words = (
            f"epoch {record['epoch']:{width}}/{self._epochs}",
            f"{self._phase(record['phase']):4}",
            f"loss {record['loss']:.4f}",
            f"accuracy {100 * record['accuracy']:.2f} %{spread}",
            f"{record['images_per_second']:.0f} {self._examples}/s",
            *tested,
        )
        self._console.print(Text("  ".join(words)), soft_wrap=True)

    def _phase(self, name: str) -> str:
        return self._averages if name == "SWA" else name


class _Speed(ProgressColumn):
    """Recent speed; rich leaves the first step, which compiles, out of it."""

    def __init__(self, batch_size: int, unit: str):
        super().__init__()
        self._batch_size, self._unit = batch_size, unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed * self._batch_size:.0f} {self._unit}/s")


class _Loss(ProgressColumn):
    """The loss, or what is being compiled."""

    def render(self, task: Task) -> Text:
        return Text(compiling.longest() or task.fields["loss"])


class _Compiling:
    """A line that is empty while nothing is compiled."""

    def __rich__(self) -> Text:
        return Text(compiling.longest(), no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def compiling_shown(console: Console = terminal) -> Iterator[None]:
    """Outside of a bar: the last line of a terminal tells what is being compiled."""
    with contextlib.ExitStack() as stack:
        if _is_live(console):
            live = Live(_Compiling(), console=console, transient=True, refresh_per_second=1)
            with _bar_shown():
                live.start(refresh=True)
                stack.callback(_ended, live)
        yield


def _ended(live: Live) -> None:
    with _bar_shown():
        live.stop()


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _bar_shown() -> contextlib.AbstractContextManager[None]:
    return optional("the progress cannot be shown")
