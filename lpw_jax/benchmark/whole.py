"""The whole program: training with data, metrics and checkpoints, and the time to its start."""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from lpw_jax.data import Dataset
from lpw_jax.parallel import Devices
from lpw_jax.train import Training
from lpw_jax.workdir import Workdir

EPOCHS = 4  # the first compiles and is left out


def train(
    config: ConfigDict, dataset: Dataset, devices: Devices, *, seconds: float, speed: float
) -> dict[str, Any]:
    """Trains released members for short epochs, each with a checkpoint; images/s of each.

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
    cycle = config.late_phase.num_members * config.train.batch_size
    cycles = min(max(4, round(seconds * speed / cycle)), len(dataset.train_labels) // cycle)
    dataset = dataclasses.replace(
        dataset,
        train_images=dataset.train_images[: cycles * cycle],
        train_labels=dataset.train_labels[: cycles * cycle],
    )
    training = Training(config, dataset, devices)
    with tempfile.TemporaryDirectory() as folder:
        training.run(Workdir(folder))
    measured = [record["images_per_second"] for record in training.progress.records[1:]]
    return {
        "num_members": config.late_phase.num_members,
        "member_mode": training.member_mode,
        "cycles_per_epoch": cycles,
        "images_per_second": sorted(measured)[len(measured) // 2],
        "epochs": measured,
    }


def first_step(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds from the start of the program to the end of its first step, cold and warm.

    Args:
      arguments: of `lpw_jax.main`; it makes a dry run, twice with one new compilation cache.
    """
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            start = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, "-u", "-m", "lpw_jax.main", *arguments, "--dry_run"]
                + ["--workdir", os.path.join(folder, "run")],
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR": os.path.join(folder, "cache")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as program:
                lines = []
                for line in program.stdout:
                    lines.append(line)
                    if ", step 1: loss" in line and state not in seconds:
                        seconds[state] = time.perf_counter() - start
            if program.returncode:
                return {"not_run": lines[-1].strip()}
    return seconds
