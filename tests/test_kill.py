"""Runs that are killed, run out of disk or find damage end bit for bit as if undisturbed."""

import gc
import random
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import survival

import lpw_jax
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.training.progress import Progress


@pytest.fixture
def halted(tmp_path):
    """A run that was killed in its last epoch and left two checkpoints."""
    return shutil.copytree(survival.halted(), tmp_path / "run")


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


def test_a_run_killed_in_every_phase_ends_as_if_undisturbed(tmp_path):
    run = tmp_path / "run"
    kill_in_checkpoint_write(survival.start(run), after=10)
    kill_in(survival.start(run), "late", within=1)
    kill_in(survival.start(run), "re-estimation", within=0.3)
    kill_in(survival.start(run), "evaluation", within=0.3)
    last = survival.start(run)
    assert last.wait() == 0, last.errors
    assert survival.differences(run, survival.undisturbed()) == []


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
    folders = sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    return [
        max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
        for folder in folders
        if folder.name.isdigit()
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


def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_continued(halted):
    *_, older, newest = largest_files(halted)
    older, number = (int(file.relative_to(halted).parts[1]) for file in (older, newest))
    truncate(newest)
    program = survival.start(halted)
    assert program.wait() == 0, program.errors
    (warning,) = program.errors.splitlines()
    assert f"checkpoints/{number} is damaged" in warning
    assert program.resumed_from() == older
    different = survival.differences(halted, survival.undisturbed())
    assert different == [f"files: ['checkpoints/damaged-{number}']"]


def test_without_an_intact_checkpoint_the_run_ends_and_changes_nothing(halted):
    for file in largest_files(halted):
        flip_a_bit(file)
    before = survival.contents(halted)
    program = survival.start(halted)
    assert program.wait() == 2
    (error,) = program.errors.splitlines()
    assert "No checkpoint is intact; nothing was changed" in error
    after = survival.contents(halted)
    for files in (before, after):
        del files["environment.json"]  # it has the command line, which names another copy
    assert after == before


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process: Linux only")
def test_a_full_disk_ends_the_run_at_once_and_the_newest_checkpoint_is_continued(halted):
    program = survival.start(halted)
    assert program.wait_for(program.trains), program.errors
    limit = 20_000  # bytes in a file: less than a checkpoint's arrays, more than the logs
    resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    assert program.wait() == 2
    newest = program.newest()
    *shown, error = program.errors.splitlines()
    assert all("was not written" in line or "were not written" in line for line in shown)
    assert "a checkpoint could not be written" in error and f"step {newest}." in error
    last = survival.start(halted)
    assert last.wait() == 0, last.errors
    assert last.resumed_from() == newest
    assert survival.differences(halted, survival.undisturbed()) == []


def test_a_second_process_on_a_workdir_is_refused_and_the_first_unharmed(halted):
    first = survival.start(halted)
    assert first.wait_for(first.trains), first.errors
    second = survival.start(halted)
    assert second.wait() == 2
    assert f"is in use by process {first.process.pid}" in second.errors
    assert first.wait() == 0, first.errors
    assert survival.differences(halted, survival.undisturbed()) == []


def test_a_run_continues_on_another_number_of_devices(halted):
    program = survival.start(halted, devices=4)
    assert program.wait() == 0, program.errors
    assert program.resumed_from() > 106
    ours, theirs = (lpw_jax.load_weights(run) for run in (halted, survival.undisturbed()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, theirs)


def test_epochs_that_end_while_a_checkpoint_is_written_do_not_get_into_it():
    progress = Progress(state={}, records=[{"epoch": 1}])
    _, info = progress.to_checkpoint()
    progress.records.append({"epoch": 2})
    assert info["records"] == [{"epoch": 1}]
