"""surface.json: the loss around the networks of a run, on some of its training images."""

from typing import Annotated

from lpw_jax.files.described import Range, described
from lpw_jax.files.measured import Count, Fraction, Positive

Losses = list[float | None]
# Names of networks beside the members, which are "member 0" and so on.
COLLAPSED, LAST = "collapsed", "before averaging"


@described
class Perturbed:
    """The loss after random perturbations of every weight.

    Attributes:
      size: standard deviation of the noise, over the rms of each array of weights.
      loss: of each draw; null where it was not finite.
    """

    size: Positive
    loss: Losses


@described
class Curvature:
    """The loss at one network and close to it.

    Attributes:
      loss, accuracy: at the network.
      eigenvalues: the largest ones of the Hessian, the largest first.
      residuals: how far each may be from an eigenvalue.
      trace, trace_error: of the Hessian, estimated, with its standard error.
      perturbed: by size of the perturbation.
    """

    loss: float
    accuracy: Fraction
    eigenvalues: list[float]
    residuals: list[float]
    trace: float
    trace_error: Positive
    perturbed: list[Perturbed]

    def __post_init__(self):
        _check_lengths(self, "eigenvalues", "residuals")


@described
class Line:
    """The loss on the line through two networks.

    Attributes:
      start, end: names of the networks at 0 and at 1.
      at: where it was computed.
      loss, accuracy: there; null where they were not finite.
    """

    start: str
    end: str
    at: list[float]
    loss: Losses
    accuracy: list[Fraction | None]

    def __post_init__(self):
        _check_lengths(self, "at", "loss", "accuracy")


@described
class Point:
    """Where a network is.

    Attributes:
      x, y: coordinates of the nearest point of the plane.
      distance: from it.
    """

    x: float
    y: float
    distance: Positive


@described
class Plane:
    """The loss on the plane through three members.

    Attributes:
      x, y: coordinates of the columns and rows of a grid, in lengths of weight space.
      loss, accuracy: [row][column]; null where they were not finite.
      networks: where they are, by name.
    """

    x: list[float]
    y: list[float]
    loss: list[Losses]
    accuracy: list[list[Fraction | None]]
    networks: dict[str, Point]

    def __post_init__(self):
        for name in ("loss", "accuracy"):
            rows = getattr(self, name)
            if [len(row) for row in rows] != [len(self.x)] * len(self.y):
                raise ValueError(f"{name}: must have a row for each y, and in it one for each x")


@described
class Surface:
    """surface.json: the training loss without weight decay, in evaluation mode.

    Attributes:
      images: of the training set, without augmentation.
      batch_size: of them at a time.
      num_weights: of one network; the Hessian has as many rows.
      seconds: what it took.
      networks: by name.
      lines: in the order of their computation.
      plane: null if there are not three members, or if they are on a line.
      notes: what was not computed, and why.
    """

    images: Annotated[int, Range(1)]
    batch_size: Annotated[int, Range(1)]
    num_weights: Count
    seconds: Positive
    networks: dict[str, Curvature]
    lines: list[Line]
    plane: Plane | None
    notes: list[str]


def _check_lengths(found: object, *names: str) -> None:
    lengths = {len(getattr(found, name)) for name in names}
    if len(lengths) > 1:
        raise ValueError(f"{', '.join(names)}: must be equally long")
