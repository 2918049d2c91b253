"""The whole program: training with data, metrics and checkpoints, and the time to its start."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from lpw_jax.devices import preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.experiment import AnyDataset
from lpw_jax.files.workdir import Workdir
from lpw_jax.training.train import Training

EPOCHS = 4  # the first compiles and is left out


def train(
    config: ConfigDict, dataset: AnyDataset, devices: Devices, *, seconds: float, speed: float
) -> dict[str, Any]:
    """Trains released members for short epochs, each with a checkpoint.

    Images/s are those of all but the first epoch over all the time from its end, the writing of
    metrics and checkpoints included.

    Args:
      seconds: an epoch is to last this long, if the data suffice.
      speed: expected images/s.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.epochs = EPOCHS
        config.late_phase.release_epoch = 0
        config.swa.start_epoch = 0
        config.checkpoint.every_epochs = 1
        config.evaluate.every_epochs = 0
        config.parallel.layout = "data"  # that of the bare step
    cycle = config.late_phase.num_members * config.train.batch_size
    cycles = min(max(4, round(seconds * speed / cycle)), dataset.num_train // cycle)
    dataset = dataset.first(cycles * cycle)
    memory = preflight.device_memory(jax.local_devices()[0])
    training = Training(config, dataset, devices, device_memory=memory)
    with tempfile.TemporaryDirectory() as name:
        folder = _Timed(name)
        training.run(folder)
        folder.ends.append(time.perf_counter())  # the last checkpoint is whole
    images = cycles * cycle
    seconds = [end - start for start, end in itertools.pairwise(folder.ends[:EPOCHS])]
    whole = folder.ends[-1] - folder.ends[0]
    return {
        "num_members": config.late_phase.num_members,
        "member_mode": training.member_mode,
        "cycles_per_epoch": cycles,
        "images_per_second": (EPOCHS - 1) * images / whole,
        "epochs": [images / value for value in seconds],
    }


class _Timed(Workdir):
    """Notes when each epoch ended."""

    def __init__(self, path: str):
        super().__init__(path)
        self.ends: list[float] = []

    def write_metrics(self, records: Sequence[Any]) -> None:
        super().write_metrics(records)
        if records:
            self.ends.append(time.perf_counter())


def first_step(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds from the start of the program to the end of the first tied, and the first late step.

    Args:
      arguments: of `lpw_jax.main`; it makes a dry run, twice with one new compilation cache.
    """
    seconds: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "cache")}
        environment.pop("JAX_ENABLE_COMPILATION_CACHE", None)
        for state in ("cold", "warm"):
            start, lines = time.perf_counter(), []
            with subprocess.Popen(
                [sys.executable, "-u", "-m", "lpw_jax.main", *arguments, "--dry_run"]
                + ["--workdir", os.path.join(folder, "run")],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as program:
                for line in program.stdout:
                    lines.append(line.strip())
                    for phase in ("tied", "late"):
                        if line.startswith(f"{phase}, step 1: loss"):
                            seconds[f"{state}_{phase}"] = time.perf_counter() - start
            if program.returncode:
                return {"not_run": lines[-1] if lines else f"exit code {program.returncode}"}
    return seconds
