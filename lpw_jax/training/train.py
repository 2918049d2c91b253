"""A training as its config describes it: all that is known before it starts, and its start."""

import contextlib
import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment, networks, recipe
from lpw_jax.data import Dataset, epoch_order
from lpw_jax.data.text import Text
from lpw_jax.data.text_sources import Streams
from lpw_jax.devices import compiling, hosts, preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display.progress_bar import compiling_shown
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files.checkpoint import Checkpoints
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.state import State
from lpw_jax.models import functions
from lpw_jax.training import memory
from lpw_jax.training.runner import Runner
from lpw_jax.training.session import Session
from lpw_jax.training.timeline import Timeline

CHECKPOINT_FORMAT = 2  # of the arrays in a checkpoint


class Training:
    """One training run. Building it checks all that can be checked before the start.

    Attributes:
      devices: in one group, as before the release.
      in_groups: the same in the groups of the released state.

    Args:
      device_memory: bytes that a device of any host has at least; None if that is not known.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: experiment.AnyDataset,
        devices: Devices,
        *,
        device_memory: int | None = None,
    ):
        self.config, self.devices = config, devices
        self.source = experiment.train_source(config, dataset)
        self.num_examples = len(self.source)
        self.timeline = Timeline(config, self.num_examples)
        self.identity = {
            "format": CHECKPOINT_FORMAT,
            "config": config_lib.digest(config),
            "data": dataset.identity(),
        }
        self.in_groups = devices.in_groups(experiment.num_groups(config, devices.count))
        self.model = experiment.build_model(config, dataset.num_classes)
        self._initial, self._start, self.origin = networks.initial(
            config, self.model, self.source.image_shape
        )
        self.tied_like = self._initial.shapes(*self._start)
        if self.origin:
            self.identity["pretrained"] = self.origin["sha256"]
        self.final_like = self.like(self.timeline.is_released(self.timeline.epochs))
        self.step_bytes = functools.partial(
            memory.step_bytes,
            model=self.model,
            state=self.final_like,
            source=self.source,
            batch_size=config.train.batch_size,
            num_microbatches=config.train.num_microbatches,
            devices=self.in_groups,
        )
        self.member_mode = experiment.member_mode(
            config, fits=lambda: preflight.has_room(self.step_bytes("vmap"), device_memory)
        )
        self.evaluator = Evaluator(config, dataset, devices)
        on_cpus = devices.all[0].platform == "cpu" and jax.process_count() == 1
        self._compiles_ahead = on_cpus and isinstance(dataset, Dataset | Text)
        self._begun = self._later = False
        self.runner = Runner(
            devices=self.in_groups,
            method=functools.partial(
                recipe.method, config, self.model, member_mode=self.member_mode
            ),
            statistics=lambda axis: functions.statistics(functions.on_axis(self.model, axis)),
            source=self.source,
            key=experiment.purpose_key(config.seed, "network"),
            batch_size=config.train.batch_size,
            num_microbatches=config.train.num_microbatches,
            member_mode=self.member_mode,
            same_minibatch=config.late_phase.same_minibatch,
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
        with contextlib.ExitStack() as stack:
            keep = self.config.checkpoint.keep
            checkpoints = hosts.together(
                lambda: (
                    stack.enter_context(Checkpoints(folder.checkpoints, keep=keep))
                    if hosts.is_primary()
                    else None
                )
            )
            with compiling_shown():
                session = Session(self, folder, preemption or Preemption(), checkpoints)
            return session.run()

    @functools.cached_property
    def initial_state(self) -> State:
        """The tied state at the start."""
        with compiling.told("initial weights"):
            return self._initial(*self._start)

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of the examples in the order in which `epoch` takes them, int32 [N]."""
        if isinstance(self.source, Streams):
            return self.source.order(
                epoch,
                batch_size=self.config.train.batch_size,
                num_members=self.timeline.members(epoch),
            )
        return epoch_order(self.config.seed, epoch, self.num_examples)

    def begin(self, epoch: int, *, fresh: bool) -> None:
        """Begins, once, to compile what an epoch needs, and if `fresh` the initial state.

        Only on CPUs: accelerators try out programs while they compile them. And only where the
        examples are in memory: others would have to be read to know their shapes.
        """
        if not self._compiles_ahead or self._begun:
            return
        self._begun = self._later = True
        if fresh:
            self._initial.begin(*self._start)
        self._begin_cycle(epoch)

    def begin_later(self, epoch: int) -> None:
        """Begins, once, to compile what comes after the cycles of `epoch`, in the order of need."""
        if not self._later:
            return
        self._later, last = False, self.timeline.epochs
        if self.timeline.members(last) > self.timeline.members(epoch):
            self._begin_cycle(last)
        self.evaluator.begin(networks.without_optimisers(self.final_like))

    def _begin_cycle(self, epoch: int) -> None:
        members, like = self.timeline.members(epoch), self.like(self.timeline.is_released(epoch))
        self.runner.begin(like, self.timeline.rates(epoch), num_members=members)

    def released(self, tied: State) -> State:
        """The state at the release: members, made of the tied copy. Both on the host."""
        with compiling.told("release"):
            return networks.released(self.config, self.model, tied)

    def like(self, released: bool) -> State:
        """Shapes of a state, of the tied or of the released one."""
        return networks.like(self.config, self.model, self.tied_like, is_released=released)
