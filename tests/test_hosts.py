"""Two real processes over loopback make the run of one, and refuse what they have not in common."""

import json
import signal

import host_runs
import jax
import numpy as np
import pytest
import survival
from short_run import DIGITS

import lpw_jax
from lpw_jax import main

TOLERANCE = 1e-9


def assert_agree(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == theirs.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
def test_two_processes_make_the_run_of_one():
    """Before the release, minibatches are divided over both; then each has members of its own."""
    workdir, alone = host_runs.both(), host_runs.alone()
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


@pytest.mark.slow
def test_only_the_first_process_prints():
    folder = host_runs.both().parent
    first, second = ((folder / f"run.{i}.out").read_text() for i in range(2))
    assert "results.json" in first and "4 x cpu on 2 host(s)" in first
    # JAX's Gloo prints on both, from several threads at once.
    ours = ("workdir", "seed=0", "weights of one member", "epoch", "evaluating", "collapsed")
    assert all(word in first for word in ours)
    assert not [word for word in ours if word in second]
    told = (folder / "run.1.err").read_text().splitlines()
    assert all(line.startswith("waiting for the other") for line in told)


@pytest.mark.slow
def test_another_config_on_one_host_is_refused_by_both(tmp_path):
    programs = host_runs.start(tmp_path / "run", own=((), ("--config.train.learning_rate=0.2",)))
    assert host_runs.outcome(programs) == [2, 2]
    for program in programs:
        assert "process 1 has train.learning_rate = 0.2, process 0 0.1" in program.errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_data_on_one_host_is_refused_by_both(tmp_path):
    other = f"--config.data.dir={host_runs.data()[1]}"
    programs = host_runs.start(tmp_path / "run", own=((), (other,)))
    assert host_runs.outcome(programs) == [2, 2], [program.errors for program in programs]
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


@pytest.mark.slow
def test_distributed_where_there_is_no_cluster_is_refused(tmp_path):
    program = survival.start(tmp_path / "run", flags=("--distributed",))
    assert program.wait() == 2
    assert "--distributed: JAX detects no cluster here" in program.errors


SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1",
}  # fmt: skip


@pytest.mark.slow
def test_whoever_waits_for_others_says_so_ends_in_time_and_hears_signals(tmp_path, monkeypatch):
    nobody = ["--coordinator=localhost:1", "--num_processes=2", "--process_id=1"]
    hearing = survival.start(tmp_path / "a", flags=nobody)
    with monkeypatch.context() as patch:
        for name, value in SLURM.items():
            patch.setenv(name, value)
        waiting = survival.start(tmp_path / "b", flags=["--join_timeout=8"])
    assert hearing.wait_for(lambda: "waiting for the other" in hearing.errors)
    assert "process 0 does not answer at localhost:1" in hearing.errors
    assert hearing.end(signal.SIGTERM) == 75
    assert waiting.wait() == 2
    told, error = waiting.errors.splitlines()
    assert "this is process 0 of 2" in told and "SLURM_NTASKS=2" in told
    assert "error: after 8 s the run was given up" in error
    assert not (tmp_path / "b").exists()
