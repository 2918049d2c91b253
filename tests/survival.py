"""The program as processes of its own: started, watched, ended by signals, and what they leave."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import event_files
import jax
import numpy as np
import shared
from shared import FAST_PROGRAMS, QUICK_COMPILER

import lpw_jax
from lpw_jax import signals

for number in (*signals.ENDING, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:  # by nohup; programs would inherit that
        signal.signal(number, lambda *_: None)

ROOT = Path(__file__).parents[1]
TINY_PROGRAM = str(ROOT / "tests" / "tiny_program.py")
PATIENCE = 600  # seconds; machines may be busy
EPOCHS = 5
# Digits through every phase, in seconds once it is compiled: an epoch is 16 tied cycles or 8 of two
# members, re-estimation 16 batches. Saved as often as a checkpoint can be written.
FLAGS = (
    "--config.train.epochs=5",
    "--config.train.batch_size=16",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=4",
    "--config.data.validation_examples=1181",
    "--config.late_phase.num_members=2",
    "--config.late_phase.member_mode=vmap",  # compiles soonest
    "--config.late_phase.release_epoch=2",
    "--config.late_phase.sigma=0.05",
    "--config.swa.start_epoch=4",
    "--config.checkpoint.every_epochs=1",
    "--config.checkpoint.every_minutes=0.01",
)
# A tiny network takes so many more images to be as long in every phase: 72 minibatches an epoch.
TINY_FLAGS = (*FLAGS, "--config.data.validation_examples=281")
TIMES = ("seconds", "images_per_second", "peak_memory_bytes")  # and what differs like them


class Program:
    """A running `lpw_jax.main`. What it prints goes to files beside its workdir.

    Args:
      workdir: its folder.
      flags: of the command line, `--config` and `--workdir` excepted.
      devices: number of fake CPU devices; 0 leaves the environment's devices as they are.
      cache: folder of compiled programs, which make restarts quick; None for the environment's.
      xla: flags of XLA beside those of the devices.
      program: what Python runs.
      is_mute: its standard output is full and its standard error closed.
      config: the config file.
      options: of `subprocess.Popen`.
    """

    def __init__(
        self,
        workdir: Path,
        flags: Sequence[str] = FLAGS,
        *,
        devices: int = 1,
        cache: Path | None = None,
        config: str = "digits_bn.py",
        xla: str = "",
        program: Sequence[str] = ("-m", "lpw_jax.main"),
        is_mute: bool = False,
        **options: Any,
    ):
        self.workdir = workdir
        workdir.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"NPROC": "16", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        if devices:
            flag = f"--xla_force_host_platform_device_count={devices}"
            environment["XLA_FLAGS"] = f"{flag} {xla}"
            environment["JAX_PLATFORMS"] = "cpu"
        if cache is not None:
            environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        mute = ("sh", "-c", 'exec "$@" > /dev/full 2>&-', "sh") if is_mute else ()
        command = [*mute, sys.executable, *program, "--config", str(ROOT / "configs" / config)]
        number = len(list(workdir.parent.glob(f"{workdir.name}.*.out")))
        self._files = [workdir.parent / f"{workdir.name}.{number}.{end}" for end in ("out", "err")]
        self.started = time.time()
        with self._files[0].open("w") as out, self._files[1].open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--workdir", str(workdir), *flags],
                cwd=ROOT, env=environment, stdout=out, stderr=errors, **options,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed to stdout so far."""
        return self._files[0].read_text()

    @property
    def errors(self) -> str:
        """What it has printed to stderr so far."""
        return self._files[1].read_text()

    def newest(self) -> int:
        """Number of the newest finished checkpoint, 0 if there is none."""
        paths = (self.workdir / "checkpoints").glob("*")
        return max((int(path.name) for path in paths if path.name.isdigit()), default=0)

    def writes_checkpoint(self) -> bool:
        """Whether there is an unfinished checkpoint of its own."""
        return self._has_written("checkpoints/*tmp*")

    def trains(self) -> bool:
        """Whether it has come to the first checkpoint of its own, soon after its first cycle."""
        return self._has_written("checkpoints/[0-9]*")

    def _has_written(self, pattern: str) -> bool:
        return has_written(self.workdir, pattern, since=self.started)

    def epochs_done(self) -> int:
        """Lines of metrics.jsonl."""
        try:
            return (self.workdir / "metrics.jsonl").read_text().count("\n")
        except FileNotFoundError:
            return 0

    def phase(self) -> str:
        """What it is doing: loading, tied, late, SWA, re-estimation, weights or evaluation."""
        if self._has_written("results.json"):  # whatever becomes of its output
            return "evaluation"
        if self._has_written("weights*"):
            return "weights"
        if not self.trains():
            return "loading"
        done = self.epochs_done()
        return "re-estimation" if done == EPOCHS else ("tied", "tied", "late", "SWA", "SWA")[done]

    def resumed_from(self) -> int | None:
        """The step at which it went on, None if at the start."""
        found = re.search(r"resumed at .*step (\d+)", self.output)
        return int(found[1]) if found else None

    def wait_for(self, condition: Callable[[], Any], *, timeout: float = PATIENCE) -> bool:
        """Waits until `condition()`; False if the process has ended or the time is up."""
        end = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def wait(self) -> int:
        """Waits for its end; returns the exit code."""
        return self.process.wait(PATIENCE)

    def end(self, sent: int = signal.SIGKILL) -> int:
        """Sends a signal and waits for its end; returns the exit code, that of `sent` negative."""
        self.process.send_signal(sent)
        return self.wait()


def has_written(workdir: Path, pattern: str, *, since: float) -> bool:
    """Whether there is such a file that changed after the moment `since`."""
    with contextlib.suppress(FileNotFoundError):  # they come and go
        return any(path.stat().st_mtime > since for path in workdir.glob(pattern))
    return has_written(workdir, pattern, since=since)


def start(workdir: Path, *, xla: str = QUICK_COMPILER, **options: Any) -> Program:
    """A program that need not compile what another of the session has compiled."""
    return Program(workdir, xla=xla, **options)


def start_tiny(workdir: Path, flags: Sequence[str] = TINY_FLAGS, **options: Any) -> Program:
    """The same with a tiny network, where the network is not the point. It is started often."""
    program = (TINY_PROGRAM,)
    return start(workdir, flags=flags, program=program, xla=FAST_PROGRAMS, **options)


def undisturbed() -> Path:
    """Folder of a run that nothing disturbed, made on first use. Only to be read."""

    def make(folder: Path) -> None:
        program = start_tiny(folder / "run")
        assert program.wait() == 0, program.errors

    return shared.once("undisturbed", make) / "run"


def differences(workdir: Path, reference: Path) -> list[str]:
    """All in which two finished runs differ, times excepted: weights, predictions, results, epochs,
    events.

    Arrays are compared bit for bit. Files that only one of the two has count too.
    """
    found = []
    if _names(workdir) != _names(reference):
        found.append(f"files: {sorted(_names(workdir) ^ _names(reference))}")
    weights = [_flat(lpw_jax.load_weights(folder)) for folder in (workdir, reference)]
    found += _different_arrays("weights", *weights)
    for file in sorted((reference / "predictions").iterdir()):
        with np.load(workdir / "predictions" / file.name) as ours, np.load(file) as theirs:
            found += _different_arrays(f"predictions/{file.name}", dict(ours), dict(theirs))
    results = [json.loads((folder / "results.json").read_text()) for folder in (workdir, reference)]
    for result in results:
        result["train"] = {k: v for k, v in result["train"].items() if k not in TIMES}
    found += [
        f"results.json: {name}" for name in results[1] if results[0][name] != results[1][name]
    ]
    epochs = [_epochs(folder) for folder in (workdir, reference)]
    if epochs[0] != epochs[1]:
        numbers = [epoch["epoch"] for epoch in epochs[0]]
        found.append(f"metrics.jsonl: epochs {numbers}")
    points = [_points(folder) for folder in (workdir, reference)]
    found += [f"tensorboard: {tag}" for tag, _ in sorted(points[0].items() ^ points[1].items())]
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes, the lock excepted."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def _names(folder: Path) -> set[str]:
    """What lies in a run's folder, but for names that are drawn and for a lock of the killed."""
    names = {path.name for path in folder.iterdir()} - {".lock"}
    names |= {f"predictions/{path.name}" for path in (folder / "predictions").iterdir()}
    left = (path.name for path in (folder / "checkpoints").iterdir() if not path.name.isdigit())
    return names | {f"checkpoints/{name}" for name in left}


def _points(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows, times excepted; names of its files have a time in them."""
    found = event_files.points(folder)
    return {point: value for point, value in found.items() if not point[0].endswith(TIMES)}


def _flat(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _different_arrays(where: str, ours: dict, theirs: dict) -> list[str]:
    if ours.keys() != theirs.keys():
        return [f"{where}: {sorted(ours.keys() ^ theirs.keys())}"]
    return [
        f"{where}: {name}"
        for name, array in theirs.items()
        if (array.dtype, array.shape) != (ours[name].dtype, ours[name].shape)
        or array.tobytes() != ours[name].tobytes()
    ]


def _epochs(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]
