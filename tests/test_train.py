"""Laws of a whole training run, on a few real digits."""

import jax
import numpy as np
import pytest
from short_run import CONFIGS, DIGITS, SHORT, subset

from lpw_jax import models, networks
from lpw_jax.config import load_config, override
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.models import create
from lpw_jax.training import train

pytestmark = pytest.mark.usefixtures("tiny_network")


def trained(config, data, num_devices, folder):
    devices = Devices.over(jax.devices()[:num_devices], backend=config.parallel.backend)
    folder.mkdir()
    state, _ = train.Training(config, data, devices).run(Workdir(folder))
    return networks.to_weights(state)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Augmentation, release noise, SWA and a short last batch included; the data has 70 images."""
    fields = {
        "train.batch_size": 16,
        "train.compute_dtype": "float64",
        "train.flip": True,
        "train.crop_padding": 4,
        "late_phase.num_members": 4,
        "late_phase.member_mode": "vmap",  # compiles soonest
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    config = load_config(DIGITS, [*SHORT, *overrides])
    with jax.enable_x64():
        return config, trained(config, subset(70), 1, tmp_path_factory.mktemp("one") / "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "layout"),
    [(4, "members"), (8, "groups")],  # a member each in the first
)
def test_a_run_does_not_depend_on_devices_and_layout(one_device, num_devices, layout, tmp_path):
    config, one = one_device
    backend = "shard_map" if layout == "groups" else "pmap"
    options = [f"parallel.layout={layout}", f"parallel.backend={backend}"]
    config = override(config, [f"--config.{option}" for option in options])
    with jax.enable_x64():
        many = trained(config, subset(70), num_devices, tmp_path / "many")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert a.dtype == b.dtype == "float64"
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(a).max())


CONFIG_FILES = [p for p in sorted(CONFIGS.glob("*.py")) if p.stem not in ("__init__", "base")]


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.stem)
def test_every_config_builds_its_whole_network(path, monkeypatch):
    monkeypatch.setattr(models, "create", create)
    networks.check(load_config(str(path)))  # which computes nothing


def short_config(path):
    """What a config file asks for, in two short epochs on digits, the second with averages."""
    full = load_config(str(path))
    return load_config(
        str(path),
        [
            "--config.train.epochs=2",
            f"--config.late_phase.release_epoch={min(full.late_phase.release_epoch, 1)}",
            "--config.swa.start_epoch=2",
            "--config.late_phase.num_members=2",
            "--config.train.anneal_start=0",
            "--config.train.anneal_end=2",
            "--config.train.batch_size=4",
            "--config.train.cutout=" + str(min(full.train.cutout, 4)),
            "--config.train.crop_padding=2",
            "--config.data.name=digits",
            "--config.data.image_size=224",
            "--config.model.name=wide_resnet",
            "--config.model.depth=10",
            "--config.model.width=1",
        ],
    )


def different_configs():
    """Of those that differ in rates alone, which are numbers in one program, the first."""
    found = {}
    for path in CONFIG_FILES:
        if path.stem.startswith(("text", "enwik8")):  # test_language_run
            continue
        config = short_config(path)
        for part in (config.train, config.late_phase):
            rates = (n for n in part if n.endswith(("learning_rate", "weight_decay", "sigma")))
            part.update(dict.fromkeys(rates, 0.0))
        found.setdefault(config.to_json(sort_keys=True), path)
    return [pytest.param(path, id=path.stem) for path in found.values()]


@pytest.mark.slow
@pytest.mark.parametrize("path", different_configs())
def test_every_config_trains_two_steps(path, tmp_path, monkeypatch):
    config = short_config(path)
    if config.late_phase.kind == "templates":  # of layers that only the whole network has
        monkeypatch.setattr(models, "create", create)
    weights = trained(config, subset(8), 1, tmp_path / "run")
    members = jax.tree.leaves(weights["late_phase"])[0].shape[0]
    assert members == (2 if config.late_phase.release_epoch >= 0 else 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
