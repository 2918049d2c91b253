"""Rehearsals: everything that a run would do first and a few of its steps, but no training."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lpw_jax.devices import hosts
from lpw_jax.display import console, schedule_picture
from lpw_jax.errors import SharedError, UserError, first_line
from lpw_jax.files.workdir import PROFILE, SCHEDULE, Workdir
from lpw_jax.training.memory import CYCLES_IN_FLIGHT
from lpw_jax.training.train import Training

STEPS = 2  # of a dry run
WARM_UP, PROFILED = 2, 6  # cycles before and in a trace


def rehearse(training: Training, folder: Workdir) -> None:
    """Draws schedule.png and takes two real steps before and after the release, in memory only.

    Raises:
      UserError: a loss is not finite.
    """
    if hosts.is_primary():
        with console.optional(f"{SCHEDULE} was not written"):
            folder.write_file(SCHEDULE, schedule_picture.schedule_png(training.timeline.plan()))
            console.say(f"schedule: {folder.path / SCHEDULE}")
    for epoch, cycles in _phases(training):
        for number in range(1, STEPS + 1):
            start = time.perf_counter()
            losses = jax.device_get(next(cycles)["loss"])
            console.say(
                f"{training.timeline.phase(epoch)}, step {number}: loss {losses.mean():.4f}, "
                f"{time.perf_counter() - start:.1f} s{' with compilation' if number == 1 else ''}"
            )
            if not np.isfinite(losses).all():
                raise SharedError(
                    f"the loss of a first step is {losses.tolist()}; try a lower "
                    f"train.learning_rate (now {training.config.train.learning_rate})"
                )
    console.say("dry run: all checks passed, nothing was trained")


def profile(training: Training, folder: Workdir) -> None:
    """Writes traces of a few cycles before and after the release, taken as training takes them.

    They are in `profile/tied` and `profile/late` of the (local) folder, for TensorBoard and, as
    perfetto_trace.json.gz, for Perfetto. Of several processes the primary one traces.

    Raises:
      UserError: a trace cannot be written.
    """
    with _programs_named_as_in_the_source():
        for epoch, cycles in _phases(training):
            name = "late" if training.timeline.is_released(epoch) else "tied"
            path = folder.path / PROFILE / name
            jax.block_until_ready([next(cycles) for _ in range(WARM_UP)])
            with _traced(path) if hosts.is_primary() else contextlib.nullcontext():
                done = []
                for number in range(PROFILED):
                    with jax.profiler.StepTraceAnnotation("cycle", step_num=number):
                        done.append(next(cycles))
                        if len(done) > CYCLES_IN_FLIGHT:
                            jax.block_until_ready(done[-1 - CYCLES_IN_FLIGHT])
                jax.block_until_ready(done)
            console.say(f"{training.timeline.phase(epoch)}, {PROFILED} cycles: trace in {path}")
    console.say(
        f"nothing was trained; the traces are shown by tensorboard --logdir {folder.path / PROFILE}"
    )


def _phases(training: Training) -> Iterator[tuple[int, Iterator[dict[str, jax.Array]]]]:
    """The first epoch with each number of members and, without end, the metrics of its cycles."""
    timeline = training.timeline
    first = {timeline.members(epoch): epoch for epoch in range(timeline.epochs, 0, -1)}
    for num_members, epoch in sorted(first.items()):
        yield epoch, _cycles(training, epoch, num_members)


def _cycles(training: Training, epoch: int, num_members: int) -> Iterator[dict[str, jax.Array]]:
    state, rates = training.initial_state, training.timeline.rates(epoch)
    if training.timeline.is_released(epoch):
        state = training.released(state)
    state = training.runner.place(state, num_members=num_members)
    order = training.order(epoch)
    while True:  # a small data set has few cycles
        for newest, metrics in training.runner.cycles(
            state, order, rates, epoch=epoch, num_members=num_members
        ):
            state = newest
            yield metrics


@contextlib.contextmanager
def _programs_named_as_in_the_source() -> Iterator[None]:
    """Keeps JAX from taking programs from its cache that differ only in the names of operations."""
    option = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, option)
    jax.config.update(option, True)
    try:
        yield
    finally:
        jax.config.update(option, before)


@contextlib.contextmanager
def _traced(path: Any) -> Iterator[None]:
    def tried(step, *args, **options):
        try:
            step(*args, **options)
        except (OSError, RuntimeError) as error:
            raise UserError(f"--profile: {path} cannot be written, {first_line(error)}") from error

    tried(jax.profiler.start_trace, path, create_perfetto_trace=True)
    yield
    tried(jax.profiler.stop_trace)
