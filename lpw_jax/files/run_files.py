"""What the folder of a run holds, read and checked: by form, and by checksum."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict
from numpy.typing import NDArray

from lpw_jax import config as config_lib
from lpw_jax.display import console
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import checksums, described, limits, pictures, predictions, storage
from lpw_jax.files.environment import Environment
from lpw_jax.files.measured import Epoch
from lpw_jax.files.results import Results
from lpw_jax.files.surface import Surface
from lpw_jax.measures import bounds

CONFIG, ENVIRONMENT = "config.json", "environment.json"
METRICS, RESULTS = "metrics.jsonl", "results.json"
SURFACE = "surface.json"
CHECKPOINTS = "checkpoints"
_OLD = "checksums.json has no checksum of it (older runs have none), so it cannot be checked"


class RunFiles:
    """Files of one run under `path`, which may be local or remote (gs://...).

    Methods that read raise a UserError for a file that is not as a run writes it. A file of text
    that was changed since is warned about, and what else was changed is refused.
    """

    def __init__(self, path: epath.PathLike):
        self.path = storage.path(path)
        self._checksums, self._told = checksums.Checksums(self.path), set()

    @property
    def checkpoints(self) -> epath.Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def read_config(self) -> ConfigDict | None:
        """config.json, with base's values for fields younger than it; None if there is none."""
        return self.read(CONFIG)

    def read_environment(self) -> Environment | None:
        """environment.json, None if there is none."""
        return self.read(ENVIRONMENT)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, each an `Epoch` in JSON's types; none without the file."""
        return self.read(METRICS) or []

    def read_results(self, name: str = RESULTS) -> Results | None:
        """results.json, None if training has not ended."""
        return self.read(name, as_=RESULTS)

    def read_surface(self) -> Surface | None:
        """surface.json, None if there is none."""
        return self.read(SURFACE)

    def read_trained(self) -> tuple[ConfigDict, Results]:
        """Config and results of a run whose training has ended.

        Raises:
          UserError: there is no such run in the folder.
        """
        results = self.read_results()
        if results is None:
            raise UserError(
                f"--workdir = {str(self.path)!r}: must hold a finished training; see lpw_jax.main"
            )
        try:
            config = self.read_config()
        except UserError as error:
            self._warn(f"{error}; the config in {RESULTS} is taken")
            config = None
        return config or config_lib.from_dict(results.config), results

    def load_weights(self) -> dict[str, Any]:
        """The final weights as numpy arrays.

        Raises:
          UserError: there are none, because training has not finished, or they are damaged, or
            not those of a trained network.
        """
        from lpw_jax.files import checkpoint  # JAX, which the text files do without
        from lpw_jax.weights import soundness

        place = self.path / "weights"
        if not place.exists():
            raise UserError(
                f"--workdir = {str(self.path)!r}: must hold the final weights of a finished "
                "training, but there is no folder 'weights' in it"
            )
        weights = checkpoint.load_weights(place)
        remedy = f"without {RESULTS}, lpw_jax.main writes them again from the last checkpoint"
        self._check("weights", checkpoint.checksum(weights), remedy)
        soundness.check(place, weights)
        return weights

    def has_predictions(self, name: str) -> bool:
        """Whether there is predictions/NAME.npz."""
        return self._predictions(name).exists()

    def load_predictions(
        self, name: str, arrays: Sequence[str], results: Results
    ) -> dict[str, NDArray]:
        """Some arrays of predictions/NAME.npz and its `label`, as `measures.views` describes them.

        Raises:
          UserError: the file is missing or damaged, lacks an array, or does not fit `results`.
        """
        file = self._predictions(name)
        found = predictions.load(file, arrays, name=name, data=results.data, remedy=self._again)
        self._check(f"predictions/{file.name}", checksums.of_file(file, file.name), self._again)
        return found

    def load_pictures(self) -> dict[str, pictures.Shown]:
        """The images that a report shows, by set as in predictions/; none in older runs.

        Raises:
          UserError: the file is damaged.
        """
        file = self._predictions(pictures.NAME)
        if not file.exists():
            return {}
        found = pictures.load(file, self._again)
        self._check(f"predictions/{file.name}", checksums.of_file(file, file.name), self._again)
        return found

    @property
    def _again(self) -> str:
        return f"'python -m lpw_jax.evaluate --workdir {self.path}' writes it again"

    def _predictions(self, name: str) -> epath.Path:
        return self.path / "predictions" / f"{name}.npz"

    def read(self, name: str, *, as_: str = "") -> Any:
        """One of the files of text, which may have another name than its kind, `as_`."""
        file = self.path / name
        if not file.exists():
            return None
        try:
            content = file.read_bytes()
            found = _READERS[as_ or name](content)
        except Exception as error:  # bytes that are no text, endless brackets, other forms
            raise UserError(
                f"{file}: must be JSON as a run writes it; {first_line(error)}"
            ) from error
        if self._checksums.agree(name, zlib.crc32(content)) is False:
            self._warn(
                f"{file} is not what the run wrote (checksum): it was changed, or is damaged"
            )
        return found

    def _check(self, name: str, checksum: int, remedy: str) -> None:
        """Refuses what was not written with this checksum."""
        agrees = self._checksums.agree(name, checksum)
        if agrees is None:
            self._warn(f"{self.path / name}: {_OLD}")
        elif not agrees:
            raise UserError(
                f"{self.path / name}: damaged, or of another run: the contents are not those that "
                f"were written (checksum); {remedy}"
            )

    def _warn(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            console.warn(line)


def _config(content: bytes) -> ConfigDict:
    return config_lib.from_dict(described.read(dict[str, Any], limits.loads(content)))


def _environment(content: bytes) -> Environment:
    return described.read(Environment, limits.loads(content))


def _epochs(content: bytes) -> list[dict[str, Any]]:
    lines = [limits.loads(line) for line in content.splitlines()]
    for number, line in enumerate(lines, 1):
        epoch = described.read(Epoch, line, f"line {number}").epoch
        if epoch != number:
            raise ValueError(f"line {number}.epoch = {epoch}: must be {number}")
    return lines


def _results(content: bytes) -> Results:
    value = limits.loads(content)
    results = described.read(Results, value)
    if fault := bounds.impossible_results(value):
        raise ValueError(fault)
    config = config_lib.to_dict(config_lib.from_dict(results.config))
    return dataclasses.replace(results, config=config)


def _surface(content: bytes) -> Surface:
    return described.read(Surface, limits.loads(content))


_READERS = {
    CONFIG: _config,
    ENVIRONMENT: _environment,
    METRICS: _epochs,
    RESULTS: _results,
    SURFACE: _surface,
}
