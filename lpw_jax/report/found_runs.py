"""The runs under a folder and how far they are, looked at again and again without JAX."""

import dataclasses
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lpw_jax import config as config_lib
from lpw_jax import config_schema
from lpw_jax.errors import UserError
from lpw_jax.files import checksums, described, lock
from lpw_jax.files.results import Results
from lpw_jax.files.run_files import CONFIG, ENVIRONMENT, METRICS, RESULTS, RunFiles

PAGES = ("report.html", "comparison.html")
_BESIDE = frozenset([lock.NAME, checksums.NAME])  # are read with a run's files
_NAMES = _BESIDE | {CONFIG, ENVIRONMENT, METRICS, RESULTS, *PAGES}
_FOLDERS = 20_000  # at most looked into: whoever names / by mistake gets an answer, too
_SILENT = 600  # seconds, or three epochs, after which a run of another machine shows no life
_REPEATED = ("late_phase.member_mode",)  # changes no result

State = Literal["training", "evaluating", "done", "trained", "stopped", "silent", "damaged"]


@dataclasses.dataclass(frozen=True)
class Found:
    """A run at this moment.

    Attributes:
      place: of its folder below the one that was looked into, with '/'; '.' for that itself.
      state: as `words` says.
      words: how far it is, for readers.
      fields: of its config, by dotted path; without those that change no training.
      records: the lines of metrics.jsonl.
      results: None before the training's end.
      pages: of PAGES, those that it has.
    """

    place: str
    state: State
    words: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    results: Results | None = None
    pages: Sequence[str] = ()

    @property
    def is_alive(self) -> bool:
        """Whether what is shown of it will change by itself."""
        return self.state in ("training", "evaluating")

    @property
    def views(self) -> tuple[Mapping[str, Any] | None, int | None]:
        """The newest evaluation of the test set as in results.json, and its epoch.

        The epoch is None for the final one; both are None where there is none.
        """
        if self.results and self.results.views:
            return described.plain(self.results.views), None
        for record in reversed(self.records):
            if found := record.get("evaluation_swa") or record.get("evaluation"):
                return found, record["epoch"]
        return None, None


class Folder:
    """A folder with runs. What has not changed since the last look is not read again.

    Args:
      root: the folder.
      depth: how deep runs may lie in it; 1 for those directly inside.
    """

    def __init__(self, root: Path, *, depth: int = sys.maxsize):
        self.root, self._depth = root, depth
        self._kept: dict[tuple[str, str], tuple[Any, Any, str]] = {}
        self._readers: dict[str, RunFiles] = {}
        self._fields: dict[str, tuple[Any, dict[str, Any]]] = {}

    def look(self) -> tuple[list[Found], list[str], bool]:
        """The runs, the places of pages outside of runs, and whether all folders were looked into.

        Hidden folders, links and what is inside of runs are left out.
        """
        runs, pages = [], []
        for number, (path, folders, names) in enumerate(_folders(self.root, self._depth)):
            if number >= _FOLDERS:
                return runs, pages, False
            place = Path(path).relative_to(self.root).as_posix()
            if found := self._run(path, place, names):
                runs.append(found)
                if found.state != "damaged":  # that may be another program's
                    folders.clear()
            else:
                pages += [_join(place, name) for name in PAGES if name in names]
        return runs, pages, True

    def _run(self, path: str, place: str, names: set[str]) -> Found | None:
        """The run in a folder; None if there is none, or files of another program."""
        if not names & {CONFIG, RESULTS}:
            return None
        files = self._readers.setdefault(path, RunFiles(path))
        pages = [name for name in PAGES if name in names]
        try:
            results = self._read(files, RESULTS)
            source = results or self._read(files, CONFIG)  # results have the config, too
            records = self._read(files, METRICS) or []
        except UserError as error:
            if len(names & {CONFIG, ENVIRONMENT, METRICS, RESULTS}) < 2:
                return None
            return Found(place, "damaged", str(error), pages=pages)
        if source is None:  # removed meanwhile
            return None
        if self._fields.get(path, (None,))[0] is not source:
            self._fields[path] = source, _fields(source)
        fields = self._fields[path][1]
        try:
            state, words = _state(path, names, fields["train.epochs"], records, results)
        except OSError:  # likewise
            return None
        return Found(place, state, words, fields, records, results, pages)

    def _read(self, files: RunFiles, name: str) -> Any:
        path = os.path.join(files.path, name)
        try:
            found = os.stat(path)
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        stamp = found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
        key = str(files.path), name
        if self._kept.get(key, (None,))[0] != stamp:
            try:
                self._kept[key] = stamp, files.read(name), ""
            except UserError as error:  # its text alone: raised again and again, it would grow
                self._kept[key] = stamp, None, str(error)
        _, value, fault = self._kept[key]
        if fault:
            raise UserError(fault)
        return value


def differing(runs: Iterable[Found]) -> list[str]:
    """The fields of which not all runs have the same value; the seed is the first of them.

    Late-phase fields do not count in runs that never release members.
    """
    seen: dict[str, list[Any]] = {}
    for run in runs:
        for name in run.fields:
            if (value := value_of(run, name)) is not None:
                seen.setdefault(name, []).append(value)
    found = [name for name, values in seen.items() if any(v != values[0] for v in values)]
    return sorted(found, key=lambda name: name != "seed")


def value_of(run: Found, field: str) -> Any:
    """A field of its config; None where it means nothing."""
    release = run.fields.get("late_phase.release_epoch", 0)
    if release < 0 and field.startswith("late_phase.") and field != "late_phase.release_epoch":
        return None
    return run.fields.get(field)


def age(seconds: float) -> str:
    """How long ago, in words: '14 s', '3 min', '2 h', '5 d'."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def natural(text: str) -> list[Any]:
    """Sorts seed10 behind seed9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _folders(root: Path, depth: int) -> Iterator[tuple[str, list[str], set[str]]]:
    """Folders, the folders in each, of which those that the caller leaves are next, and files.

    The files are those of _NAMES that are plain. None are told where a run's lock or checksums are
    something else: whoever reads a pipe waits for ever.
    """
    for path, folders, files in os.walk(root):
        is_deep = len(Path(path).parts) - len(root.parts) >= depth
        seen = () if is_deep else (name for name in folders if not name.startswith("."))
        folders[:] = sorted(seen, key=natural)
        there = _NAMES.intersection(files)
        plain = {name for name in there if _is_plain(os.path.join(path, name))}
        yield path, folders, plain if there & _BESIDE <= plain else set()


def _is_plain(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:  # removed meanwhile, as whoever reads it will find
        return True


def _fields(source: Any) -> dict[str, Any]:
    """The fields that `Found` has, of a config or of the one in results."""
    tree = source.config if isinstance(source, Results) else config_lib.to_dict(source)
    flat = config_schema.flatten(tree)
    left_out = (*config_lib.NOT_TRAINED, *_REPEATED)
    return {name: value for name, value in flat.items() if name not in left_out}


def _join(place: str, name: str) -> str:
    return name if place == "." else f"{place}/{name}"


def _state(
    path: str,
    names: set[str],
    epochs: int,
    records: Sequence[Mapping[str, Any]],
    results: Results | None,
) -> tuple[State, str]:
    if results and results.status == "complete":
        return "done", _done(results)
    holder = lock.state(path)
    if results:
        if holder == "held":
            return "evaluating", "evaluating"
        return "trained", "trained, not evaluated: lpw_jax.evaluate does it"
    done = len(records)
    newest = METRICS if done else ENVIRONMENT if ENVIRONMENT in names else CONFIG
    seconds = time.time() - os.path.getmtime(os.path.join(path, newest))
    ago = f"{age(seconds)} ago"
    last = f"last line {ago}" if done else f"begun {ago}"
    epoch_seconds = records[-1]["seconds"] if done else 0.0
    if holder == "held" or (holder == "unknown" and seconds < max(_SILENT, 3 * epoch_seconds)):
        at = f"epoch {done + 1} of {epochs}" if done < epochs else f"all {epochs} epochs done"
        return "training", f"training, {at}, {last}"
    far = f"{done} of {epochs} epochs done, {last}"
    if holder == "unknown":
        return "silent", f"no sign of life, {far}"
    if done and records[-1]["loss"] is None:
        return "stopped", f"stopped, the loss was not finite, {far}"
    return "stopped", f"{'killed' if holder == 'left' else 'stopped'}, {far}"


def _done(results: Results) -> str:
    if results.ensemble_of:
        return f"done, deep ensemble of {len(results.ensemble_of.runs)}"
    if results.soup_of:
        return f"done, soup of {len(results.soup_of.runs)}"
    if results.imported:
        return "done, imported"
    view = results.views.collapsed
    return "done" if view and view.accuracy is not None else "done, its figures are not finite"
