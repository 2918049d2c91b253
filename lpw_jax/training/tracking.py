"""What is seen of a training on its way: how far members are apart, how good the weights are."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from lpw_jax import networks
from lpw_jax.display import console, results_report
from lpw_jax.errors import NotFinite
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files import described
from lpw_jax.files.results import Pretrained
from lpw_jax.method.average import Average
from lpw_jax.method.state import State
from lpw_jax.training.runner import Runner
from lpw_jax.training.saver import Saver
from lpw_jax.training.tolerance import Tolerance


@dataclasses.dataclass(frozen=True)
class Tracker:
    """Looks at placed states and changes none of them; between batches the run may end.

    Attributes:
      runner: the one that placed them.
      evaluator: of the run.
      saver: of the run.
      tolerance: judges predictions that are not finite.
    """

    runner: Runner
    evaluator: Evaluator
    saver: Saver
    tolerance: Tolerance

    def members(self, current: State, *, num_members: int) -> dict[str, float]:
        """`member_distance` of an epoch's record, nothing for one member."""
        if num_members == 1:
            return {}
        return {"member_distance": self.runner.member_distance(current, num_members=num_members)}

    def evaluations(
        self, current: State, averages: Iterable[Average], *, epoch: int, num_members: int
    ) -> dict[str, Any]:
        """`evaluation` of an epoch's record and, with SWA, `evaluation_swa`.

        Each has `Evaluator.views` of the test set, or is None if predictions are not finite.

        Args:
          averages: those of SWA after every batch of the pass that would follow if training ended
            now, as from `Runner.reestimate_statistics`; nothing without SWA.
        """
        found, last = {"evaluation": self._views(current, epoch, num_members)}, None
        for average in averages:
            last = average
            self._pause()
        if last is not None:
            found["evaluation_swa"] = self._views(last.state, epoch, num_members)
        return found

    def pretrained(self, initial: State, origin: dict[str, Any]) -> dict[str, Any]:
        """`origin` and the test accuracy of pretrained weights, on the host.

        Shows at once what a wrong import or resize would spoil.
        """
        console.say(f"evaluating the pretrained {origin['model']}")
        views = self.evaluator.views(networks.without_optimisers(initial), on_batch=self._pause)
        found = {**origin, **views["collapsed"]}
        console.say(results_report.pretrained_line(described.read(Pretrained, found)))
        return found

    def _pause(self) -> None:
        self.saver.pause(between_cycles=False)

    def _views(self, placed: State, epoch: int, num_members: int) -> dict[str, Any] | None:
        state = self.runner.fetch(networks.without_optimisers(placed), num_members=num_members)
        try:
            return self.evaluator.views(state, on_batch=self._pause)
        except NotFinite as error:
            self.tolerance.judge(f"the test set cannot be evaluated, {error}", epoch=epoch)
            console.warn(f"the test set was not evaluated: {error}")
            return None
