"""A side of a comparison: several seeds of one config, or what was published of it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from lpw_jax.comparison.settings import Fields
from lpw_jax.comparison.statistics import Sample
from lpw_jax.files.results import Results
from lpw_jax.files.run_files import RunFiles


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    Attributes:
      place: where it lies, as the user may name it.
      seed: None if unknown.
      values: quantities by view, percentages in percent: values['collapsed']['accuracy'].
      results: results.json; None of the PyTorch code's.
      files: of its folder; None of the PyTorch code's.
      facts: what the PyTorch code's file tells, by key.
    """

    place: str
    seed: int | None
    values: Mapping[str, Mapping[str, float]]
    results: Results | None = dataclasses.field(default=None, repr=False)
    files: RunFiles | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True)
class Measured:
    """A quantity of a side: its sample and, where runs are known, the value of each by seed."""

    sample: Sample
    values: tuple[tuple[int | None, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Side:
    """What is compared with another side.

    Attributes:
      name: of the config, or of the folder.
      kind: 'runs', 'published' or 'pytorch'.
      source: where its figures come from, in words.
      dataset: name of its data set; None if its files do not tell.
      fields: what was trained; None if its files do not tell.
      measured: by view and quantity.
      runs: empty for published figures.
      remarks: what a reader has to know of it.
    """

    name: str
    kind: str
    source: str
    dataset: str | None
    fields: Fields | None
    measured: Mapping[str, Mapping[str, Measured]]
    runs: tuple[Run, ...] = ()
    remarks: tuple[str, ...] = ()

    def view(self, name: str) -> Mapping[str, Measured]:
        """What there is of a view; a deep ensemble has but one, which stands for both."""
        only_ensemble = set(self.measured) == {"ensemble"}
        return self.measured.get("ensemble" if only_ensemble else name, {})


def places(runs: Iterable[Run]) -> str:
    """Where runs lie; of those in one folder, all but the first by their own name."""
    found, folder = [], None
    for run in runs:
        parent, _, name = run.place.rpartition("/")
        found.append(name if parent and parent == folder else run.place)
        folder = parent
    return ", ".join(found)


def measure(runs: Iterable[Run]) -> dict[str, dict[str, Measured]]:
    """Gathers the runs' quantities, each over those runs that have it."""
    found: dict[str, dict[str, list]] = {}
    for run in runs:
        for view, values in run.values.items():
            for name, value in values.items():
                found.setdefault(view, {}).setdefault(name, []).append((run.seed, value))
    return {
        view: {
            name: Measured(Sample.of([value for _, value in pairs]), tuple(pairs))
            for name, pairs in quantities.items()
        }
        for view, quantities in found.items()
    }
