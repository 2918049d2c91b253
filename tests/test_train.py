"""The whole program on real digits: from the command line to results, and laws of a run."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import lpw_jax
from lpw_jax import evaluate, main, step, train
from lpw_jax.config import load_config
from lpw_jax.data import load_dataset
from lpw_jax.parallel import DataParallel
from lpw_jax.workdir import Workdir

CONFIGS = Path(__file__).parents[1] / "configs"
DIGITS = str(CONFIGS / "digits_bn.py")
SHORT = [
    "--config.train.epochs=3",
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.num_members=2",
    "--config.late_phase.sigma=0.05",
    "--config.swa.start_epoch=2",
    "--config.train.anneal_start=1",
    "--config.train.anneal_end=2",
    "--config.data.validation_examples=37",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run through the command line's own entry point."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main.main(["--config", DIGITS, "--workdir", str(folder), *SHORT]) == 0
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_hold_what_is_documented(workdir):
    found = results(workdir)
    assert found["status"] == "complete" and found["seed"] == 0
    assert (found["num_parameters"], found["num_late_phase_parameters"]) == (77_850, 1_130)
    assert found["coasting"] == "reference"
    assert found["data"]["name"] == "digits" and "scikit-learn" in found["data"]["note"]
    assert found["config"] == json.loads((workdir / "config.json").read_text())
    assert found["train"]["epochs"] == 3 and found["train"]["images_per_second"] > 0
    assert len(found["views"]["members"]) == 2
    for view in ("collapsed", "ensemble"):
        assert found["views"][view]["accuracy"] > 0.7
        assert found["views"][view]["ood"] == dict.fromkeys(("LSUN", "TIN", "SVHN", "CIFAR"))
        assert found["views"][view]["ood_mean_auroc"] is None
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__ and environment["num_devices"] == 8


def test_metrics_have_one_line_an_epoch(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["phase"] for line in lines] == ["tied", "SWA", "SWA"]
    # 1400 images in batches of 64: 21 minibatches, then 10 cycles of 2.
    assert [line["step"] for line in lines] == [21, 41, 61]
    assert [len(line["member_loss"]) for line in lines] == [1, 2, 2]
    assert lines[0]["loss"] > lines[-1]["loss"]


def test_predictions_give_the_results(workdir):
    test = np.load(workdir / "predictions" / "test.npz")
    assert test["collapsed"].shape == test["ensemble"].shape == (360, 10)
    assert test["members"].shape == (2, 360, 10) and test["label"].shape == (360,)
    np.testing.assert_allclose(np.exp(test["ensemble"]).sum(1), 1, atol=1e-5)
    for view in ("collapsed", "ensemble"):
        accuracy = (test[view].argmax(1) == test["label"]).mean()
        assert accuracy == pytest.approx(results(workdir)["views"][view]["accuracy"])
    assert np.load(workdir / "predictions" / "validation.npz")["label"].shape == (37,)


def test_loaded_run_predicts_what_the_program_predicted(workdir):
    run = lpw_jax.load(workdir)
    data = load_dataset("digits", data_dir="")
    images = run.normalize(data.test_images[:50])
    recorded = np.load(workdir / "predictions" / "test.npz")
    collapsed = run.model.apply(run.collapsed, images, train=False)
    np.testing.assert_allclose(collapsed, recorded["collapsed"][:50], atol=1e-4)
    for k in range(2):
        member = run.model.apply(run.member(k), images, train=False)
        np.testing.assert_allclose(member, recorded["members"][k, :50], atol=1e-4)
    assert jax.tree.leaves(run.stacked["late_phase"])[0].shape[0] == 2


def test_evaluation_repeats_and_its_batch_size_changes_nothing(workdir, capsys):
    before = results(workdir)
    arguments = ["--workdir", str(workdir), "--config.evaluate.batch_size=100"]
    assert evaluate.main(arguments) == 0
    after = results(workdir)
    assert after["views"]["collapsed"]["nll"] == pytest.approx(
        before["views"]["collapsed"]["nll"], rel=1e-5
    )
    assert after["config"] == before["config"] and after["train"] == before["train"]
    assert "collapsed" in capsys.readouterr().out


def test_evaluation_refuses_to_change_what_was_trained(workdir, tmp_path, capsys):
    assert evaluate.main(["--workdir", str(workdir), "--config.model.depth=16"]) == 2
    assert "--config.model.depth=16" in capsys.readouterr().err
    assert evaluate.main(["--workdir", str(tmp_path)]) == 2
    assert "finished training" in capsys.readouterr().err


def test_a_finished_run_is_shown_and_another_config_refused(workdir, capsys):
    before = (workdir / "metrics.jsonl").read_text()
    assert main.main(["--config", DIGITS, "--workdir", str(workdir), *SHORT]) == 0
    assert "finished" in capsys.readouterr().out
    other = [*SHORT, "--config.train.learning_rate=0.2"]
    assert main.main(["--config", DIGITS, "--workdir", str(workdir), *other]) == 2
    assert "train.learning_rate: 0.1 there, 0.2 here" in capsys.readouterr().err
    assert (workdir / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train.batch_size=60"], "train.batch_size = 60.*number of devices, 8"),
        (["--config.train.batch_size=720"], "train.batch_size = 720.*cycle of 4"),
        (["--config.late_phase.patterns=norm/scale"], "'norm/scale' matches none"),
        (["--config.data.validation_examples=1437"], "data.validation_examples.*1437"),
    ],
)
def test_what_the_data_or_devices_forbid_is_refused_before_training(
    overrides, message, tmp_path, capsys
):
    folder = tmp_path / "run"
    assert main.main(["--config", DIGITS, "--workdir", str(folder), *overrides]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert not folder.exists()


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


def test_a_run_does_not_depend_on_the_number_of_devices(float64, tmp_path):
    """Augmentation, release noise, SWA and a short last batch included; the data has 70 images."""
    overrides = [
        *SHORT[:-1],
        "--config.train.batch_size=16",
        "--config.train.compute_dtype=float64",
    ]
    config = load_config(DIGITS, [*overrides, "--config.train.flip=True"])
    data = subset(70)
    one = trained(config, data, 1, tmp_path / "1")
    eight = trained(config, data, 8, tmp_path / "8")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(a).max())


def test_a_run_has_exactly_two_traces(tmp_path, monkeypatch):
    traces, make = [], step.make_train_step

    def counting(**options):
        train_step = make(**options)

        def traced(state, batch, rates):
            traces.append(batch["label"].shape)
            return train_step(state, batch, rates)

        return traced

    monkeypatch.setattr(step, "make_train_step", counting)
    overrides = ["--config.train.epochs=4", "--config.late_phase.release_epoch=2", *SHORT[2:3]]
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
