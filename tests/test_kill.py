"""Runs that are killed, told to end, mute, out of disk or damaged end as if undisturbed."""

import gc
import os
import random
import resource
import shutil
import signal
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import short_run
import survival
from etils import epath

import lpw_jax
from lpw_jax import main
from lpw_jax.errors import UserError
from lpw_jax.files import lock
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.method.state import State
from lpw_jax.training.progress import Progress


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A run that meets everything, one after the other, and what its processes told."""
    survival.undisturbed()  # keeps every program, which a process with a limit on files could not
    run = tmp_path_factory.mktemp("runs") / "run"
    halted = run.parent / "halted"
    found = SimpleNamespace(run=run, halted=halted)
    kill_in_checkpoint_write(survival.start_tiny(run, is_mute=True), after=73)
    *_, older, newest = largest_files(run)  # of the first epoch's end, or later
    truncate(newest)
    found.older, found.damaged = (int(f.relative_to(run).parts[1]) for f in (older, newest))

    first = survival.start_tiny(run)
    assert first.wait_for(first.trains), first.errors
    first.process.send_signal(signal.SIGSTOP)  # so that it is there when the second comes
    found.second, found.pid = survival.start_tiny(run), first.process.pid
    found.second.wait()
    if limited := hasattr(resource, "prlimit"):
        size = 20_000  # bytes in a file: less than a checkpoint's arrays, more than the logs
        resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (size, size))
    first.process.send_signal(signal.SIGCONT)
    found.full, found.full_code = first, first.wait() if limited else first.end()
    found.full_newest = first.newest()

    found.after_full = survival.start_tiny(run)
    assert found.after_full.wait_for(lambda: found.after_full.epochs_done() >= 4)
    assert found.after_full.end(signal.SIGUSR1) == 75
    shutil.copytree(run, halted)

    kill_in(survival.start_tiny(run), "re-estimation", within=0.1)
    kill_in(survival.start_tiny(run), "evaluation", within=0.1)
    assert survival.start_tiny(run, is_mute=True).wait() == 0
    return found


def kill_in_checkpoint_write(program, *, after):
    """Kills at the first write that follows checkpoint `after`, and is sure to be in it."""
    while True:
        assert program.wait_for(lambda: program.newest() >= after and program.writes_checkpoint())
        program.process.send_signal(signal.SIGSTOP)
        if program.writes_checkpoint():
            assert program.end() == -signal.SIGKILL
            return
        program.process.send_signal(signal.SIGCONT)


def kill_in(program, phase, *, within):
    assert program.wait_for(lambda: program.phase() == phase), program.errors
    time.sleep(random.Random(phase).uniform(0, within))
    assert program.end() == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_meets_everything_ends_as_if_undisturbed(disturbed):
    left = [f"files: ['checkpoints/damaged-{disturbed.damaged}']"]
    assert survival.differences(disturbed.run, survival.undisturbed()) == left


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_continued(disturbed):
    warning, *_ = disturbed.full.errors.splitlines()
    assert f"checkpoints/{disturbed.damaged} is damaged" in warning
    assert disturbed.full.resumed_from() == disturbed.older


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux only")
def test_a_full_disk_ends_the_run_at_once_and_the_newest_checkpoint_is_continued(disturbed):
    assert disturbed.full_code == 2
    _, *shown, error = disturbed.full.errors.splitlines()  # the first is of the damage
    assert all("was not written" in line or "were not written" in line for line in shown)
    assert "a checkpoint could not be written" in error
    assert f"step {disturbed.full_newest}." in error
    assert disturbed.after_full.resumed_from() == disturbed.full_newest
    assert disturbed.after_full.errors == "asked to end; the same command continues\n"


@pytest.mark.slow
def test_a_second_process_on_a_workdir_is_refused_and_the_first_unharmed(disturbed):
    assert disturbed.second.wait() == 2
    assert f"is in use by process {disturbed.pid}" in disturbed.second.errors


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_devices(disturbed):
    program = survival.start_tiny(disturbed.halted, devices=4)
    assert program.wait() == 0, program.errors
    release, end_of_training = 144, 360
    assert release < program.resumed_from() < end_of_training
    runs = (disturbed.halted, survival.undisturbed())
    ours, theirs = (lpw_jax.load_weights(run) for run in runs)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        # Rounding is relative to a leaf's largest values: its small ones are sums of them.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(b).max())


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def delete(file):
    file.unlink()


DAMAGES = (truncate, flip_a_bit, delete)


def largest_files(run):
    """Of each checkpoint, the oldest first."""
    folders = [path for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    return [
        max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        for folder in sorted(folders, key=lambda path: int(path.name))
    ]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_checkpoint_is_harmless_or_found(damage, tmp_path):
    rng = np.random.default_rng(0)
    saved = {
        number: (
            {"state": {"a": rng.normal(size=(50, 40)).astype(np.float32), "b": np.int32(number)}},
            {"epoch": number, "records": [{"loss": 0.5 * number}]},
        )
        for number in (3, 7)
    }
    with Checkpoints(tmp_path / "whole", keep=2) as checkpoints:
        for number, (arrays, info) in saved.items():
            checkpoints.save(number, arrays, info)
        checkpoints.check(wait=True)
    found = set()
    for file in sorted((tmp_path / "whole" / "7").rglob("*")):
        if file.is_dir() or not file.stat().st_size:
            continue
        copy = shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        damage(copy / file.relative_to(tmp_path / "whole"))
        with Checkpoints(copy, keep=2) as checkpoints:
            number, arrays, info, lines = checkpoints.restore()
        found.add(number)
        assert bool(lines) == (number == 3) and (copy / "damaged-7").exists() == bool(lines)
        jax.tree.map(np.testing.assert_array_equal, (arrays, info), saved[number])
        shutil.rmtree(copy)
    assert found == {3, 7}  # some files matter, some do not


@pytest.mark.slow
def test_of_many_arrays_that_cannot_be_read_asyncio_says_nothing(tmp_path, caplog):
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.normal(size=(20, 10 + i)).astype(np.float32) for i in range(80)}
    with Checkpoints(tmp_path / "whole", keep=2) as checkpoints:
        for number in (3, 7):
            checkpoints.save(number, {"state": arrays}, {})
        checkpoints.check(wait=True)
    for attempt in range(8):  # which reads are given up differs from time to time
        copy = shutil.copytree(tmp_path / "whole", tmp_path / str(attempt))
        truncate(max((copy / "7").rglob("*"), key=lambda file: file.stat().st_size))
        with Checkpoints(copy, keep=2) as checkpoints:
            assert checkpoints.restore()[0] == 3
            gc.collect()
    assert not caplog.records


@pytest.mark.slow
def test_without_an_intact_checkpoint_the_run_ends_and_changes_nothing(run_copy, capsys):
    for name in ("weights", "predictions"):
        shutil.rmtree(run_copy / name)
    (run_copy / "results.json").unlink()  # now it seems interrupted
    for file in largest_files(run_copy):
        flip_a_bit(file)
    before = survival.contents(run_copy)
    assert main.main([*short_run.COMMAND, "--workdir", str(run_copy)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "No checkpoint is intact; nothing was changed" in error
    after = survival.contents(run_copy)
    for files in (before, after):
        del files["environment.json"]  # it has the command line, which names another copy
    assert after == before


@pytest.mark.skipif(not hasattr(resource, "setrlimit"), reason="this system has no such limit")
def test_a_checkpoint_that_a_full_disk_stops_is_told(tmp_path):
    rng = np.random.default_rng(0)
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
        try:
            with pytest.raises(UserError, match="a checkpoint could not be written"):
                checkpoints.save(3, {"state": {"a": rng.normal(size=(50, 400))}}, {})
                checkpoints.check(wait=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_a_folder_has_one_holder_who_is_named_to_others(tmp_path):
    folder = epath.Path(tmp_path)
    named = f"is in use by process {os.getpid()}"
    with lock.held(folder), pytest.raises(UserError, match=named), lock.held(folder):
        pass
    with lock.held(folder):
        pass


def test_epochs_that_end_while_a_checkpoint_is_written_do_not_get_into_it():
    progress = Progress(state=State(*[None] * 8), records=[{"epoch": 1}])
    _, info = progress.to_checkpoint()
    progress.records.append({"epoch": 2})
    assert info["records"] == [{"epoch": 1}]
