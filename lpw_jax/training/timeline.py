"""What happens in each epoch of a configured run: phase, members, cycles and rates."""

from ml_collections import ConfigDict

from lpw_jax import registry
from lpw_jax.data import cycles_per_epoch
from lpw_jax.errors import UserError
from lpw_jax.training import schedules


class Timeline:
    """The epochs of a run, which count from 1.

    Args:
      config: of the run.
      num_examples: N, training images.

    Raises:
      UserError: the training images do not fill a single cycle.
    """

    def __init__(self, config: ConfigDict, num_examples: int):
        self._config, self._num_examples = config, num_examples
        self.epochs = config.train.epochs
        self.averages = config.swa.start_epoch > 0
        self.decay = config.swa.decay or None  # of a moving average
        # The state that networks of text carry is no statistic of their weights.
        self.reestimates = self.averages and not registry.data(config.data.name).is_text
        train = config.train
        self._schedule = schedules.Schedule(
            train.schedule,
            start=train.anneal_start,
            end=train.anneal_end,
            end_factor=train.end_learning_rate / train.learning_rate,
            milestones=train.milestones,
            milestone_factor=train.milestone_factor,
            warmup_epochs=train.warmup_epochs,
        )
        if not self.cycles(self.epochs):
            raise UserError(
                f"train.batch_size = {config.train.batch_size}: a cycle of "
                f"{self.members(self.epochs)} minibatches must fit into the {num_examples} "
                f"training images (data.validation_examples = {config.data.validation_examples})"
            )

    def is_released(self, epoch: int) -> bool:
        """Whether members are trained in `epoch`."""
        return schedules.is_released(epoch, release_epoch=self._config.late_phase.release_epoch)

    def begins_release(self, epoch: int) -> bool:
        """Whether members are made just before `epoch`."""
        return self.is_released(epoch) and not self.is_released(epoch - 1)

    def is_frozen(self, epoch: int) -> bool:
        """Whether the shared weights do not move in `epoch`."""
        return 0 <= self._config.train.freeze_epoch < epoch

    def is_averaged(self, epoch: int) -> bool:
        """Whether `epoch` enters the averages: its last weights, or with a `decay` all of them."""
        return 0 < self._config.swa.start_epoch <= epoch

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the test set is evaluated at the end of `epoch`."""
        every = self._config.evaluate.every_epochs
        return every > 0 and (epoch % every == 0 or epoch == self.epochs)

    def phase(self, epoch: int) -> str:
        """'tied', 'late' or 'SWA'."""
        return schedules.phase(
            epoch,
            release_epoch=self._config.late_phase.release_epoch,
            swa_start_epoch=self._config.swa.start_epoch,
        )

    def members(self, epoch: int) -> int:
        """K in `epoch`: 1 before the release."""
        return self._config.late_phase.num_members if self.is_released(epoch) else 1

    def cycles(self, epoch: int) -> int:
        """Cycles of K minibatches in `epoch`."""
        return cycles_per_epoch(
            self._num_examples,
            batch_size=self._config.train.batch_size,
            num_members=1 if self._config.late_phase.same_minibatch else self.members(epoch),
        )

    def rates(self, epoch: int) -> schedules.Rates:
        """Rates and decays of `epoch`. Before the release all weights have the shared ones.

        Learning rates are divided by `num_microbatches`, whose gradients are summed.
        """
        train, late_phase = self._config.train, self._config.late_phase
        factor, parts = self._schedule(epoch), train.num_microbatches
        rate, decay = train.learning_rate * factor / parts, train.weight_decay
        if not self.is_released(epoch):
            return schedules.Rates(rate, decay, rate, decay, 1.0)
        if late_phase.divide_shared_rate:
            rate /= late_phase.num_members
        return schedules.Rates(
            shared_learning_rate=0.0 if self.is_frozen(epoch) else rate,
            shared_weight_decay=decay,
            late_learning_rate=late_phase.learning_rate
            * (factor if late_phase.anneal else 1.0)
            / parts,
            late_weight_decay=late_phase.weight_decay,
            shared_grad_scale=late_phase.shared_grad_scale,
        )

    def plan(self) -> list[schedules.Epoch]:
        """Every epoch, to be shown."""
        return [
            schedules.Epoch(e, self.phase(e), self.members(e), self.cycles(e), self.rates(e))
            for e in range(1, self.epochs + 1)
        ]

    def minibatches(self, epoch: int, cycle: int = 0) -> int:
        """Minibatches done after `cycle` cycles of `epoch`.

        During the pass after SWA `epoch` is one more than there are, and a cycle is a batch.
        """
        before = sum(self.cycles(e) * self.members(e) for e in range(1, epoch))
        return before + cycle * (self.members(epoch) if epoch <= self.epochs else 1)

    @property
    def num_minibatches(self) -> int:
        """Minibatches of the whole run, the pass after SWA included."""
        batches = -(-self._num_examples // self._config.train.batch_size) if self.reestimates else 0
        return self.minibatches(self.epochs + 1, batches)
