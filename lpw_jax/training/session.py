"""One session of a training: from its newest checkpoint, or the start, as far as it gets."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax import networks, recipe
from lpw_jax.devices import compiling, hosts, preflight
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console
from lpw_jax.display.progress_bar import TrainProgress
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.files.nested import to_nested
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.average import Average
from lpw_jax.method.state import State
from lpw_jax.training.journal import Journal
from lpw_jax.training.memory import CYCLES_IN_FLIGHT
from lpw_jax.training.progress import Progress, averaged
from lpw_jax.training.saver import Saver
from lpw_jax.training.tolerance import Tolerance
from lpw_jax.training.tracking import Tracker
from lpw_jax.weights import soundness


class Session:
    """What a training does and tells while it runs.

    Args:
      training: the `train.Training`.
      folder: of the run.
      preemption: whether it was asked to end.
      checkpoints: of the run; None on other processes than the primary one.

    Raises:
      UserError: the checkpoints are of another run or all damaged; a file cannot be written.
    """

    def __init__(
        self,
        training: Any,
        folder: Workdir,
        preemption: Preemption,
        checkpoints: Checkpoints | None,
    ):
        self._training, self._timeline, self._runner = training, training.timeline, training.runner
        self._unfetched, self._start = [], time.monotonic()
        self._saver = Saver(
            checkpoints,
            preemption,
            every_minutes=training.config.checkpoint.every_minutes,
            identity=training.identity,
            snapshot=self._snapshot,
        )
        train, late_phase = training.config.train, training.config.late_phase
        self._tolerance = Tolerance(
            self._saver, train.on_nonfinite, train.learning_rate, late_phase.learning_rate
        )
        self._tracker = Tracker(training.runner, training.evaluator, self._saver, self._tolerance)
        restored = self._saver.restore(training.like)
        self._begin(restored)
        if differing := folder.start_session(training.config, resumed=restored is not None):
            console.warn(
                "settings are not those of the run's first session, so results may differ by "
                f"rounding: {'; '.join(differing)}"
            )
        if training.origin and not self.progress.pretrained:
            self.progress.pretrained = self._tracker.pretrained(
                training.initial_state, training.origin
            )
        self._bar = TrainProgress(
            total_steps=self._timeline.num_minibatches,
            first_step=self._timeline.minibatches(self.progress.epoch, self.progress.cycle),
            batch_size=training.config.train.batch_size,
            epochs=self._timeline.epochs,
            examples=recipe.task(training.config).examples,
            averages="EMA" if self._timeline.decay else "SWA",
        )
        self._journal = Journal(folder, self.progress.records)

    def run(self) -> tuple[State, dict[str, Any]]:
        """As `Training.run`."""
        options = self._training.config.checkpoint
        with self._bar, self._saver.before_errors():
            while self.progress.epoch <= self._timeline.epochs:
                self._train_epoch()
            if self._timeline.reestimates:
                self._reestimate()
        if options.every_epochs or options.every_minutes:
            self._saver.save()
        self._saver.wait()
        return self._results()

    def _begin(self, restored: Progress | None) -> None:
        """Puts the restored progress, or that of a fresh run, on the devices."""
        epoch = restored.epoch if restored else 1
        if epoch <= self._timeline.epochs:
            self._training.begin(epoch, fresh=restored is None)
        self.progress = progress = restored or Progress(self._training.initial_state)
        if restored:
            console.say(f"resumed at epoch {progress.epoch}, step {int(progress.state.step)}")
        num_members = self._num_members()
        progress.state = self._runner.place(progress.state, num_members=num_members)
        if progress.averages is not None:
            progress.averages = self._runner.place_average(
                progress.averages, num_members=num_members
            )

    def _train_epoch(self) -> None:
        """Trains what is left of the current epoch and records it."""
        progress, timeline, epoch = self.progress, self._timeline, self.progress.epoch
        num_members, rates = timeline.members(epoch), timeline.rates(epoch)
        if timeline.begins_release(epoch) and not progress.cycle:
            released = self._training.released(self._runner.fetch(progress.state, num_members=1))
            progress.state = self._runner.place(released, num_members=num_members)
        is_averaged, decay = timeline.is_averaged(epoch), timeline.decay
        self._bar.update(0, epoch=epoch, phase=timeline.phase(epoch))
        start = time.perf_counter() - progress.epoch_seconds
        for placed, metrics in self._runner.cycles(
            progress.state,
            self._training.order(epoch),
            rates,
            epoch=epoch,
            num_members=num_members,
            done=progress.cycle,
        ):
            progress.state, progress.cycle = placed, progress.cycle + 1
            if is_averaged and decay:
                progress.averages = _averaged(progress.averages, placed, decay=decay)
            self._unfetched.append(metrics)
            if len(self._unfetched) > CYCLES_IN_FLIGHT:
                jax.block_until_ready(self._unfetched[-1 - CYCLES_IN_FLIGHT])
            progress.epoch_seconds = time.perf_counter() - start
            self._bar.update(num_members, epoch=epoch, phase=timeline.phase(epoch))
            self._training.begin_later(epoch)  # while the devices are at work
            self._saver.pause()
        self._record()
        progress.epoch_seconds = time.perf_counter() - start
        record = progress.epoch_record(
            phase=timeline.phase(epoch),
            rates=rates,
            batch_size=self._training.config.train.batch_size,
        )
        self._warn_of(record)
        record |= self._tracker.members(progress.state, num_members=num_members)
        averages = progress.averages
        if is_averaged and not decay:
            averages = _averaged(averages, progress.state)
        # Whoever stops in an evaluation resumes before it: until its end the progress stays.
        if timeline.is_evaluated(epoch):
            record |= self._tracker.evaluations(
                progress.state,
                self._statistics(jax.tree.map(jnp.copy, averages), epoch + 1) if averages else (),
                epoch=epoch,
                num_members=num_members,
            )
        progress.records.append(record)
        progress.averages = averages
        progress.next_epoch()
        self._journal.add(record)
        self._bar.epoch_line(record)
        every = self._training.config.checkpoint.every_epochs
        self._saver.pause(save=every > 0 and epoch % every == 0)

    def _warn_of(self, record: dict[str, Any]) -> None:
        """Says so if something is wrong with the loss of an epoch that is not recorded yet."""
        epoch, loss = record["epoch"], record["loss"]
        if not np.isfinite(loss):
            console.warn(f"epoch {epoch}: the training loss became infinite or not a number")
        if self._timeline.begins_release(epoch) and epoch > 1:
            before = self.progress.records[-1]
            if loss > 2 * before["loss"] and record["accuracy"] < before["accuracy"] - 0.05:
                console.warn(
                    f"the release raised the loss from {before['loss']:.4g} to {loss:.4g}. Perhaps "
                    "the sum of the members' gradients is too large a step for the shared weights: "
                    "late_phase.shared_grad_scale = 1 / late_phase.num_members takes the mean. Or "
                    "late_phase.sigma sets the members too far apart"
                )

    def _reestimate(self) -> None:
        """Batch-norm statistics of the averaged weights, over one more pass of the training set."""
        progress, epochs = self.progress, self._timeline.epochs
        for averages in self._statistics(progress.averages, progress.epoch, done=progress.cycle):
            progress.averages, progress.cycle = averages, progress.cycle + 1
            self._bar.update(1, epoch=epochs, phase="SWA")
            self._saver.pause()

    def _statistics(self, averages: Average, epoch: int, *, done: int = 0) -> Iterator[Average]:
        """The pass that follows the current weights as `epoch`; `averages` is donated to it."""
        if not self._timeline.reestimates:
            return iter([averages])
        return self._runner.reestimate_statistics(
            averages,
            self._training.order(epoch),
            epoch=epoch,
            first_step=int(self.progress.state.step),
            num_members=self._num_members(),
            done=done,
        )

    def _record(self) -> None:
        """Fetches the metrics of all cycles that are still on the devices, at once."""
        fetched = jax.device_get(self._unfetched)
        self._unfetched.clear()
        self.progress.history += fetched
        first = len(self.progress.history) - len(fetched) + 1
        for cycle, metrics in enumerate(fetched, first):
            if not np.isfinite(metrics["loss"]).all():
                step = self._timeline.minibatches(self.progress.epoch, cycle)
                losses = ", ".join(f"{loss:.4g}" for loss in metrics["loss"])
                self._tolerance.judge(
                    f"the loss of step {step} is {losses}", epoch=self.progress.epoch
                )
                break

    def _num_members(self) -> int:
        """K of the progress's arrays; a release at the start of this epoch may still be to come."""
        progress, timeline = self.progress, self._timeline
        to_come = timeline.begins_release(progress.epoch) and not progress.cycle
        return timeline.members(min(progress.epoch - to_come, timeline.epochs))

    def _snapshot(self) -> tuple[int, Progress, str]:
        """The minibatches done, the progress on the host, and what is tolerated of unsoundness."""
        self._record()
        fetched = self._fetched()
        number = self._timeline.minibatches(fetched.epoch, fetched.cycle)
        arrays = {name: to_nested(getattr(fetched, name)) for name in ("state", "averages")}
        fault = soundness.found(arrays)
        if fault:
            fault = f"weights and statistics after step {number} {fault}"
            self._tolerance.judge(fault, epoch=fetched.epoch)
        return number, fetched, fault

    def _fetched(self) -> Progress:
        """The progress with its arrays on the host."""
        progress, num_members = self.progress, self._num_members()
        averages = progress.averages
        corrupt = hosts.exchange(sorted(self._training.source.corrupt))
        if averages is not None:
            averages = self._runner.fetch_average(averages, num_members=num_members)
        return dataclasses.replace(
            progress,
            state=self._runner.fetch(progress.state, num_members=num_members),
            averages=averages,
            corrupt=sorted(set(progress.corrupt).union(*corrupt)),
            seconds=progress.seconds + time.monotonic() - self._start,
        )

    def _results(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `run` returns."""
        _, final, _ = self._snapshot()
        report = final.report()
        report["train"] |= {
            "num_devices": self._training.devices.count,
            "device_kind": self._training.devices.all[0].device_kind,
            "peak_memory_bytes": preflight.peak_memory(),  # of this session
        }
        state = final.averages.state if final.averages else final.state
        return networks.without_optimisers(state), report


def _averaged(average: Average | None, state: State, *, decay: float | None = None) -> Average:
    """As `progress.averaged`, whose first call is compiled."""
    with compiling.told("averages"):
        return averaged(average, state, decay=decay)
