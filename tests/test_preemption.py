"""SIGTERM ends a run with code 75, and the same command continues it to the undisturbed end."""

import signal

import pytest
import survival

from lpw_jax.devices.preemption import Preemption
from lpw_jax.errors import Preempted

MOMENTS = {
    "loading": lambda program: "loading digits" in program.output,
    "compiling": lambda program: "host(s); members" in program.output,
    "training": lambda program: program.newest() > 10,
    "release": lambda program: program.epochs_done() == 2,
    "re-estimation": lambda program: program.phase() == "re-estimation",
    "weights": lambda program: program.phase() == "weights",
    "evaluation": lambda program: program.phase() == "evaluation",
}


def asked_to_end(program, moment):
    assert program.wait_for(lambda: MOMENTS[moment](program)), (moment, program.errors)
    code = program.end(signal.SIGTERM)
    assert code == 75, (moment, code, program.errors)
    assert program.errors.splitlines()[-1] == "asked to end; the same command continues"
    assert "Traceback" not in program.errors and "Warning" not in program.errors


@pytest.mark.slow
def test_a_run_asked_to_end_in_every_phase_ends_as_if_undisturbed(tmp_path):
    run = tmp_path / "run"
    for moment in MOMENTS:
        asked_to_end(survival.start(run), moment)
        assert not (run / ".lock").exists()
    last = survival.start(run)
    assert last.wait() == 0, last.errors
    assert survival.differences(run, survival.undisturbed()) == []


def test_sigterm_is_obeyed_at_once_unless_there_is_something_to_save():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().watched(), pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    preemption = Preemption()
    with preemption.watched(), preemption.deferred():
        assert not preemption.due()
        signal.raise_signal(signal.SIGTERM)
        assert preemption.due()
        with pytest.raises(Preempted):
            preemption.check()
    assert signal.getsignal(signal.SIGTERM) is before
