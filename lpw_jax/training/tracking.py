"""What is seen of a training on its way: how far members are apart, how good the weights are."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax import networks
from lpw_jax.display import console, results_report
from lpw_jax.errors import NotFinite
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.files import described
from lpw_jax.files.results import Pretrained
from lpw_jax.method.average import Average
from lpw_jax.method.state import State
from lpw_jax.training.runner import Runner


@dataclasses.dataclass(frozen=True)
class Tracker:
    """Looks at placed states and changes none of them.

    Attributes:
      runner: the one that placed them.
      evaluator: of the run.
      statistics: the pass that would follow if training ended now, as
        `Runner.reestimate_statistics`: yields averages after every batch, and donates them.
      pause: called between batches; it may end the run.
      stop: called with the reason when predictions are not finite; returns if that is tolerated.
    """

    runner: Runner
    evaluator: Evaluator
    statistics: Callable[[Average], Iterator[Average]]
    pause: Callable[[], None]
    stop: Callable[[str], None]

    def members(self, current: State, *, num_members: int) -> dict[str, float]:
        """`member_distance` of an epoch's record, nothing for one member."""
        if num_members == 1:
            return {}
        return {"member_distance": self.runner.member_distance(current, num_members=num_members)}

    def evaluations(
        self, current: State, averages: Average | None, *, num_members: int
    ) -> dict[str, Any]:
        """`evaluation` of an epoch's record and, with SWA's averages, `evaluation_swa`.

        Each has `Evaluator.views` of the test set, or is None if predictions are not finite.
        """
        found = {"evaluation": self._views(current, num_members)}
        if averages is not None:
            copy = jax.tree.map(jnp.copy, averages)
            for newer in self.statistics(copy):
                copy = newer
                self.pause()
            found["evaluation_swa"] = self._views(copy.state, num_members)
        return found

    def pretrained(self, initial: State, origin: dict[str, Any]) -> dict[str, Any]:
        """`origin` and the test accuracy of pretrained weights, on the host.

        Shows at once what a wrong import or resize would spoil.
        """
        console.say(f"evaluating the pretrained {origin['model']}")
        views = self.evaluator.views(networks.without_optimisers(initial), on_batch=self.pause)
        found = {**origin, **views["collapsed"]}
        console.say(results_report.pretrained_line(described.read(Pretrained, found)))
        return found

    def _views(self, placed: State, num_members: int) -> dict[str, Any] | None:
        state = self.runner.fetch(networks.without_optimisers(placed), num_members=num_members)
        try:
            return self.evaluator.views(state, on_batch=self.pause)
        except NotFinite as error:
            self.stop(f"the test set cannot be evaluated, {error}")
            console.warn(f"the test set was not evaluated: {error}")
            return None
