"""Laws of a whole training run, on a few real digits."""

import json

import jax
import numpy as np
import pytest
from short_run import CONFIGS, DIGITS, SHORT, subset

from lpw_jax import experiment
from lpw_jax.config import load_config, override
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import train


def trained(config, data, num_devices, folder):
    devices = Devices.over(jax.devices()[:num_devices])
    folder.mkdir()
    return train.Training(config, data, devices).run(Workdir(folder))[0]


@pytest.fixture(scope="module", params=[("float64", 1e-9), ("float32", 1e-3)], ids=lambda p: p[0])
def one_device(request, tmp_path_factory):
    """Augmentation, release noise, SWA and a short last batch included; the data has 70 images."""
    dtype, tolerance = request.param
    fields = {
        "train.batch_size": 16,
        "train.compute_dtype": dtype,
        "train.flip": True,
        "late_phase.num_members": 4,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    config = load_config(DIGITS, [*SHORT, *overrides])
    with jax.enable_x64(dtype == "float64"):
        return (
            config,
            tolerance,
            trained(config, subset(70), 1, tmp_path_factory.mktemp("one") / "1"),
        )


@pytest.mark.parametrize(
    ("num_devices", "layout"), [(2, "members"), (4, "data"), (4, "members"), (8, "data")]
)
def test_a_run_does_not_depend_on_devices_and_layout(one_device, num_devices, layout, tmp_path):
    config, tolerance, one = one_device
    config = override(config, [f"--config.parallel.layout={layout}"])
    with jax.enable_x64(config.train.compute_dtype == "float64"):
        many = trained(config, subset(70), num_devices, tmp_path / "many")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert a.dtype == b.dtype == config.train.compute_dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CONFIGS.glob("*.py")) if p.stem not in ("__init__", "base")],
    ids=lambda path: path.stem,
)
def test_every_config_builds_and_trains_two_steps(path, tmp_path):
    full = load_config(str(path))
    experiment.check_patterns(full)  # the whole network, not computed
    released = full.late_phase.release_epoch >= 0
    config = load_config(
        str(path),
        [
            "--config.train.epochs=2",
            f"--config.late_phase.release_epoch={1 if released else -1}",
            f"--config.swa.start_epoch={2 if full.swa.start_epoch else 0}",
            "--config.late_phase.num_members=2",
            "--config.train.anneal_start=0",
            "--config.train.anneal_end=2",
            "--config.train.batch_size=4",
            "--config.train.cutout=" + str(min(full.train.cutout, 4)),
            "--config.train.crop_padding=2",
            "--config.data.name=digits",
            "--config.model.name=wide_resnet",
            "--config.model.depth=10",
            "--config.model.width=1",
        ],
    )
    weights = trained(config, subset(8), 1, tmp_path / "run")
    members = jax.tree.leaves(weights["late_phase"])[0].shape[0]
    assert members == (2 if released else 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


def test_evaluation_on_the_way_changes_nothing_and_the_best_epoch_is_told(tmp_path):
    plain = load_config(DIGITS, [*SHORT, "--config.train.batch_size=16"])
    config = override(plain, ["--config.evaluate.every_epochs=2"])
    assert (plain.evaluate.every_epochs, config.evaluate.every_epochs) == (0, 2)
    folder = Workdir(tmp_path)
    devices = Devices.over(jax.devices()[:1])
    weights, report = train.Training(config, subset(70), devices).run(folder)
    undisturbed = trained(plain, subset(70), 1, tmp_path / "plain")
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(undisturbed), strict=True):
        np.testing.assert_array_equal(a, b)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["evaluation" in record for record in records] == [False, True, True]
    found = {r["epoch"]: r["evaluation"]["collapsed"]["accuracy"] for r in records[1:]}
    best = report["best_epoch"]
    assert found[best["epoch"]] == max(found.values())
    assert best["views"] == records[best["epoch"] - 1]["evaluation"]
    assert len(best["views"]["members"]) == 2 and 0 < best["views"]["ensemble"]["nll"] < 10
