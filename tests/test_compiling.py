"""What is being compiled is told, by name and seconds, and by the bar on a terminal."""

import io
import time

import jax
import numpy as np
import pytest
from rich.console import Console

from lpw_jax.devices import compiling
from lpw_jax.devices.compilation import Program
from lpw_jax.display import progress_bar
from lpw_jax.display.progress_bar import TrainProgress, compiling_shown


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(compiling.time, "monotonic", lambda: now[0])
    return now


def slow(clock, told):
    """A program whose tracing takes 12 seconds of the clock."""

    def traced(x):
        compiling.tracing("training step")
        clock[0] += 12.0
        told.append(compiling.longest())
        return x + 1

    return Program(jax.jit(traced))


def test_a_program_tells_its_name_while_it_is_traced_and_nothing_afterwards(clock):
    told = []
    program, x = slow(clock, told), np.zeros(3, np.float32)
    assert compiling.longest() == ""
    program(x)
    assert told == ["compiling training step, 12 s"]
    clock[0] += 100
    assert compiling.longest() == ""
    program(x)  # compiled: nothing is traced
    assert len(told) == 1 and compiling.longest() == ""


def test_what_is_begun_in_a_thread_is_told_until_it_is_compiled(clock, monkeypatch):
    told, x = [], np.zeros(4, np.float32)
    program = slow(clock, told)
    original = jax.stages.Lowered.compile

    def compile(lowered, *args):
        clock[0] += 30.0
        told.append(compiling.longest())
        return original(lowered, *args)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    program.begin(x)
    program(x)
    assert told == ["compiling training step, 12 s", "compiling training step, 30 s"]
    assert compiling.longest() == ""


def test_shapes_and_failures_leave_nothing_behind(clock):
    def failing(x):
        compiling.tracing("evaluation")
        raise ValueError("no such network")

    with pytest.raises(ValueError, match="no such network"):
        Program(jax.jit(failing))(np.zeros(2))
    Program(jax.jit(lambda x: compiling.tracing("evaluation") or x)).shapes(np.zeros(2))
    with pytest.raises(KeyboardInterrupt), compiling.told("release"):
        raise KeyboardInterrupt
    compiling.tracing("of no program")  # as by eval_shape
    clock[0] += 100
    assert compiling.longest() == ""


def test_a_second_is_too_short_to_be_told_and_the_longest_comes_first(clock):
    with compiling.told("averages"):
        clock[0] += 0.9
        assert compiling.longest() == ""
        clock[0] += 0.1
        assert compiling.longest() == "compiling averages, 1 s"


def screen():
    return Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)


def test_the_bar_shows_it_in_place_of_the_loss(clock):
    console = screen()
    with TrainProgress(total_steps=40, batch_size=8, epochs=200, console=console) as bar:
        bar.update(0, epoch=120, phase="late", loss=2.5)
        with compiling.told("members' step"):
            clock[0] += 75
            bar._progress.refresh()
        bar._progress.refresh()
    shown = console.file.getvalue()
    assert "epoch 120/200 late" in shown and "compiling members' step, 75 s" in shown
    assert shown.rindex("loss 2.5000") > shown.rindex("compiling")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_outside_of_a_bar_it_is_the_last_line_of_a_terminal_and_goes_away(clock, is_terminal):
    console = screen() if is_terminal else Console(file=io.StringIO(), width=80)
    with compiling_shown(console):
        console.print("evaluating test")
        with compiling.told("evaluation"):
            clock[0] += 5
            console.print("a line meanwhile")
    shown = console.file.getvalue()
    if is_terminal:
        assert "compiling evaluation, 5 s" in shown
        assert shown.endswith("\x1b[1A\x1b[2K")  # erased
        assert shown.index("\x1b[?25l") < shown.index("\x1b[?25h")  # the cursor is shown again
    else:
        assert shown == "evaluating test\na line meanwhile\n"


def test_a_call_that_compiles_nothing_costs_next_to_nothing():
    program, number = Program(lambda x: x), 10_000
    start = time.perf_counter()
    for _ in range(number):
        program(1)
    assert (time.perf_counter() - start) / number < 20e-6


def test_a_terminal_that_cannot_be_drawn_on_ends_nothing(monkeypatch, capsys):
    def fail(*args, **options):
        raise OSError("no terminal")

    monkeypatch.setattr(progress_bar.Live, "start", fail)
    with compiling_shown(screen()):
        pass
    assert "the progress cannot be shown: OSError: no terminal" in capsys.readouterr().err
