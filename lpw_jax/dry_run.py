"""A rehearsal: everything that a run would do first, and a few of its steps."""

import time

import jax
import numpy as np

from lpw_jax import console, schedule_report
from lpw_jax.data import epoch_order
from lpw_jax.errors import SharedError
from lpw_jax.train import Training
from lpw_jax.workdir import SCHEDULE, Workdir

STEPS = 2


def rehearse(training: Training, folder: Workdir) -> None:
    """Draws schedule.png and takes two real steps before and after the release, in memory only.

    Raises:
      UserError: a loss is not finite.
    """
    folder.write_schedule(schedule_report.schedule_png(training.timeline.plan()))
    console.say(f"schedule: {folder.path / SCHEDULE}")
    timeline, runner = training.timeline, training.runner
    phases = {timeline.members(epoch): epoch for epoch in range(timeline.epochs, 0, -1)}
    for num_members, epoch in sorted(phases.items()):
        state = training.initial_state
        if timeline.is_released(epoch):
            state = training.released(state)
        start = time.perf_counter()
        cycles = runner.cycles(
            runner.place(state, num_members=num_members),
            epoch_order(training.config.seed, epoch, training.num_examples),
            timeline.rates(epoch),
            num_members=num_members,
        )
        for number, (_, metrics) in zip(range(1, STEPS + 1), cycles, strict=False):
            losses = jax.device_get(metrics["loss"])
            seconds = time.perf_counter() - start
            console.say(
                f"{timeline.phase(epoch)}, step {number}: loss {losses.mean():.4f}, "
                f"{seconds:.1f} s{' with compilation' if number == 1 else ''}"
            )
            if not np.isfinite(losses).all():
                raise SharedError(
                    f"the loss of a first step is {losses.tolist()}; try a lower "
                    f"train.learning_rate (now {training.config.train.learning_rate})"
                )
            start = time.perf_counter()
    console.say("dry run: all checks passed, nothing was trained")
