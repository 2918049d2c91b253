"""The training loop: tied, released, averaged; it goes on where its newest checkpoint ends."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment, networks, recipe
from lpw_jax.data import epoch_order
from lpw_jax.devices import hosts, preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console
from lpw_jax.errors import SharedError
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.average import Average
from lpw_jax.method.state import State
from lpw_jax.models import functions
from lpw_jax.training import memory
from lpw_jax.training.journal import Journal
from lpw_jax.training.memory import CYCLES_IN_FLIGHT
from lpw_jax.training.progress import Progress, averaged, stacked
from lpw_jax.training.runner import Runner
from lpw_jax.training.saver import Saver
from lpw_jax.training.timeline import Timeline
from lpw_jax.training.tracking import Tracker

CHECKPOINT_FORMAT = 2  # of the arrays in a checkpoint


class Training:
    """One training run. Building it checks all that can be checked before the start."""

    def __init__(self, config: ConfigDict, dataset: experiment.AnyDataset, devices: Devices):
        self.config, self.devices = config, devices
        self.source = experiment.train_source(config, dataset)
        self.num_examples = len(self.source)
        self.timeline = Timeline(config, self.num_examples)
        self.identity = {
            "format": CHECKPOINT_FORMAT,
            "config": config_lib.digest(config),
            "data": dataset.identity(),
        }
        self.layout = experiment.layout(config, devices.count)
        self.model = experiment.build_model(config, dataset.num_classes)
        self.initial_state, self._pretrained = networks.initial_state(
            config, self.model, self.source.image_shape
        )
        if self._pretrained:
            self.identity["pretrained"] = self._pretrained["sha256"]
        self.member_mode = experiment.member_mode(config, fits=lambda: memory.fits(self))
        self.evaluator = Evaluator(config, dataset, devices)
        self.runner = Runner(
            devices=devices,
            layout=self.layout,
            method=functools.partial(
                recipe.method, config, self.model, member_mode=self.member_mode
            ),
            statistics=lambda axis: functions.statistics(functions.on_axis(self.model, axis)),
            source=self.source,
            key=experiment.purpose_key(config.seed, "network"),
            batch_size=config.train.batch_size,
            num_microbatches=config.train.num_microbatches,
            member_mode=self.member_mode,
        )

    def run(
        self, folder: Workdir, preemption: Preemption | None = None
    ) -> tuple[State, dict[str, Any]]:
        """Trains from the newest checkpoint, or the start, to the end, writing metrics.jsonl.

        Returns:
          The final state without optimisers, on the host, and the parts of results.json that tell
          of the training, by name.

        Raises:
          Preempted: after a checkpoint was saved.
          UserError: the loss is not finite, a file cannot be written, the checkpoints are of
            another run or all damaged.
        """
        options = self.config.checkpoint
        with contextlib.ExitStack() as stack:
            checkpoints = hosts.together(
                lambda: (
                    stack.enter_context(Checkpoints(folder.checkpoints, keep=options.keep))
                    if hosts.is_primary()
                    else None
                )
            )
            self._saver = Saver(
                checkpoints,
                preemption or Preemption(),
                every_minutes=options.every_minutes,
                identity=self.identity,
                snapshot=self._snapshot,
            )
            self._tracker = Tracker(
                runner=self.runner,
                evaluator=self.evaluator,
                statistics=lambda averages: self._statistics(averages, self.progress.epoch + 1),
                pause=lambda: self._saver.pause(between_cycles=False),
                stop=self._stop_unless_tolerated,
            )
            self._start(self._saver.restore(self._like))
            folder.start_session()
            if self._pretrained and not self.progress.pretrained:
                self.progress.pretrained = self._tracker.pretrained(
                    self.initial_state, self._pretrained
                )
            with console.TrainProgress(
                total_steps=self.timeline.num_minibatches,
                first_step=self.timeline.minibatches(self.progress.epoch, self.progress.cycle),
                batch_size=self.config.train.batch_size,
                epochs=self.timeline.epochs,
            ) as self._bar:
                self._journal = Journal(folder, self.progress.records)
                with self._saver.before_errors():
                    while self.progress.epoch <= self.timeline.epochs:
                        self._train_epoch()
                    if self.timeline.averages:
                        self._reestimate()
            if options.every_epochs or options.every_minutes:
                self._saver.save()
            self._saver.wait()
        return self._results()

    def _start(self, restored: Progress | None) -> None:
        """Puts the restored progress, or that of a fresh run, on the devices."""
        self._unfetched, self._session_start = [], time.monotonic()
        self.progress = progress = restored or Progress(self.initial_state)
        if restored:
            console.say(f"resumed at epoch {progress.epoch}, step {int(progress.state.step)}")
        num_members = self._num_members()
        progress.state = self.runner.place(progress.state, num_members=num_members)
        if progress.averages is not None:
            progress.averages = self.runner.place_average(
                progress.averages, num_members=num_members
            )

    def _train_epoch(self) -> None:
        """Trains what is left of the current epoch and records it."""
        progress, timeline, epoch = self.progress, self.timeline, self.progress.epoch
        num_members, rates = timeline.members(epoch), timeline.rates(epoch)
        if timeline.begins_release(epoch) and not progress.cycle:
            released = self.released(self.runner.fetch(progress.state, num_members=1))
            progress.state = self.runner.place(released, num_members=num_members)
        start = time.perf_counter() - progress.epoch_seconds
        for placed, metrics in self.runner.cycles(
            progress.state,
            epoch_order(self.config.seed, epoch, self.num_examples),
            rates,
            epoch=epoch,
            num_members=num_members,
            done=progress.cycle,
        ):
            progress.state, progress.cycle = placed, progress.cycle + 1
            self._unfetched.append(metrics)
            if len(self._unfetched) > CYCLES_IN_FLIGHT:
                jax.block_until_ready(self._unfetched[-1 - CYCLES_IN_FLIGHT])
            progress.epoch_seconds = time.perf_counter() - start
            self._bar.update(num_members, epoch=epoch, phase=timeline.phase(epoch))
            self._saver.pause()
        self._record()
        progress.epoch_seconds = time.perf_counter() - start
        if not np.isfinite(stacked(progress.history)["loss"]).all():
            console.warn(f"epoch {epoch}: the training loss became infinite or not a number")
        record = progress.epoch_record(
            phase=timeline.phase(epoch), rates=rates, batch_size=self.config.train.batch_size
        )
        record |= self._tracker.members(progress.state, num_members=num_members)
        averages = progress.averages
        if timeline.is_averaged(epoch):
            averages = averaged(averages, progress.state)
        # Whoever stops in an evaluation resumes before it: until its end the progress stays.
        if timeline.is_evaluated(epoch):
            record |= self._tracker.evaluations(progress.state, averages, num_members=num_members)
        progress.records.append(record)
        progress.averages = averages
        progress.next_epoch()
        self._journal.add(record)
        self._bar.epoch_line(record)
        every = self.config.checkpoint.every_epochs
        self._saver.pause(save=every > 0 and epoch % every == 0)

    def released(self, tied: State) -> State:
        """The state at the release: members, made of the tied copy. Both on the host."""
        late_phase = self.config.late_phase
        release = functools.partial(
            recipe.method(self.config, self.model).release,
            num_members=late_phase.num_members,
            sigma=late_phase.sigma,
        )
        return jax.jit(release)(tied, experiment.purpose_key(self.config.seed, "release"))

    def _like(self, released: bool) -> State:
        """The shapes of a state."""
        return jax.eval_shape(
            self.released if released else lambda state: state, self.initial_state
        )

    def _reestimate(self) -> None:
        """Batch-norm statistics of the averaged weights, over one more pass of the training set."""
        progress, epochs = self.progress, self.timeline.epochs
        for averages in self._statistics(progress.averages, progress.epoch, done=progress.cycle):
            progress.averages, progress.cycle = averages, progress.cycle + 1
            self._bar.update(1, epoch=epochs, phase="SWA")
            self._saver.pause()

    def _statistics(self, averages: Average, epoch: int, *, done: int = 0) -> Iterator[Average]:
        """The pass that follows the current weights as `epoch`; `averages` is donated to it."""
        return self.runner.reestimate_statistics(
            averages,
            epoch_order(self.config.seed, epoch, self.num_examples),
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
                step = self.timeline.minibatches(self.progress.epoch, cycle)
                losses = ", ".join(f"{loss:.4g}" for loss in metrics["loss"])
                self._stop_unless_tolerated(f"the loss of step {step} is {losses}")
                break

    def _stop_unless_tolerated(self, what: str) -> None:
        """Ends the training for something that is not finite, unless the config says otherwise."""
        train, late_phase = self.config.train, self.config.late_phase
        if train.on_nonfinite == "stop":
            raise SharedError(  # every process sees the same losses
                f"epoch {self.progress.epoch}: {what}; training was stopped. Last good checkpoint: "
                f"{self._saver.newest}. Try, in another --workdir, a lower train.learning_rate "
                f"(now {train.learning_rate}) or late_phase.learning_rate (now "
                f"{late_phase.learning_rate}), or more precision (train.matmul_precision, "
                "train.compute_dtype); train.on_nonfinite = 'warn' would go on"
            )

    def _num_members(self) -> int:
        """K of the progress's arrays; a release at the start of this epoch may still be to come."""
        progress, timeline = self.progress, self.timeline
        to_come = timeline.begins_release(progress.epoch) and not progress.cycle
        return timeline.members(min(progress.epoch - to_come, timeline.epochs))

    def _snapshot(self) -> tuple[int, Progress]:
        """The minibatches done, and the progress on the host, all of it finite."""
        self._record()
        fetched = self._fetched()
        number = self.timeline.minibatches(fetched.epoch, fetched.cycle)
        arrays = jax.tree.leaves((fetched.state, fetched.averages))
        if not all(np.isfinite(array).all() for array in arrays):
            self._stop_unless_tolerated(f"a weight or statistic after step {number} is not finite")
        return number, fetched

    def _fetched(self) -> Progress:
        """The progress with its arrays on the host."""
        progress, num_members = self.progress, self._num_members()
        averages = progress.averages
        corrupt = hosts.exchange(sorted(self.source.corrupt))
        if averages is not None:
            averages = self.runner.fetch_average(averages, num_members=num_members)
        return dataclasses.replace(
            progress,
            state=self.runner.fetch(progress.state, num_members=num_members),
            averages=averages,
            corrupt=sorted(set(progress.corrupt).union(*corrupt)),
            seconds=progress.seconds + time.monotonic() - self._session_start,
        )

    def _results(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `run` returns."""
        _, final = self._snapshot()
        report = final.report()
        report["train"] |= {
            "num_devices": self.devices.count,
            "device_kind": self.devices.all[0].device_kind,
            "peak_memory_bytes": preflight.peak_memory(),  # of this session
        }
        state = final.averages.state if final.averages else final.state
        return networks.without_optimisers(state), report
