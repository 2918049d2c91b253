"""Trained networks of the published CIFAR code as runs of this program."""

import dataclasses

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import data, experiment, launch, networks, registry
from lpw_jax.display import console
from lpw_jax.display.results_report import network_name
from lpw_jax.errors import UserError
from lpw_jax.evaluation.summary import summarize
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import schedules
from lpw_jax.weights import reference_weights


def run(
    config: ConfigDict, *, weights: str, workdir: str, tied: bool = False, key: str = ""
) -> Results:
    """Writes the network in a file of the published code as a trained run to `workdir`.

    The folder is as if this program had trained it, and can be evaluated, loaded and exported.

    Args:
      config: what was trained; its network, members and data must be the file's.
      weights: the file, as in `reference_weights.StateDict`.
      workdir: a new or empty folder.
      tied: takes the tied copy, as a network that was never released: `config` is changed to that.
      key: which of several state dicts in the file, as for `state_dicts.choose`.

    Returns:
      results.json, with status 'trained'; what is not known of the training and its data is None.

    Raises:
      UserError: the file cannot be read, is not what `config` describes, or `workdir` is in use.
    """
    if tied:
        config = config_lib.override(config, ["--config.late_phase.release_epoch=-1"])
    dataset = data.described(config.data.name)
    folder = Workdir(workdir)
    with experiment.pinned(config), folder.claimed():
        _check_unused(config, folder)
        file = reference_weights.StateDict(weights, key=key)
        _check_agrees(config, file, dataset.num_classes, tied=tied)
        tied_state = networks.shapes(config, dataset.num_classes)
        shapes = networks.to_weights(networks.of_one_member(tied_state))
        reference_weights.check_division(shapes)
        trees = file.weights(shapes, tied=tied, banks=networks.banks(tied_state))
        dtype = np.promote_types(config.train.compute_dtype, np.float32)
        trees = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), trees)
        training = {
            "train": {"epochs": config.train.epochs},
            "imported": {**file.origin, "tied": tied},
        }
        results = summarize(config, trees, dataset, training)
        counts = ("num_train", "num_validation", "num_test")
        unknown = dict.fromkeys((*counts, "sha256", "test_sha256", "in_training"))
        results = dataclasses.replace(results, data=dataclasses.replace(results.data, **unknown))
        folder.start_session(config, resumed=False)
        folder.save_weights(trees)
        folder.write_results(results)
    if file.taken:
        console.say(file.taken)
    members = "its tied copy" if tied else f"K = {file.architecture.num_members}"
    console.say(f"{file.origin['format']} file {weights}, SHA-256 {file.origin['sha256']}")
    console.say(
        f"{workdir}: {network_name(config.model)}, {members}, {results.num_parameters:,} "
        f"parameters; evaluate it with: python -m lpw_jax.evaluate --workdir {workdir}"
    )
    return results


def _check_unused(config: ConfigDict, folder: Workdir) -> None:
    """Refuses a folder with a run in it; one that an import was interrupted in will do."""
    if launch.earlier_results(config, folder) is not None or folder.checkpoints.exists():
        raise UserError(
            f"--workdir = {str(folder.path)!r}: must be new or empty, but holds a run already"
        )


def _check_agrees(
    config: ConfigDict, file: reference_weights.StateDict, num_classes: int, *, tied: bool
) -> None:
    """Refuses a file with another network than `config` describes."""
    found, model, late_phase = file.architecture, config.model, config.late_phase
    if not registry.network(model.name).is_reference:
        known = next(name for name, network in registry.NETWORKS.items() if network.is_reference)
        raise UserError(f"model.name = {model.name!r}: must be {known!r}, the published code's")
    released = schedules.is_released(config.train.epochs, release_epoch=late_phase.release_epoch)
    num_members = late_phase.num_members if released else 1
    faults = [
        f"{field} = {here}, {there} in the file"
        for field, here, there in (
            ("model.depth", model.depth, found.depth),
            ("model.width", model.width, found.width),
            (f"classes of data.name = {config.data.name!r}", num_classes, found.num_classes),
            *(() if tied else (("members in the end", num_members, found.num_members),)),
        )
        if here != there
    ]
    if faults:
        hint = "" if released or tied else " (late_phase.release_epoch = -1 never releases)"
        raise UserError(
            f"--config: must describe the network in {file.origin['file']}; not so: "
            f"{'; '.join(faults)}{hint}. Choose another config, or set --config.FIELD=VALUE"
        )
