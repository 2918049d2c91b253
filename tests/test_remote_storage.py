"""Runs and data in a bucket (gs://...): the whole program as a process, on a storage in memory."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import short_run
import survival
import tfds_fixtures
from gcs_server import Storage

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def storage():
    with Storage() as storage:
        yield storage


def start(storage, *arguments):
    """A Python process whose gs:// is `storage`."""
    environment = os.environ | storage.environment
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONUNBUFFERED": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {survival.FAST_PROGRAMS}",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process):
    """Waits for its end; returns its exit code and what it printed."""
    try:
        output, _ = process.communicate(timeout=survival.PATIENCE)
    finally:
        process.kill()
    return process.returncode, output


def train(storage, workdir):
    command = (survival.TINY_PROGRAM, "--config", short_run.DIGITS, "--workdir", workdir)
    return start(storage, *command, *survival.TINY_FLAGS)


@pytest.fixture(scope="module")
def local():
    """Folder of an undisturbed run on this machine's disk."""
    return survival.undisturbed()


@pytest.fixture(scope="module")
def resumed(storage, local, tmp_path_factory):
    """A copy of gs://bucket/run, which was asked to end after its first epoch and continued."""
    halted, finished = (tmp_path_factory.mktemp(name) for name in ("halted", "finished"))
    process, deadline = train(storage, "gs://bucket/run"), time.monotonic() + survival.PATIENCE
    while not storage.get("bucket/run/metrics.jsonl"):
        assert process.poll() is None and time.monotonic() < deadline, end(process)[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == 75, output
    storage.get_folder("bucket/run", halted)
    epochs = (halted / "metrics.jsonl").read_text().count("\n")
    assert epochs < survival.EPOCHS and not (halted / "results.json").exists()
    code, output = end(train(storage, "gs://bucket/run"))
    assert code == 0, output
    # The newest checkpoint may be of the epoch's last cycle, before its end.
    assert re.search(rf"resumed at epoch ({epochs}|{epochs + 1}),", output), output
    storage.get_folder("bucket/run", finished)
    return finished


@pytest.mark.slow
def test_a_run_in_a_bucket_that_was_resumed_equals_the_undisturbed_one_on_a_disk(resumed, local):
    assert survival.differences(resumed, local) == []


LOAD_WEIGHTS = """
import sys, jax, numpy as np, lpw_jax
*workdirs, newest = sys.argv[1:]
for step in (None, int(newest)):
    remote, local = (lpw_jax.load_weights(workdir, step) for workdir in workdirs)
    jax.tree.map(np.testing.assert_array_equal, remote, local)
"""


@pytest.mark.slow
def test_weights_and_checkpoints_are_loaded_from_a_bucket(storage, resumed):
    newest = max(int(path.name) for path in (resumed / "checkpoints").iterdir())
    code, output = end(start(storage, "-c", LOAD_WEIGHTS, "gs://bucket/run", resumed, newest))
    assert code == 0, output


LOAD_DATA = """
import sys, numpy as np, tfds_fixtures
from lpw_jax.data import load_dataset
found = load_dataset("cifar10", data_dir=sys.argv[1])
for split in ("train", "test"):
    images, labels = tfds_fixtures.arrays("cifar10", split)
    np.testing.assert_array_equal(getattr(found, f"{split}_images"), images)
    np.testing.assert_array_equal(getattr(found, f"{split}_labels"), labels)
"""


def test_data_are_read_from_a_bucket(storage):
    storage.put_folder(tfds_fixtures.folder() / "array_record" / "cifar10", "bucket/tfds/cifar10")
    code, output = end(start(storage, "-c", LOAD_DATA, "gs://bucket/tfds"))
    assert code == 0, output
