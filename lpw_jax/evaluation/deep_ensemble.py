"""Deep ensembles: the predictions of independent runs, averaged (Lakshminarayanan et al., 2017).

They are made of what the runs predicted (`predictions/`); nothing is computed by a network again.
"""

import argparse
import functools
import statistics
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from lpw_jax import config as config_lib
from lpw_jax.data import ood
from lpw_jax.display import console, results_report
from lpw_jax.errors import UserError
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import metrics
from lpw_jax.measures.views import VIEWS

EVALUATE = "python -m lpw_jax.evaluate --workdir"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What `--ensemble RUN1 RUN2 ...` may be followed by."""
    flags = parser.add_argument_group("with --ensemble")
    flags.add_argument(
        "--output", metavar="DIR", help="folder for its results.json and predictions"
    )
    flags.add_argument(
        "--view",
        choices=VIEWS,
        default="collapsed",
        help="what each run is a member as: its collapsed network, or its own ensemble",
    )
    flags.add_argument(
        "--mixed", action="store_true", help="take runs of different configs (same data) as well"
    )


def run(
    workdirs: Sequence[str], *, output: str | None, view: str = "collapsed", mixed: bool = False
) -> dict[str, Any]:
    """Evaluates the mean of the runs' probabilities, prints the usual table, returns the results.

    Args:
      workdirs: at least two finished runs of one config, which differ in their seeds.
      output: folder in which results.json and predictions/ are written as a run writes them; None
        writes nothing.
      view: what each run contributes, 'collapsed' or 'ensemble'.
      mixed: whether the configs may differ in more than the seed.

    Returns:
      results.json: as a run's, but `views.collapsed` is null, `views.members` are the runs' views,
      `num_parameters` are those of all networks, `train` adds up the runs' costs, `seed` is null,
      and `ensemble_of` has `runs`, `seeds`, `view` and the fields in which configs are `different`.

    Raises:
      UserError: a run is unfinished, has no predictions, or does not go with the first one.
    """
    folders = [Workdir(path) for path in workdirs]
    runs = [_finished(folder) for folder in folders]
    different = _check_alike(workdirs, runs, mixed=mixed)
    target = _target(output)
    first, labels = runs[0], _load(folders[0], "test")["label"]
    test, members = _mean(folders, "test", view, labels=labels)
    outside = _outside(folders, view)
    found = metrics.classification_metrics(test, labels)
    found["ood"] = {
        name: None
        if log_probs is None
        else metrics.ood_metrics(*map(metrics.predictive_entropy, (test, log_probs)))
        for name, log_probs in outside.items()
    }
    sets = found["ood"].values()
    found["ood_mean_auroc"] = (
        float(np.mean([scores["auroc"] for scores in sets])) if all(sets) else None
    )
    sizes = {name: len(log_probs) for name, log_probs in outside.items() if log_probs is not None}
    results = {
        "config": first["config"],
        "seed": None,
        "ensemble_of": {
            "runs": [str(path) for path in workdirs],
            "seeds": [each["seed"] for each in runs],
            "view": view,
            "different": different,
        },
        "status": "complete",
        "num_parameters": sum(_num_parameters(each, view) for each in runs),
        "num_late_phase_parameters": 0,  # none are shared
        "coasting": first["coasting"],
        "data": first["data"] | {"ood_note": ood.ood_note(sizes)},
        "views": {"collapsed": None, "ensemble": found, "members": members},
        "validation": None,
        "train": _costs([each["train"] for each in runs]),
        "pretrained": None,
        "best_epoch": None,
    }
    if target is not None:
        with target.claimed():
            target.clear_predictions()
            target.save_predictions("test", {"ensemble": test, "label": labels})
            for name in sizes:
                none = np.full(sizes[name], -1, np.int32)
                predictions = {"ensemble": outside[name], "label": none}
                target.save_predictions(f"ood_{name}", predictions)
            target.write_json("results.json", results)
    console.say(f"deep ensemble of {len(runs)} runs, {view}: {', '.join(map(str, workdirs))}")
    console.say(results_report.results_table(results))
    if target is not None:
        console.say(f"results: {target.path / 'results.json'}")
    return results


def _finished(folder: Workdir) -> dict[str, Any]:
    """results.json of a run that was evaluated."""
    _, results = folder.read_trained()
    if results["status"] != "complete" or not (folder.path / "predictions" / "test.npz").exists():
        raise UserError(
            f"--ensemble {folder.path}: must have predictions/test.npz; "
            f"'{EVALUATE} {folder.path}' makes it"
        )
    return results


def _check_alike(workdirs: Sequence[str], runs: Sequence[dict], *, mixed: bool) -> list[str]:
    """The fields other than the seed in which the runs' configs differ from the first one's.

    Raises:
      UserError: runs are too few, the same, on other data, or differ although not `mixed`.
    """
    if len(runs) < 2:
        raise UserError(f"--ensemble {workdirs[0]}: needs at least two runs, got one")
    for path, each in zip(workdirs[1:], runs[1:], strict=True):
        first, own = runs[0]["data"], each["data"]
        digest = "test_sha256" if "test_sha256" in first.keys() & own.keys() else "sha256"
        for field in ("name", "num_classes", digest):
            there, here = first.get(field), own.get(field)
            if there != here and None not in (there, here):  # old results lack some
                raise UserError(
                    f"--ensemble: runs must be evaluated on the same test images, but data.{field} "
                    f"is {there} in {workdirs[0]} and {here} in {path}"
                )
    different = []
    for i, (path, each) in enumerate(zip(workdirs, runs, strict=True)):
        for earlier, other in zip(workdirs[:i], runs[:i], strict=True):
            differences = config_lib.differences(other["config"], each["config"])
            if not differences:
                raise UserError(
                    f"--ensemble: {earlier} and {path} are the same run (seed = {each['seed']}); "
                    "members must be trained with different seeds"
                )
            others = [line for line in differences if not line.startswith("seed: ")]
            if others and not mixed:
                raise UserError(
                    f"--ensemble: {earlier} (there) and {path} (here) must differ in nothing but "
                    f"the seed (--mixed allows it): {'; '.join(others)}"
                )
            different += [line.partition(":")[0] for line in others]
    return list(dict.fromkeys(different))


def _target(output: str | None) -> Workdir | None:
    """The folder to write to, which must not be a run's."""
    if output is None:
        return None
    folder = Workdir(output)
    earlier = folder.read_json("results.json")
    if (folder.path / "config.json").exists() or (earlier and "ensemble_of" not in earlier):
        raise UserError(f"--output = {output!r}: holds a run; choose another folder")
    return folder


def _mean(
    folders: Sequence[Workdir], name: str, view: str, *, labels: np.ndarray
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Log of the runs' mean probabilities [N, classes], and each run's metrics if there are labels.

    One run's predictions at a time are in memory.
    """
    members = []

    def log_probs() -> Iterator[np.ndarray]:
        for folder in folders:
            found = _load(folder, name)
            if not np.array_equal(found["label"], labels):
                raise UserError(
                    f"--ensemble: predictions/{name}.npz of {folder.path} must be on the images "
                    f"of {folders[0].path}, but their labels or number differ; "
                    f"'{EVALUATE} {folder.path}' makes them again"
                )
            own = metrics.log_softmax(found[view])  # log probabilities stay what they are
            if labels.min() >= 0:
                members.append(metrics.classification_metrics(own, labels))
            yield own

    total = functools.reduce(np.logaddexp, log_probs())
    return total - np.log(len(folders)), members


def _outside(folders: Sequence[Workdir], view: str) -> dict[str, np.ndarray | None]:
    """`_mean` of each out-of-distribution set; None where a run has no predictions of it."""
    found = dict.fromkeys(ood.OOD_SETS)
    for name in ood.OOD_SETS:
        file = f"ood_{name}"
        has = [(folder.path / "predictions" / f"{file}.npz").exists() for folder in folders]
        if all(has):
            labels = _load(folders[0], file)["label"]
            found[name], _ = _mean(folders, file, view, labels=labels)
        elif any(has):
            lacking = folders[has.index(False)].path
            console.warn(f"OOD set {name} is not reported: {lacking} has no predictions of it")
    return found


def _load(folder: Workdir, name: str) -> dict[str, np.ndarray]:
    """The arrays of predictions/NAME.npz but for the runs' own members."""
    path: epath.Path = folder.path / "predictions" / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {key: arrays[key] for key in (*VIEWS, "label")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: must be predictions as a run writes them ({error}); "
            f"'{EVALUATE} {folder.path}' makes them again"
        ) from error


def _num_parameters(results: dict[str, Any], view: str) -> int:
    """Weights that one run brings in; as an ensemble it has K copies of the late-phase ones."""
    copies = len(results["views"]["members"]) if view == "ensemble" else 1
    return results["num_parameters"] + (copies - 1) * results["num_late_phase_parameters"]


def _costs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`train` of several runs as if they had been trained one after the other.

    Their epochs and seconds add up; what they do not have alike (or at all) is null.
    """

    def together(name: str, combine: Callable) -> Any:
        values = [each.get(name) for each in runs]
        return None if None in values else combine(values)

    def alike(values: Sequence[Any]) -> Any:
        return values[0] if len(set(values)) == 1 else None

    return {
        "epochs": together("epochs", sum),
        "seconds": together("seconds", sum),
        "images_per_second": together("images_per_second", statistics.harmonic_mean),
        "skipped_images": together("skipped_images", sum),
        "num_devices": together("num_devices", alike),
        "device_kind": together("device_kind", alike),
        "peak_memory_bytes": together("peak_memory_bytes", max),
    }
