"""What a run does about numbers that are not finite."""

import dataclasses

from lpw_jax.errors import SharedError
from lpw_jax.training.saver import Saver


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Ends a training for something that is not finite, or lets it pass.

    Attributes:
      saver: of the run; knows the last good checkpoint.
      on_nonfinite, learning_rate, late_phase_learning_rate: of the config.
    """

    saver: Saver
    on_nonfinite: str
    learning_rate: float
    late_phase_learning_rate: float

    def judge(self, what: str, *, epoch: int) -> None:
        """To be called with what is not finite, on all processes; returns if that is tolerated.

        Raises:
          SharedError: it is not.
        """
        if self.on_nonfinite == "stop":
            raise SharedError(
                f"epoch {epoch}: {what}; training was stopped. Last good checkpoint: "
                f"{self.saver.newest}. Try, in another --workdir, a lower train.learning_rate "
                f"(now {self.learning_rate}) or late_phase.learning_rate (now "
                f"{self.late_phase_learning_rate}), or more precision (train.matmul_precision, "
                "train.compute_dtype); train.on_nonfinite = 'warn' would go on"
            )
