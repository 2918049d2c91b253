"""What a deep ensemble predicts of a text.

Of texts `predictions/` keeps sums over bytes, of which no mean probability can be made, so that the
networks compute theirs again.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import experiment, loading, networks
from lpw_jax.devices.parallel import Devices
from lpw_jax.errors import UserError
from lpw_jax.evaluation.evaluator import Evaluator, check_data
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.method.state import State


def predict(
    folders: Sequence[Workdir], runs: Sequence[Results], view: str
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[dict[str, float]]]:
    """The ensemble's predictions of the test part, its metrics, and those of each run.

    Raises:
      UserError: a run's weights are damaged, the text is not the one that it was trained on, or
        `view` is another than 'collapsed'.
    """
    if view != "collapsed":
        raise UserError(f"--view {view}: must be collapsed for runs on a text")
    config, _ = folders[0].read_trained()
    config = _without_shared_weights(config, len(folders))
    with experiment.pinned(config):
        dataset = experiment.load_dataset(config)
        sha256 = dataset.identity()["sha256"]
        for folder, run in zip(folders, runs, strict=True):
            check_data(folder, dataset.name, run.data.sha256, sha256)
        evaluator = Evaluator(config, dataset, Devices.over(backend=config.parallel.backend))
        placed = evaluator.place(_stacked(config, evaluator.model, folders))
        test = evaluator.sources["test"]
        arrays, found = evaluator.predict(placed, test, on_batch=lambda: None)
    # The mean of independent networks' weights is no network to be shown.
    predicted = {name: arrays[name] for name in ("ensemble", "label")}
    return predicted, found["ensemble"], found["members"]


def _without_shared_weights(config: ConfigDict, num_networks: int) -> ConfigDict:
    """`config` with whole networks for members."""
    config = config.copy_and_resolve_references()
    config.late_phase.kind, config.late_phase.patterns = "copies", (".*",)
    config.late_phase.num_members = num_networks
    return config


def _stacked(config: ConfigDict, model: Any, folders: Sequence[Workdir]) -> State:
    """The runs' collapsed networks as members."""
    key = jax.random.key(0)  # copies draw nothing
    states = [
        networks.without_optimisers(
            networks.tied_of(config, model, loading.load(folder.path).collapsed, key)
        )
        for folder in folders
    ]
    return jax.device_get(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *states))
