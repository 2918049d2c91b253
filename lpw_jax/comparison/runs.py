"""Finds runs under what the user named, and gathers the seeds of each config."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from lpw_jax.comparison import naming, overview, quantities, settings
from lpw_jax.comparison.sides import Run, Side, measure, places
from lpw_jax.errors import UserError
from lpw_jax.files import storage
from lpw_jax.files.results import EnsembleOf
from lpw_jax.files.run_files import RESULTS, RunFiles
from lpw_jax.measures.views import VIEWS
from lpw_jax.report.found_runs import natural

_DEEP = "a deep ensemble's averaged prediction stands in both views"
_IMPORTED = (
    "imported from the PyTorch code, not trained here; its settings are as the import was told"
)
_FINAL = (RESULTS, overview.FILE)
_WILD = r"[*?\[]"


def gather(named: Sequence[str], *, left_out: list[str]) -> list[Side]:
    """The sides that workdirs, folders of them, globs and files of results make.

    Several seeds of one config are one side, in the order in which they were named. What is not
    finished or comes twice is left out, with a line about it in `left_out`.

    Raises:
      UserError: there is nothing under a name, or a file is not as a run writes it.
    """
    several = len(named) > 1
    found = (_files(name, left_out, several or _is_glob(name)) for name in named)
    files = dict.fromkeys(itertools.chain.from_iterable(found))
    ours = [run for file in files if not _is_pytorch(file) for run in _run(file, left_out)]
    torch = [file for file in files if _is_pytorch(file)]
    return naming.named_apart([*_grouped(ours, left_out), *_pytorch_sides(torch, left_out)])


def _is_glob(name: str) -> bool:
    return bool(re.search(_WILD, name)) and not storage.path(name).exists()


def _files(name: str, left_out: list[str], lenient: bool) -> Iterator[epath.Path]:
    """The files of results under a name, of ours and of the PyTorch code."""
    with storage.reading(name):
        runs = 0
        for place in _expanded(name):
            if storage.is_file(place):
                if lenient and place.suffix not in (".json", ".txt"):
                    runs += 1
                    left_out.append(f"{place}: no results of a run; left out")
                    continue
                runs += 1
                yield place
                continue
            if not place.exists():
                raise UserError(f"{name}: there is no such file or folder")
            folders = _run_folders(place)
            if lenient and not folders:
                runs += 1
                left_out.append(f"{place}: no run and no folder of runs; left out")
            for folder in folders:
                runs += 1
                found = [folder / file for file in _FINAL if (folder / file).exists()]
                if not found:
                    left_out.append(f"{folder}: not finished, it has no {RESULTS}; left out")
                yield from found
        if not runs:
            raise UserError(
                f"{name}: must name runs or folders of runs, but there is neither a {RESULTS} nor "
                f"a {overview.FILE}"
            )


def _run_folders(place: epath.Path) -> list[epath.Path]:
    """A run's folder itself, or the runs directly in a folder."""

    def is_run(folder):
        return any((folder / file).exists() for file in ("config.json", *_FINAL))

    if is_run(place):
        return [place]
    inner = sorted((path for path in place.iterdir() if path.is_dir()), key=_natural)
    found = [folder for folder in inner if is_run(folder)]
    deeper = (path for folder in inner for path in sorted(folder.iterdir(), key=_natural))
    return found or [path for path in deeper if path.is_dir() and is_run(path)]


def _expanded(name: str) -> list[epath.Path]:
    """The paths of a glob, sorted; a name without wildcards is its own."""
    place = storage.path(name)
    if not _is_glob(name):
        return [place]
    parts = place.parts
    first = next(i for i, part in enumerate(parts) if re.search(_WILD, part))
    root = epath.Path(*parts[:first])
    return sorted(root.glob("/".join(parts[first:])), key=_natural)


def _natural(place: epath.Path) -> list[Any]:
    return natural(str(place))


def _home(file: epath.Path) -> epath.Path:
    """The run's folder; a file that was given another name stands for itself."""
    place = file.parent if file.name in _FINAL else file.with_suffix("")
    return place if storage.is_remote(place) else epath.Path(place.resolve())


def resolved(place: str) -> str:
    """The one name of a run's place, however it was written: absolute, without links."""
    path = storage.path(place)
    path = path if storage.is_remote(path) else epath.Path(os.path.realpath(path))
    return str(path.parent if path.name == RESULTS else path)


def _is_pytorch(file: epath.Path) -> bool:
    return file.suffix == ".txt"


def _run(
    file: epath.Path, left_out: list[str]
) -> list[tuple[Run, epath.Path, str, settings.Fields]]:
    """[(run, its home, data set, settings)], or nothing if it is not finished."""
    files = RunFiles(file.parent)
    results = files.read_results(file.name)
    place = str(file.parent if file.name == RESULTS else file)
    if results.status != "complete":
        left_out.append(
            f"{place}: not finished, its status is 'trained'; left out: run python -m "
            f"lpw_jax.evaluate --workdir {place}"
        )
        return []
    values = {
        view: quantities.of_view(found) for view in VIEWS if (found := getattr(results.views, view))
    }
    if not all("accuracy" in found for found in values.values()):
        left_out.append(f"{place}: has no accuracy, as after a diverged training; left out")
        return []
    run, deep = Run(place, results.seed, values, results, files), results.ensemble_of
    parts = deep or results.soup_of
    home = _home(storage.path(parts.runs[0]) / RESULTS if parts else file)
    return [(run, home, results.data.name, settings.of_results(results, _ensemble_of(deep)))]


def _grouped(
    found: Iterable[tuple[Run, epath.Path, str, settings.Fields]], left_out: list[str]
) -> list[Side]:
    groups: dict[str, list] = {}
    for run, home, dataset, fields in found:
        key = repr((dataset, sorted(fields.items())))
        groups.setdefault(key, []).append((run, home, dataset, fields))
    sides = []
    for group in groups.values():
        by_seed: dict[Any, Run] = {}
        for run, *_ in group:
            first = by_seed.setdefault(_seeds(run), run)
            if first is not run:
                left_out.append(
                    f"{run.place}: seed {_seeds(run)} again, as {first.place}; left out"
                )
        _, home, dataset, fields = group[0]
        runs = tuple(by_seed.values())
        sides.append(
            Side(
                naming.name_of(fields, home),
                "runs",
                places(runs),
                dataset,
                fields,
                measure(runs),
                runs,
                remarks=tuple(_remarks(fields)),
            )  # fmt: skip
        )
    return sides


def _ensemble_of(deep: EnsembleOf | None) -> dict[str, Any]:
    """A deep ensemble without its seeds: of a mixed one, whose runs differ, also what they are."""
    if deep is None:
        return {}
    different = ", ".join(sorted(deep.different))
    homes = (_home(storage.path(place) / RESULTS) for place in deep.runs)
    return {
        "networks": len(deep.runs),
        "view": deep.view,
        "different": different,
        "runs": ", ".join(sorted(map(naming.folder_name, homes))) if different else "",
    }


def _remarks(fields: settings.Fields) -> Iterator[str]:
    """What a reader has to know of runs with these settings."""
    if fields["imported"]:
        yield _IMPORTED
    if fields["networks"] > 1:
        members = {"collapsed": "collapsed networks"}.get(fields["ensemble_of.view"], "ensembles")
        yield f"{_DEEP}; its runs take part as {members}"
        if different := fields["ensemble_of.different"]:
            yield (
                f"a mixed deep ensemble: its runs differ in {different}, and the settings are "
                "those of the first"
            )


def _seeds(run: Run) -> Any:
    """What tells runs of one config apart: the seed, or those of what was made of several runs."""
    parts = run.results.ensemble_of or run.results.soup_of
    return run.seed if not parts else ", ".join(map(str, parts.seeds))


def _pytorch_sides(files: list[epath.Path], left_out: list[str]) -> list[Side]:
    """Runs of equal size and length in folders named alike; their files tell no more."""
    groups: dict[tuple, list[tuple[epath.Path, dict[str, Any]]]] = {}
    for file in files:
        found = overview.read(file)
        if reason := overview.unfinished(found):
            left_out.append(f"{file}: {reason}; left out")
            continue
        size = found.get("num_parameters"), found.get("num_coefs"), found.get("num_train_epochs")
        home = _home(file)
        groups.setdefault((*size, home.parent, naming.stem(home)), []).append((file, found))
    sides = []
    for (*_, parent, stem), group in groups.items():
        runs = tuple(
            Run(str(file), None, overview.quantities(found), facts=found) for file, found in group
        )
        remarks = dict.fromkeys(note for _, found in group for note in overview.remarks(found))
        sides.append(
            Side(
                name=f"PyTorch {stem or parent.name}",
                kind="pytorch",
                source=places(runs),
                dataset=None,
                fields=None,
                measured=measure(runs),
                runs=runs,
                remarks=tuple(remarks),
            )
        )
    return sides
