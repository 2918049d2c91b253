"""Laws of a whole training run, on a few real digits."""

import dataclasses

import jax
import numpy as np
import pytest
from short_run import CONFIGS, DIGITS, SHORT

from lpw_jax import experiment, schedules, step, train
from lpw_jax.config import load_config
from lpw_jax.data import load_dataset
from lpw_jax.parallel import DataParallel
from lpw_jax.workdir import Workdir


def subset(num_images, size=8):
    """The first digits, shrunk for speed."""
    data = load_dataset("digits", data_dir="")
    step = 32 // size
    images = {
        f"{split}_images": getattr(data, f"{split}_images")[:num_images, ::step, ::step]
        for split in ("train", "test")
    }
    labels = {
        f"{split}_labels": getattr(data, f"{split}_labels")[:num_images]
        for split in ("train", "test")
    }
    return dataclasses.replace(data, **images, **labels)


def trained(config, data, num_devices, folder):
    devices = DataParallel.over(jax.devices()[:num_devices])
    folder.mkdir()
    return train.Training(config, data, devices).run(Workdir(folder))[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_a_run_does_not_depend_on_the_number_of_devices(dtype, tolerance, tmp_path):
    """Augmentation, release noise, SWA and a short last batch included; the data has 70 images."""
    overrides = ["--config.train.batch_size=16", f"--config.train.compute_dtype={dtype}"]
    config = load_config(DIGITS, [*SHORT, *overrides, "--config.train.flip=True"])
    data = subset(70)
    with jax.enable_x64(dtype == "float64"):
        one = trained(config, data, 1, tmp_path / "1")
        eight = trained(config, data, 8, tmp_path / "8")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())


def test_a_cycle_reuses_the_states_memory():
    config = load_config(DIGITS, ["--config.train.batch_size=4"])
    training = train.Training(config, subset(16), DataParallel.over(jax.devices()[:2]))
    before = training.devices.replicate(training.state)
    rates = schedules.Rates(0.1, 0.0, 0.1, 0.0, 1.0)
    after, _ = training.runner.train_epoch(before, np.arange(16, dtype=np.int32), rates)
    kept = [leaf for leaf in jax.tree.leaves(before) if leaf.ndim and not leaf.is_deleted()]
    assert not kept
    types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (training.state, after)]
    assert types[0] == types[1]


def test_a_run_has_exactly_two_traces(tmp_path, monkeypatch):
    traces, make = [], step.make_train_step

    def counting(**options):
        train_step = make(**options)

        def traced(state, batch, rates):
            traces.append(batch["label"].shape)
            return train_step(state, batch, rates)

        return traced

    monkeypatch.setattr(step, "make_train_step", counting)
    overrides = [
        "--config.train.epochs=4",
        "--config.late_phase.release_epoch=2",
        "--config.late_phase.num_members=2",
    ]
    overrides += ["--config.train.batch_size=8", "--config.train.anneal_end=4"]
    config = load_config(DIGITS, [*overrides, "--config.train.anneal_start=1"])
    trained(config, subset(48), 2, tmp_path / "run")
    assert traces == [(1, 4), (2, 4)]


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
            "--config.model.depth=10",
            "--config.model.width=1",
        ],
    )
    weights = trained(config, subset(8), 1, tmp_path / "run")
    members = jax.tree.leaves(weights["late_phase"])[0].shape[0]
    assert members == (2 if released else 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
