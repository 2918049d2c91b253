"""A run of two processes over loopback, the same run of one, and their data."""

import socket
import subprocess
import sys
from pathlib import Path

import shared
import survival

DEVICES = 4  # of each run, over all its processes
FLAGS = (
    "--config.data.name=cifar10",
    "--config.train.epochs=3",
    "--config.train.batch_size=16",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=2",
    "--config.train.crop_padding=0",  # compiles sooner
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
# Two data sets of one name and size, with other pixels.
WRITE_DATA = """
import sys
import numpy as np
import tfds_fixtures

for seed, folder in enumerate(sys.argv[1:]):
    rng = np.random.default_rng(seed)
    tfds_fixtures.arrays = lambda name, split: (
        rng.integers(0, 256, ({"train": 600, "test": 30}[split], 32, 32, 3), dtype=np.uint8),
        np.arange({"train": 600, "test": 30}[split]) % 10,
    )
    tfds_fixtures._write(folder, "array_record", "cifar10", text=tfds_fixtures.CIFAR10_TEXT)
"""


def data() -> list[Path]:
    """Folders of the two data sets."""
    names = ("first", "second")

    def make(folder):
        command = [sys.executable, "-c", WRITE_DATA, *(str(folder / name) for name in names)]
        tests = survival.ROOT / "tests"
        done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return [shared.once("hosts_images", make) / name / "array_record" for name in names]


def start(workdir: Path, *flags: str, own=((), ())) -> list[survival.Program]:
    """Starts two processes of one run; `own` are flags that are not the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    joining = ("--coordinator", f"127.0.0.1:{port}", "--num_processes", "2", "--process_id")
    flags = (*FLAGS, f"--config.data.dir={data()[0]}", *flags, *joining)
    return [
        survival.start_tiny(workdir, flags=(*flags, str(i), *own[i]), devices=DEVICES // 2)
        for i in range(2)
    ]


def outcome(programs: list[survival.Program]) -> list[int]:
    """Exit codes; none is left behind, whatever happens."""
    try:
        return [program.wait() for program in programs]
    finally:
        for program in programs:
            program.process.kill()


def alone() -> Path:
    """Folder of the run of one process, made on first use."""

    def make(folder):
        flags = (*FLAGS, f"--config.data.dir={data()[0]}", "--config.parallel.layout=data")
        program = survival.start_tiny(folder / "run", flags=flags, devices=DEVICES)
        assert program.wait() == 0, program.errors

    return shared.once("hosts_alone", make) / "run"


def both() -> Path:
    """Folder of the run of two, with members on hosts of their own, that nothing disturbed.

    What the first and the second process printed lies beside it: run.0.out, run.1.out.
    """

    def make(folder):
        programs = start(folder / "run", "--config.parallel.layout=members")
        assert outcome(programs) == [0, 0], [program.errors for program in programs]

    return shared.once("hosts_members", make) / "run"
