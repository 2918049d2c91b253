"""Laws of a whole training run, on a few real digits."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from short_run import CONFIGS, DIGITS, SHORT

from lpw_jax import experiment, schedules, step, train
from lpw_jax.config import load_config, override
from lpw_jax.data import load_dataset
from lpw_jax.parallel import Devices
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


@pytest.mark.parametrize("layout", ["data", "members"])
def test_a_cycle_reuses_the_states_memory(layout):
    options = ["train.batch_size=4", f"parallel.layout={layout}"]
    config = load_config(DIGITS, [f"--config.{option}" for option in options])
    training = train.Training(config, subset(16), Devices.over(jax.devices()[:2]))
    for state in (training.initial_state, training.released(training.initial_state)):
        num_members = jax.tree.leaves(state.late_phase)[0].shape[0]
        before = training.runner.place(state, num_members=num_members)
        order, rates = np.arange(16, dtype=np.int32), schedules.Rates(0.1, 0.0, 0.1, 0.0, 1.0)
        after, _ = next(training.runner.cycles(before, order, rates, num_members=num_members))
        kept = [leaf for leaf in jax.tree.leaves(before) if leaf.ndim and not leaf.is_deleted()]
        assert not kept
        types = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (before, after)]
        assert types[0] == types[1]
        back = training.runner.fetch(after, num_members=num_members)
        shapes = [jax.tree.map(np.shape, s) for s in (state, back)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("layout", "most"), [("data", 100), ("members", 1)])
def test_members_on_devices_need_one_all_reduce(layout, most):
    options = ["train.batch_size=8", f"parallel.layout={layout}", "late_phase.member_mode=vmap"]
    config = load_config(DIGITS, [f"--config.{option}" for option in options])
    training = train.Training(config, subset(32), Devices.over(jax.devices()[:4]))
    runner, num_members = training.runner, config.late_phase.num_members
    programs, calls = runner._train_cycle, []
    runner._train_cycle = {layout: lambda *arguments: calls.append(arguments) or arguments[:2]}
    state = runner.place(training.released(training.initial_state), num_members=num_members)
    order, rates = np.arange(32, dtype=np.int32), training.timeline.rates(12)
    next(runner.cycles(state, order, rates, num_members=num_members))
    program = programs[layout].lower(*calls[0]).compile().as_text()
    collective = "(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
    found = re.findall(rf" {collective}(?:-start)?\(", program)
    assert set(found) == {"all-reduce"} and 1 <= len(found) <= most
    assert layout == "members" or len(found) > 1  # batch norm's


@pytest.mark.parametrize(
    ("layout", "expected"), [("data", [(1, 4), (2, 4)]), ("members", [(1, 4), (1, 8)])]
)
def test_a_run_has_exactly_two_traces(layout, expected, tmp_path, monkeypatch):
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
        f"--config.parallel.layout={layout}",
    ]
    overrides += ["--config.train.batch_size=8", "--config.train.anneal_end=4"]
    config = load_config(DIGITS, [*overrides, "--config.train.anneal_start=1"])
    trained(config, subset(48), 2, tmp_path / "run")
    assert traces == expected


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
