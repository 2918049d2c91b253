"""Two processes that are told to end, lost, or run out of disk, end as if undisturbed."""

import resource
import signal
import time
from types import SimpleNamespace

import host_runs
import pytest
import survival

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A run that meets everything, one after the other, and what its processes told."""
    run = tmp_path_factory.mktemp("runs") / "run"
    found = SimpleNamespace(run=run)

    def start():
        return host_runs.start(run, "--config.parallel.layout=members")

    programs = start()
    assert programs[0].wait_for(lambda: programs[0].newest() > 0), programs[0].errors
    programs[1].process.send_signal(signal.SIGUSR1)  # one is told, both end
    assert host_runs.outcome(programs) == [75, 75], [program.errors for program in programs]
    told = programs[0].newest()

    programs = start()
    assert programs[0].wait_for(lambda: programs[0].newest() > told), programs[0].errors
    found.killed, start_of_end = programs[1], time.monotonic()
    programs[1].process.kill()  # one is lost, and the other ends
    found.lost_codes, found.lost = host_runs.outcome(programs), programs[0].errors
    found.seconds_to_end = time.monotonic() - start_of_end
    killed = programs[0].newest()

    if hasattr(resource, "prlimit"):
        programs = start()
        assert programs[0].wait_for(programs[0].resumed_from), programs[0].errors
        limit = 20_000  # bytes in a file: less than a checkpoint's arrays, more than the logs
        resource.prlimit(programs[0].process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        found.full_codes, found.full = host_runs.outcome(programs), programs[0].errors

    programs = start()
    assert host_runs.outcome(programs) == [0, 0], [program.errors for program in programs]
    assert programs[0].resumed_from() >= killed > told > 0
    return found


def test_two_processes_survive_a_preemption_and_a_kill(disturbed):
    assert survival.differences(disturbed.run, host_runs.both()) == []


def test_a_lost_process_is_named_at_once_with_its_log(disturbed):
    assert disturbed.lost_codes == [1, -signal.SIGKILL]
    *told, line = disturbed.lost.splitlines()  # on a busy machine of waiting for the other's start
    assert not [one for one in told if not one.startswith(("waiting for the other", "warning: "))]
    assert line.startswith("process 1 of the run was lost")
    assert f"process {disturbed.killed.process.pid} on " in line and "run.3.err" in line
    assert disturbed.seconds_to_end < 10


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux only")
def test_a_full_disk_of_one_process_is_told_and_ends_both(disturbed):
    assert disturbed.full_codes[0] == 2 and disturbed.full_codes[1] != 0
    assert "a checkpoint could not be written" in disturbed.full
