"""Two real processes over loopback make the run of one, and survive together."""

import functools
import json
import resource
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import survival
from short_run import DIGITS

import lpw_jax
from lpw_jax import main

DEVICES = 4  # of each run, over all its processes
FLAGS = (
    "--config.data.name=cifar10",
    "--config.train.epochs=3",
    "--config.train.batch_size=16",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=2",
    "--config.train.compute_dtype=float64",
    "--config.late_phase.num_members=4",
    "--config.late_phase.member_mode=vmap",  # compiles soonest
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.sigma=0.05",
    "--config.swa.start_epoch=3",
    "--config.checkpoint.every_epochs=1",
    "--config.evaluate.batch_size=20",
    "--config.evaluate.every_epochs=3",
)
TOLERANCE = 1e-9
# Two data sets of one name and size, with other pixels.
WRITE_DATA = """
import sys
import numpy as np
import tfds_fixtures

for seed, folder in enumerate(sys.argv[1:]):
    rng = np.random.default_rng(seed)
    tfds_fixtures.arrays = lambda name, split: (
        rng.integers(0, 256, ({"train": 200, "test": 30}[split], 32, 32, 3), dtype=np.uint8),
        np.arange({"train": 200, "test": 30}[split]) % 10,
    )
    tfds_fixtures._write(folder, "array_record", "cifar10", text=tfds_fixtures.CIFAR10_TEXT)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of the two data sets."""
    folders = [tmp_path_factory.mktemp("data") for _ in range(2)]
    command = [sys.executable, "-c", WRITE_DATA, *map(str, folders)]
    tests = survival.ROOT / "tests"
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [folder / "array_record" for folder in folders]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(runs, data):
    """A run in one process."""
    flags = (*FLAGS, f"--config.data.dir={data[0]}", "--config.parallel.layout=data")
    program = survival.start(runs / "alone", flags=flags, devices=DEVICES)
    assert program.wait() == 0, program.errors
    return program.workdir


@pytest.fixture(scope="module")
def start(data):
    """Starts two processes of one run; `own` are flags that are not the same."""

    def start(workdir, *flags, own=((), ())):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        joining = ("--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id")
        flags = (*FLAGS, f"--config.data.dir={data[0]}", *flags, *joining)
        return [
            survival.start(workdir, flags=(*flags, str(i), *own[i]), devices=DEVICES // 2)
            for i in range(2)
        ]

    return start


@pytest.fixture(scope="module")
def both(runs, start):
    """The two processes of a run with the given layout, ended and not disturbed."""

    @functools.cache
    def both(layout):
        programs = start(runs / layout, f"--config.parallel.layout={layout}")
        assert outcome(programs) == [0, 0], [program.errors for program in programs]
        return programs

    return both


def outcome(programs):
    """Exit codes; none is left behind, whatever happens."""
    try:
        return [program.wait() for program in programs]
    finally:
        for program in programs:
            program.process.kill()


def assert_agree(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("layout", ["members", "data"])
def test_two_processes_make_the_run_of_one(layout, alone, both):
    workdir = both(layout)[0].workdir
    jax.tree.map(assert_agree, *map(lpw_jax.load_weights, (workdir, alone)))
    ours, theirs = (np.load(run / "predictions" / "test.npz") for run in (workdir, alone))
    for view in ("collapsed", "ensemble", "members"):
        assert_agree(ours[view], theirs[view])
    ours, theirs = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (workdir, alone)
    )
    assert [epoch["phase"] for epoch in ours] == ["tied", "late", "SWA"]
    for epoch, expected in zip(ours, theirs, strict=True):
        assert_agree(epoch["member_loss"], expected["member_loss"])
        assert epoch["member_accuracy"] == expected["member_accuracy"]
        assert_agree(*(found.get("member_distance", 0.0) for found in (epoch, expected)))
    assert ours[-1]["member_distance"] > 0
    for name in ("evaluation", "evaluation_swa"):
        found, wanted = (epochs[-1][name] for epochs in (ours, theirs))
        assert found["ensemble"]["disagreement"] == wanted["ensemble"]["disagreement"]
        assert_agree(found["ensemble"]["nll"], wanted["ensemble"]["nll"])


def test_only_the_first_process_prints(both):
    first, second = both("members")
    assert "results.json" in first.output and "4 x cpu on 2 host(s)" in first.output
    # JAX's Gloo prints on both, from several threads at once.
    ours = ("workdir", "seed=0", "weights of one member", "epoch", "evaluating", "collapsed")
    assert all(word in first.output for word in ours)
    assert not [word for word in ours if word in second.output]
    assert second.errors == ""


def test_two_processes_survive_a_preemption_and_a_kill(both, start, runs):
    run, layout = runs / "disturbed", "--config.parallel.layout=members"
    programs = start(run, layout)
    assert programs[0].wait_for(lambda: programs[0].newest() > 0), programs[0].errors
    programs[1].process.send_signal(signal.SIGTERM)  # one is told, both end
    assert outcome(programs) == [75, 75], [program.errors for program in programs]
    told = programs[0].newest()

    programs = start(run, layout)
    assert programs[0].wait_for(lambda: programs[0].newest() > told), programs[0].errors
    for program in reversed(programs):  # one is lost, and a scheduler ends the other
        program.process.kill()
    assert outcome(programs) == [-signal.SIGKILL] * 2

    programs = start(run, layout)
    assert outcome(programs) == [0, 0], [program.errors for program in programs]
    assert programs[0].resumed_from() > told
    assert survival.differences(run, both("members")[0].workdir) == []


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux only")
def test_a_full_disk_of_one_process_is_told_and_ends_both(start, tmp_path):
    programs = start(tmp_path / "run")
    assert programs[0].wait_for(lambda: programs[0].newest() > 0), programs[0].errors
    limit = 20_000  # bytes in a file: less than a checkpoint's arrays, more than the logs
    resource.prlimit(programs[0].process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    codes = outcome(programs)
    assert codes[0] == 2 and codes[1] != 0
    assert "a checkpoint could not be written" in programs[0].errors


def test_another_config_on_one_host_is_refused_by_both(start, tmp_path):
    programs = start(tmp_path / "run", own=((), ("--config.train.learning_rate=0.2",)))
    assert outcome(programs) == [2, 2]
    for program in programs:
        assert "process 1 has train.learning_rate = 0.2, process 0 0.1" in program.errors
    assert not (tmp_path / "run").exists()


def test_other_data_on_one_host_is_refused_by_both(start, data, tmp_path):
    programs = start(tmp_path / "run", own=((), (f"--config.data.dir={data[1]}",)))
    assert outcome(programs) == [2, 2], [program.errors for program in programs]
    for program in programs:
        assert "the same data: process 1 has" in program.errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--coordinator localhost:1", "--num_processes, --process_id: missing"),
        ("--process_id 0 --num_processes 2", "--coordinator: missing"),
        ("--coordinator localhost:1 --num_processes 2 --process_id 2", "must be 0 to 1"),
        ("--coordinator localhost --num_processes 2 --process_id 0", "must be HOST:PORT"),
    ],
)
def test_flags_that_name_no_group_of_processes_are_refused(flags, message, tmp_path, capsys):
    arguments = ["--config", DIGITS, "--workdir", str(tmp_path / "run"), *flags.split()]
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_distributed_where_there_is_no_cluster_is_refused(tmp_path):
    program = survival.start(tmp_path / "run", flags=("--distributed",))
    assert program.wait() == 2
    assert "--distributed: JAX detects no cluster here" in program.errors
