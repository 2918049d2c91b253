"""Soups: one network with the mean of the weights of several fine-tunings (Wortsman et al., 2022).

Fine-tunings that begin with the same weights often end in one basin of the loss, where means of
weights are good networks, too. Trainings from other beginnings do not.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment, loading, networks
from lpw_jax.display import console
from lpw_jax.errors import UserError
from lpw_jax.evaluation.deep_ensemble import costs
from lpw_jax.files.results import Results, SoupOf
from lpw_jax.files.workdir import Workdir


def write(workdirs: Sequence[str], *, output: str) -> None:
    """Writes the mean of the runs' collapsed networks as a trained run, which can be evaluated.

    Batch norm's running statistics are averaged as the weights are.

    Args:
      workdirs: at least two finished runs on the same data that began with the same pretrained
        weights; their other settings may differ.
      output: a new or empty folder.

    Raises:
      UserError: runs do not go together, one is not finished, or `output` holds something.
    """
    target = Workdir(output)
    if target.path.exists() and any(target.path.iterdir()):
        raise UserError(f"--output = {output!r}: must be a new or empty folder")
    read = [Workdir(path).read_trained() for path in workdirs]
    config, first = read[0]
    different = _check_alike(workdirs, [results for _, results in read], config)
    mean = _mean(workdirs)
    with experiment.pinned(config), target.claimed():
        model = experiment.build_model(config, first.data.num_classes)
        tied = networks.tied_of(config, model, mean, experiment.purpose_key(config.seed, "init"))
        target.start_session(config, resumed=False)
        target.save_weights(networks.to_weights(tied))
        target.write_results(
            dataclasses.replace(
                first,
                seed=None,
                status="trained",
                views=None,
                validation=None,
                best_epoch=None,
                train=costs([results.train for _, results in read]),
                soup_of=SoupOf(
                    runs=[str(path) for path in workdirs],
                    seeds=[results.seed for _, results in read],
                    different=different,
                ),
            )
        )
    console.say(f"soup of {len(read)} runs: {', '.join(map(str, workdirs))}")


def _check_alike(workdirs: Sequence[str], runs: Sequence[Results], config: ConfigDict) -> list[str]:
    """The fields other than the seed in which the runs' configs differ from the first one's."""
    if len(runs) < 2:
        raise UserError(f"--soup {workdirs[0]}: needs at least two runs, got one")
    if config.late_phase.kind == "templates":
        raise UserError(
            f"--soup {workdirs[0]}: late_phase.kind must not be 'templates', because the "
            "mean of such networks is no sum of templates"
        )
    different: dict[str, None] = {}
    for path, each in zip(workdirs, runs, strict=True):
        begins = each.pretrained and each.pretrained.sha256
        if not begins or begins != runs[0].pretrained.sha256:
            raise UserError(
                f"--soup {path}: must begin with the pretrained weights of {workdirs[0]} "
                f"(model.pretrained); sha256 {begins or 'none'} here"
            )
        for field in ("name", "num_classes", "mean", "std", "test_sha256"):
            there, here = getattr(runs[0].data, field), getattr(each.data, field)
            if there != here and None not in (there, here):
                raise UserError(
                    f"--soup {path}: must be of the data of {workdirs[0]}, but data.{field} is "
                    f"{there} there and {here} here"
                )
        lines = config_lib.differences(runs[0].config, each.config)
        if path != workdirs[0] and not lines:
            raise UserError(f"--soup {path}: the same run as {workdirs[0]} (seed = {each.seed})")
        if other := [line for line in lines if line.startswith("model.")]:
            raise UserError(
                f"--soup {path}: must have the network of {workdirs[0]}; {'; '.join(other)}"
            )
        different |= dict.fromkeys(line.partition(":")[0] for line in lines)
    different.pop("seed", None)
    return list(different)


def _mean(workdirs: Sequence[str]) -> dict[str, Any]:
    """The mean of the collapsed networks' variables, summed in float64."""
    # One after the other: large networks would not all fit.
    first = loading.load(workdirs[0]).collapsed
    total = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), first)
    for path in workdirs[1:]:
        total = jax.tree.map(np.add, total, jax.device_get(loading.load(path).collapsed))
    return jax.tree.map(lambda leaf, like: (leaf / len(workdirs)).astype(like.dtype), total, first)
