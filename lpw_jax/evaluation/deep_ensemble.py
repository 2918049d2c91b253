"""Deep ensembles: the predictions of independent runs, averaged (Lakshminarayanan et al., 2017).

Of images they are made of what the runs predicted (`predictions/`); of texts the networks predict
again.
"""

import argparse
import dataclasses
import glob
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lpw_jax import config as config_lib
from lpw_jax import registry
from lpw_jax.data import ood
from lpw_jax.display import console, results_report
from lpw_jax.errors import UserError
from lpw_jax.evaluation import image_ensemble, text_ensemble
from lpw_jax.files import described
from lpw_jax.files.measured import Views
from lpw_jax.files.results import EnsembleOf, Results, Train
from lpw_jax.files.run_files import CONFIG, RESULTS
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures.views import VIEWS, ood_separation


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
    workdirs = [path for named in workdirs for path in _matching(named)]
    folders = [Workdir(path) for path in workdirs]
    runs = [_finished(folder) for folder in folders]
    different = _check_alike(workdirs, runs, mixed=mixed)
    target = _target(output)
    first = runs[0]
    if registry.data(first.data.name).is_text:
        test, found, members = text_ensemble.predict(folders, runs, view)
        outside: dict[str, dict[str, np.ndarray]] = {}
    else:
        test, found, members = image_ensemble.predict(folders, runs, view)
        outside = image_ensemble.outside(folders, runs, view)
    found["ood"] = dict.fromkeys(ood.OOD_SETS)
    for name, arrays in outside.items():
        found["ood"][name] = ood_separation(test, arrays, "ensemble")
    sets = found["ood"].values()
    found["ood_mean_auroc"] = (
        float(np.mean([scores["auroc"] for scores in sets])) if all(sets) else None
    )
    sizes = {name: len(arrays["label"]) for name, arrays in outside.items()}
    results = dataclasses.replace(
        first,
        seed=None,
        ensemble_of=EnsembleOf(
            runs=[str(path) for path in workdirs],
            seeds=[each.seed for each in runs],
            view=view,
            different=different,
        ),
        num_parameters=sum(_num_parameters(each, view) for each in runs),
        num_late_phase_parameters=0,  # none are shared
        parameters=None,
        data=dataclasses.replace(first.data, ood_note=ood.ood_note(sizes)),
        views=described.read(Views, {"collapsed": None, "ensemble": found, "members": members}),
        validation=None,
        train=costs([each.train for each in runs]),
        pretrained=_alike([each.pretrained for each in runs]),
        imported=next((each.imported for each in runs if each.imported), None),
        best_epoch=None,
    )
    if target is not None:
        with target.claimed():
            target.clear_predictions()
            target.save_predictions("test", test)
            for name, arrays in outside.items():
                target.save_predictions(f"ood_{name}", arrays)
            target.write_results(results)
    console.say(f"deep ensemble of {len(runs)} runs, {view}: {', '.join(map(str, workdirs))}")
    results_report.say(results)
    if target is not None:
        console.say(f"results: {target.path / RESULTS}")
    return described.plain(results)


def _matching(named: str) -> list[str]:
    """Folders of a glob that no shell has expanded; other names as they are."""
    return sorted(glob.glob(named)) or [named] if glob.has_magic(named) else [named]


def _finished(folder: Workdir) -> Results:
    """results.json of a run that was evaluated."""
    _, results = folder.read_trained()
    if results.status != "complete" or not folder.has_predictions("test"):
        raise UserError(
            f"--ensemble {folder.path}: must have predictions/test.npz; "
            f"'{image_ensemble.EVALUATE} {folder.path}' makes it"
        )
    return results


def _check_alike(workdirs: Sequence[str], runs: Sequence[Results], *, mixed: bool) -> list[str]:
    """The fields other than the seed in which the runs' configs differ from the first one's.

    Raises:
      UserError: runs are too few, the same, on other data, or differ although not `mixed`.
    """
    if len(runs) < 2:
        raise UserError(f"--ensemble {workdirs[0]}: needs at least two runs, got one")
    for path, each in zip(workdirs[1:], runs[1:], strict=True):
        first, own = runs[0].data, each.data
        digest = "test_sha256" if first.test_sha256 and own.test_sha256 else "sha256"
        for field in ("name", "num_classes", digest):
            there, here = getattr(first, field), getattr(own, field)
            if there != here and None not in (there, here):  # old results lack some
                raise UserError(
                    f"--ensemble: runs must be evaluated on the same test images, but data.{field} "
                    f"is {there} in {workdirs[0]} and {here} in {path}"
                )
    different = []
    for i, (path, each) in enumerate(zip(workdirs, runs, strict=True)):
        for earlier, other in zip(workdirs[:i], runs[:i], strict=True):
            differences = config_lib.differences(other.config, each.config)
            if not differences:
                raise UserError(
                    f"--ensemble: {earlier} and {path} are the same run (seed = {each.seed}); "
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
    earlier = folder.read_results()
    if (folder.path / CONFIG).exists() or (earlier and not earlier.ensemble_of):
        raise UserError(f"--output = {output!r}: holds a run; choose another folder")
    return folder


def _num_parameters(results: Results, view: str) -> int:
    """Weights that one run brings in; as an ensemble it has K copies of the late-phase ones."""
    copies = len(results.views.members) if view == "ensemble" else 1
    return results.num_parameters + (copies - 1) * results.num_late_phase_parameters


def _alike(values: Sequence[Any]) -> Any:
    """The one value that all are, otherwise None."""
    return values[0] if all(value == values[0] for value in values) else None


def costs(runs: Sequence[Train]) -> Train:
    """`train` of several runs as if they had been trained one after the other.

    Their epochs and seconds add up; what they do not have alike (or at all) is null.
    """

    def together(name: str, combine: Callable) -> Any:
        values = [getattr(each, name) for each in runs]
        return None if None in values else combine(values)

    combined = {
        "epochs": sum,
        "seconds": sum,
        "images_per_second": statistics.harmonic_mean,
        "skipped_images": sum,
        "num_devices": _alike,
        "device_kind": _alike,
        "peak_memory_bytes": max,
    }
    return Train(**{name: together(name, combine) for name, combine in combined.items()})
