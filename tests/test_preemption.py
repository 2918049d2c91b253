"""Whatever asks a run to end, it saves, and the same command goes on to the undisturbed end."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import survival

from lpw_jax import errors, signals
from lpw_jax.devices.preemption import Preemption
from lpw_jax.errors import Preempted

# What is sent at each moment, and how a run can see that it has come.
MOMENTS = {
    "loading": (signal.SIGTERM, lambda program: "loading digits" in program.output),
    "compiling": (signal.SIGUSR2, lambda program: "host(s); members" in program.output),
    "training": (signal.SIGINT, lambda program: program.newest() > 10),
    "release": (signal.SIGUSR1, lambda program: program.epochs_done() == 2),
    "re-estimation": (signal.SIGHUP, lambda program: program.phase() == "re-estimation"),
    "weights": (signal.SIGXCPU, lambda program: program.phase() == "weights"),
    "evaluation": (signal.SIGTERM, lambda program: program.phase() == "evaluation"),
}
ALL = (*signals.ENDING, signal.SIGINT)


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """As nohup and background jobs would have it; children inherit that."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def asked_to_end(program, moment):
    number, has_come = MOMENTS[moment]
    assert program.wait_for(lambda: has_come(program)), (moment, program.errors)
    before = program.newest()
    code = program.end(number)
    by_ctrl_c = number == signal.SIGINT
    assert code == (130 if by_ctrl_c else 75), (moment, code, program.errors)
    last = program.errors.splitlines()[-1]
    said = "interrupted and saved" if by_ctrl_c else "asked to end"
    assert last == f"{said}; the same command continues"
    assert "Traceback" not in program.errors and "Warning" not in program.errors
    if moment in ("training", "release"):
        assert program.newest() > before


@pytest.mark.slow
def test_a_run_asked_to_end_in_every_phase_ends_as_if_undisturbed(tmp_path):
    run = tmp_path / "run"
    for moment in MOMENTS:
        asked_to_end(survival.start_tiny(run), moment)
        assert not (run / ".lock").exists()
    last = survival.start_tiny(run)
    assert last.wait() == 0, last.errors
    assert survival.differences(run, survival.undisturbed()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "seconds"),
    [("main", 0), ("evaluate", 1.0), ("compare", 0.6), ("data", 2.0), ("benchmark", 0.3)],
)
def test_a_program_that_is_still_importing_ends_with_one_line(program, seconds):
    number = ALL[(len(program) + int(2 * seconds)) % len(ALL)]
    started = subprocess.Popen(
        [sys.executable, "-m", f"lpw_jax.{program}", "--config=no"], cwd=survival.ROOT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not listens(started, signals.ENDING[-1]) and started.poll() is None:
        time.sleep(0.001)  # Python itself starts
    time.sleep(seconds)
    started.send_signal(number)
    _, told = started.communicate(timeout=60)
    if "error: " not in told:  # it has found no such config before, and was leaving
        by_ctrl_c = number == signal.SIGINT
        assert started.returncode == (130 if by_ctrl_c else 75)
        assert told == f"{signals.STOPPED if by_ctrl_c else signals.CONTINUES}\n"


def listens(process, number):
    """Whether it has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (number - 1) & 1


@pytest.mark.parametrize("number", signals.ENDING)
def test_a_signal_is_obeyed_at_once_unless_there_is_something_to_save(number):
    before = signal.getsignal(number)
    with Preemption().watched(), pytest.raises(Preempted):
        signal.raise_signal(number)
    preemption = Preemption()
    with preemption.watched(), preemption.deferred():
        assert not preemption.due()
        signal.raise_signal(number)
        assert preemption.due()
        with pytest.raises(Preempted):
            preemption.check()
    assert signal.getsignal(number) is before


def test_ctrl_c_saves_and_a_second_one_does_not(capsys):
    with Preemption().watched(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    preemption = Preemption()

    def train():
        with preemption.watched(), preemption.deferred():
            signal.raise_signal(signal.SIGINT)
            assert preemption.due() and not preemption.check()

    assert errors.exit_code("main", train) == 130
    assert "interrupted and saved" in capsys.readouterr().err
    with preemption.watched(), preemption.deferred(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", ALL)
def test_what_is_ignored_stays_ignored(number):
    """As nohup ignores SIGHUP, and shells SIGINT of what runs in the background."""
    signal.signal(number, signal.SIG_IGN)
    preemption = Preemption()

    def train():
        with preemption.watched():
            signal.raise_signal(number)
            assert not preemption.due()

    assert errors.exit_code("main", train) == 0
