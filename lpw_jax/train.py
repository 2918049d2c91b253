"""Training: tied, released, averaged; then evaluated."""

import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import console, evaluate, experiment, optimizers, schedules, state, swa
from lpw_jax.data import Dataset, epoch_order
from lpw_jax.errors import UserError
from lpw_jax.parallel import DataParallel
from lpw_jax.runner import Runner
from lpw_jax.workdir import Workdir


def run(config: ConfigDict, *, workdir: str) -> dict[str, Any]:
    """Trains and evaluates what `config` describes; returns the contents of results.json.

    A finished run of the same config is not repeated: its results are shown and returned. One that
    ended between training and evaluation is evaluated.

    Raises:
      UserError: anything that the user can mend, before training starts.
    """
    with jax.enable_x64(config.train.compute_dtype == "float64"):
        folder, devices = Workdir(workdir), DataParallel.over()
        config_lib.check_devices(config, devices.num_devices)
        results = earlier_results(config, folder)
        if results and results["status"] == "complete":
            print(f"{workdir} holds this run, finished; lpw_jax.evaluate evaluates it again")
            console.terminal.print(console.results_table(results))
            return results
        experiment.check_patterns(config)
        console.terminal.print(f"workdir {workdir}; loading {config.data.name}")
        dataset, ood_sets = experiment.load_data(config)
        if results:
            print(f"{workdir} holds this run, trained but not evaluated")
            weights = folder.load_weights()
        else:
            training = Training(config, dataset, devices)
            console.print_config(config_lib.to_dict(config))
            console.terminal.print(
                console.parameter_table(training.state.shared, training.state.late_phase)
            )
            console.terminal.print(training.plan())
            if folder.start(config_lib.to_dict(config)):
                console.terminal.print("an earlier, unfinished attempt is started again")
            weights, cost = training.run(folder)
            folder.save_weights(weights)
            folder.write_json("results.json", evaluate.summarize(config, weights, dataset, cost))
        return evaluate.finish(config, weights, dataset, ood_sets, devices, folder)


def earlier_results(config: ConfigDict, folder: Workdir) -> dict[str, Any] | None:
    """results.json of an earlier run of `config` in `folder`, None if it must be trained.

    Raises:
      UserError: the folder holds another run, or something else.
    """
    folder.check_free()
    stored = folder.read_json("config.json")
    if stored is None:
        return None
    differing = config_lib.differences(stored, config_lib.to_dict(config))
    if differing:
        raise UserError(
            f"--workdir = {str(folder.path)!r}: holds a run of another config; choose another "
            f"folder. Different: {'; '.join(differing)}"
        )
    return folder.read_results()


class Training:
    """One training run in memory. Building it checks all that can be checked before the start."""

    def __init__(self, config: ConfigDict, dataset: Dataset, devices: DataParallel):
        self.config, self.devices = config, devices
        self.num_examples = len(dataset.train_labels)
        self.tx = optimizers.sgd(momentum=config.train.momentum, nesterov=config.train.nesterov)
        self._check_cycles()
        self.member_mode = experiment.member_mode(config)
        model = experiment.build_model(config, dataset.num_classes)
        self.state = state.init(
            experiment.purpose_key(config.seed, "init"),
            model,
            image_shape=dataset.train_images.shape[1:],
            patterns=config.late_phase.patterns,
            tx=self.tx,
        )
        self.runner = Runner(
            devices=devices,
            model=model,
            tx=self.tx,
            coasting=config.late_phase.coasting,
            member_mode=self.member_mode,
            batch=experiment.build_batch(config, dataset),
            images=dataset.train_images,
            labels=dataset.train_labels,
            batch_size=config.train.batch_size,
        )

    def run(self, folder: Workdir) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trains from start to end, writing metrics.jsonl.

        Returns:
          The final `shared`, `late_phase` and `batch_stats`, and the `train` part of results.json.
        """
        config = self.config
        self.state = self.devices.replicate(self.state)
        averages, images, epoch_seconds, start = None, 0, 0.0, time.perf_counter()
        with console.TrainProgress(
            total_steps=self._num_minibatches(),
            batch_size=config.train.batch_size,
            epochs=config.train.epochs,
        ) as progress:
            for epoch in range(1, config.train.epochs + 1):
                if epoch == config.late_phase.release_epoch + 1:
                    self.release()
                record = self.train_epoch(epoch, progress)
                if 0 < config.swa.start_epoch <= epoch:
                    if averages is None:
                        averages = swa.init(self.state)
                    averages = swa.update(averages, self.state)
                folder.append_metrics(record)
                progress.epoch_line(record)
                images += record["images"]
                epoch_seconds += record["seconds"]
            weights = {
                "shared": self.state.shared,
                "late_phase": self.state.late_phase,
                "batch_stats": self.state.batch_stats,
            }
            if averages is not None:
                weights |= {"shared": averages.shared, "late_phase": averages.late_phase}
                weights["batch_stats"] = self.reestimate(weights, progress)
        cost = {
            "epochs": config.train.epochs,
            "seconds": time.perf_counter() - start,
            "images_per_second": images / epoch_seconds,
        }
        return jax.device_get(weights), cost

    def release(self) -> None:
        """Makes members of the tied copy."""
        late_phase = self.config.late_phase
        self.state = self.devices.replicate(
            state.release(
                self.state,
                experiment.purpose_key(self.config.seed, "release"),
                num_members=late_phase.num_members,
                sigma=late_phase.sigma,
                tx=self.tx,
            )
        )

    def train_epoch(self, epoch: int, progress: "console.TrainProgress") -> dict[str, Any]:
        """One epoch; returns its line of metrics.jsonl."""
        config = self.config
        released = schedules.is_released(epoch, release_epoch=config.late_phase.release_epoch)
        rates = schedules.rates(
            epoch,
            released=released,
            anneal_start=config.train.anneal_start,
            anneal_end=config.train.anneal_end,
            learning_rate=config.train.learning_rate,
            end_learning_rate=config.train.end_learning_rate,
            weight_decay=config.train.weight_decay,
            late_learning_rate=config.late_phase.learning_rate,
            late_weight_decay=config.late_phase.weight_decay,
            shared_grad_scale=config.late_phase.shared_grad_scale,
        )
        phase = schedules.phase(
            epoch,
            release_epoch=config.late_phase.release_epoch,
            swa_start_epoch=config.swa.start_epoch,
        )
        start = time.perf_counter()
        self.state, history = self.runner.train_epoch(
            self.state,
            epoch_order(config.seed, epoch, self.num_examples),
            rates,
            on_cycle=lambda minibatches: progress.update(minibatches, epoch=epoch, phase=phase),
        )
        seconds = time.perf_counter() - start
        if not np.isfinite(history["loss"]).all():
            raise UserError(
                f"epoch {epoch}: the training loss became infinite or not a number; try a lower "
                f"train.learning_rate (now {config.train.learning_rate})"
            )
        images = history["loss"].size * config.train.batch_size
        return {
            "epoch": epoch,
            "phase": phase,
            "step": int(self.state.step),
            "learning_rate": rates.shared_learning_rate,
            "late_phase_learning_rate": rates.late_learning_rate,
            "loss": float(history["loss"].mean()),
            "accuracy": float(history["accuracy"].mean()),
            "member_loss": history["loss"].mean(0).tolist(),
            "member_accuracy": history["accuracy"].mean(0).tolist(),
            "images": images,
            "seconds": seconds,
            "images_per_second": images / seconds,
        }

    def reestimate(self, weights: dict[str, Any], progress: "console.TrainProgress") -> Any:
        """Batch-norm statistics of averaged weights, over one more pass of the training set."""
        epochs = self.config.train.epochs
        return self.runner.reestimate_statistics(
            weights,
            self.state.batch_stats,
            epoch_order(self.config.seed, epochs + 1, self.num_examples),
            int(self.state.step),
            on_batch=lambda minibatches: progress.update(minibatches, epoch=epochs, phase="SWA"),
        )

    def plan(self) -> str:
        """What will run, where, in words."""
        config, device = self.config, self.devices.devices[0]
        release, swa_start = config.late_phase.release_epoch, config.swa.start_epoch
        lines = [f"{self.devices.num_devices} x {device.device_kind}, members: {self.member_mode}"]
        if release != 0:
            last = config.train.epochs if release < 0 else release
            lines.append(f"epochs 1 to {last}: tied, {self._cycles(1)} minibatches each")
        if release >= 0:
            lines.append(
                f"epochs {release + 1} to {config.train.epochs}: {self._members(release + 1)} "
                f"members, {self._cycles(release + 1)} cycles each"
            )
        if swa_start:
            lines.append(f"epochs {swa_start} to {config.train.epochs}: averaged (SWA)")
        return "\n".join(lines)

    def _members(self, epoch: int) -> int:
        late_phase = self.config.late_phase
        released = schedules.is_released(epoch, release_epoch=late_phase.release_epoch)
        return late_phase.num_members if released else 1

    def _cycles(self, epoch: int) -> int:
        return schedules.cycles_per_epoch(
            self.num_examples,
            batch_size=self.config.train.batch_size,
            num_members=self._members(epoch),
        )

    def _num_minibatches(self) -> int:
        """Minibatches of the whole run, the pass after SWA included."""
        epochs = range(1, self.config.train.epochs + 1)
        total = sum(self._cycles(epoch) * self._members(epoch) for epoch in epochs)
        if self.config.swa.start_epoch:
            total += -(-self.num_examples // self.config.train.batch_size)
        return total

    def _check_cycles(self) -> None:
        if not self._cycles(self.config.train.epochs):
            raise UserError(
                f"train.batch_size = {self.config.train.batch_size}: a cycle of "
                f"{self._members(self.config.train.epochs)} minibatches must fit into the "
                f"{self.num_examples} training images "
                f"(data.validation_examples = {self.config.data.validation_examples})"
            )
