"""Two real processes over loopback make the run of one, and survive together."""

import json
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import survival
import tfds_fixtures
from short_run import DIGITS

import lpw_jax
from lpw_jax import main

DEVICES = 4  # of each run, over all its processes
FLAGS = (
    "--config.train.epochs=3",
    "--config.train.batch_size=16",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=2",
    "--config.train.compute_dtype=float64",
    "--config.data.validation_examples=1100",
    "--config.late_phase.num_members=4",
    "--config.late_phase.member_mode=vmap",  # compiles soonest
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.sigma=0.05",
    "--config.swa.start_epoch=3",
    "--config.checkpoint.every_epochs=1",
)
TOLERANCE = 1e-9


def start(workdir, *flags, own=((), ())):
    """Two processes of one run; `own` are the flags in which they differ."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    joining = ("--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id")
    return [
        survival.start(
            workdir, flags=(*FLAGS, *flags, *joining, str(i), *own[i]), devices=DEVICES // 2
        )
        for i in range(2)
    ]


def outcome(programs):
    """Exit codes; none is left behind, whatever happens."""
    try:
        return [program.wait() for program in programs]
    finally:
        for program in programs:
            program.process.kill()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(runs):
    """A run in one process."""
    program = survival.start(
        runs / "alone", flags=(*FLAGS, "--config.parallel.layout=data"), devices=DEVICES
    )
    assert program.wait() == 0, program.errors
    return program.workdir


@pytest.fixture(scope="module", params=["members", "data"])
def both(request, runs):
    """A run in two processes."""
    programs = start(runs / request.param, f"--config.parallel.layout={request.param}")
    assert outcome(programs) == [0, 0], [program.errors for program in programs]
    return programs


def assert_agree(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_two_processes_make_the_run_of_one(alone, both):
    workdir = both[0].workdir
    jax.tree.map(assert_agree, *map(lpw_jax.load_weights, (workdir, alone)))
    for name in ("test", "validation"):
        ours, theirs = (np.load(run / f"predictions/{name}.npz") for run in (workdir, alone))
        for view in ("collapsed", "ensemble", "members"):
            assert_agree(ours[view], theirs[view])
    ours, theirs = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (workdir, alone)
    )
    assert [epoch["epoch"] for epoch in ours] == [1, 2, 3]
    for epoch, expected in zip(ours, theirs, strict=True):
        assert_agree(epoch["member_loss"], expected["member_loss"])
        assert epoch["member_accuracy"] == expected["member_accuracy"]


def test_only_the_first_process_prints(both):
    assert "results.json" in both[0].output and "on 2 host(s)" in both[0].output
    lines = both[1].output.splitlines()
    assert [line for line in lines if not line.startswith("[Gloo]")] == []
    assert both[1].errors == ""


def test_two_processes_survive_a_preemption_and_a_kill(both, runs):
    layout = f"--config.parallel.layout={both[0].workdir.name}"
    run = runs / f"disturbed {both[0].workdir.name}"
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
    assert programs[0].resumed_from() >= told
    assert survival.differences(run, both[0].workdir) == []


def test_another_config_on_one_host_is_refused_by_all(tmp_path):
    programs = start(tmp_path / "run", own=((), ("--config.train.learning_rate=0.2",)))
    assert outcome(programs) == [2, 2]
    for program in programs:
        assert "the same config, but process 0" in program.errors
        assert "and process 1" in program.errors
    assert not (tmp_path / "run").exists()


def test_other_data_on_one_host_is_refused_by_all(tmp_path):
    here = tfds_fixtures.folder() / "array_record"
    there = tmp_path / "array_record"
    # The same images, inverted.
    inverted = (
        "import sys, tfds_fixtures as f; arrays = f.arrays;"
        "f.arrays = lambda *which: (255 - arrays(*which)[0], arrays(*which)[1]);"
        "f._write(sys.argv[1], 'array_record', 'cifar10', text=f.CIFAR10_TEXT)"
    )
    command = [sys.executable, "-c", inverted, str(tmp_path)]
    done = subprocess.run(command, cwd=survival.ROOT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    programs = start(
        tmp_path / "run",
        "--config.data.name=cifar10",
        own=[[f"--config.data.dir={folder}"] for folder in (here, there)],
    )
    assert outcome(programs) == [2, 2], [program.errors for program in programs]
    for program in programs:
        assert "the same data, but process 0" in program.errors
        assert "and process 1" in program.errors


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
