"""The whole program on real digits: from the command line to results, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import survival
from scipy.special import log_softmax, logsumexp
from short_run import COMMAND, CONFIGS, DIGITS, NOTE

import lpw_jax
from lpw_jax import evaluate, main
from lpw_jax.data import load_dataset
from lpw_jax.errors import UserError
from lpw_jax.measures import calibration


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_hold_what_is_documented(finished_run):
    found = results(finished_run)
    assert found["status"] == "complete" and found["seed"] == 0
    assert (found["num_parameters"], found["num_late_phase_parameters"]) == (730, 346)
    assert found["coasting"] == "reference"
    assert (found["data"]["name"], found["data"]["note"]) == ("digits", NOTE)
    assert found["config"] == json.loads((finished_run / "config.json").read_text())
    train = found["train"]
    assert train["epochs"] == 3 and train["images_per_second"] > 0
    assert (train["num_devices"], train["device_kind"]) == (8, "cpu")
    assert 1e8 < train["peak_memory_bytes"] < 1e11
    assert len(found["views"]["members"]) == 2
    for view in ("collapsed", "ensemble"):
        assert found["views"][view]["accuracy"] > 0.1
        assert found["views"][view]["ood"] == dict.fromkeys(("LSUN", "TIN", "SVHN", "CIFAR"))
        assert found["views"][view]["ood_mean_auroc"] is None
    environment = json.loads((finished_run / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__ and environment["num_devices"] == 8


def test_metrics_have_one_line_an_epoch(finished_run):
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["phase"] for line in lines] == ["tied", "SWA", "SWA"]
    # 256 images in batches of 16: 16 minibatches, then 8 cycles of 2.
    assert [line["step"] for line in lines] == [16, 32, 48]
    assert [len(line["member_loss"]) for line in lines] == [1, 2, 2]
    assert lines[0]["loss"] > lines[-1]["loss"]


def test_predictions_give_the_results(finished_run):
    test = np.load(finished_run / "predictions" / "test.npz")
    assert test["collapsed"].shape == test["ensemble"].shape == (360, 10)
    assert test["members"].shape == (2, 360, 10) and test["label"].shape == (360,)
    np.testing.assert_allclose(np.exp(test["ensemble"]).sum(1), 1, atol=1e-5)
    for view in ("collapsed", "ensemble"):
        accuracy = (test[view].argmax(1) == test["label"]).mean()
        assert accuracy == pytest.approx(results(finished_run)["views"][view]["accuracy"])
    validation = np.load(finished_run / "predictions" / "validation.npz")
    assert validation["label"].shape == (1181,)
    accuracy = (validation["collapsed"].argmax(1) == validation["label"]).mean()
    assert accuracy == pytest.approx(results(finished_run)["validation"]["collapsed"]["accuracy"])


def test_calibration_and_how_members_differ_follow_from_predictions(finished_run):
    test = np.load(finished_run / "predictions" / "test.npz")
    validation = np.load(finished_run / "predictions" / "validation.npz")
    views = results(finished_run)["views"]
    classes = test["members"].argmax(axis=-1)
    assert views["ensemble"]["disagreement"] == pytest.approx((classes[0] != classes[1]).mean())
    for name in ("mutual_information", "disagreement"):
        assert test[name].shape == (360,) and validation[name].shape == (1181,)
        assert views["ensemble"][name] == pytest.approx(test[name].mean())
        assert name not in views["collapsed"]
    np.testing.assert_allclose(
        test["energy"], -logsumexp(test["members"], axis=-1).mean(axis=0), rtol=1e-5
    )
    for view in ("collapsed", "ensemble"):
        temperature = calibration.fit_temperature(validation[view], validation["label"])
        found = views[view]["temperature_scaled"]
        if temperature is None:
            assert found is None
            continue
        log_probs = log_softmax(test[view] / temperature, axis=-1)
        nll = -log_probs[np.arange(360), test["label"]].mean()
        assert found["temperature"] == pytest.approx(temperature, rel=1e-5)
        assert found["nll"] == pytest.approx(nll, rel=1e-4)


def test_loaded_run_predicts_what_the_program_predicted(finished_run):
    run = lpw_jax.load(finished_run)
    data = load_dataset("digits", data_dir="")
    images = run.normalize(data.test_images[:50])
    recorded = np.load(finished_run / "predictions" / "test.npz")
    apply = jax.jit(run.model.apply)
    collapsed = apply(run.collapsed, images)
    np.testing.assert_allclose(collapsed, recorded["collapsed"][:50], atol=1e-4)
    for k in range(2):
        member = apply(run.member(k), images)
        np.testing.assert_allclose(member, recorded["members"][k, :50], atol=1e-4)
    assert jax.tree.leaves(run.stacked["late_phase"])[0].shape[0] == 2


def test_evaluation_repeats_and_its_batch_size_changes_nothing(run_copy, capsys):
    before = results(run_copy)
    arguments = ["--workdir", str(run_copy), "--config.evaluate.batch_size=100"]
    assert evaluate.main(arguments) == 0
    after = results(run_copy)
    assert after["views"]["collapsed"]["nll"] == pytest.approx(
        before["views"]["collapsed"]["nll"], rel=1e-5
    )
    assert after["config"] == before["config"] and after["train"] == before["train"]
    assert "collapsed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "field", ["model.depth=16", "data.name=cifar10", "data.validation_examples=5"]
)
def test_evaluation_refuses_to_change_what_was_trained(run_copy, field, capsys):
    assert evaluate.main(["--workdir", str(run_copy), f"--config.{field}"]) == 2
    assert f"--config.{field}: only data.dir" in capsys.readouterr().err


def test_evaluation_refuses_a_folder_without_a_run(tmp_path, capsys):
    assert evaluate.main(["--workdir", str(tmp_path)]) == 2
    assert "finished training" in capsys.readouterr().err


def test_a_finished_run_is_shown_and_another_config_refused(run_copy, capsys):
    before = (run_copy / "metrics.jsonl").read_text()
    assert main.main([*COMMAND, "--workdir", str(run_copy)]) == 0
    assert "finished" in capsys.readouterr().out
    other = "--config.train.learning_rate=0.2"
    assert main.main([*COMMAND, "--workdir", str(run_copy), other]) == 2
    assert "train.learning_rate: 0.1 there, 0.2 here" in capsys.readouterr().err
    assert (run_copy / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_a_trained_run_that_was_not_evaluated_is_evaluated_and_not_trained_again(
    finished_run, run_copy
):
    before = results(run_copy)
    shutil.rmtree(run_copy / "predictions")
    unfinished = before | {"status": "trained", "views": None}
    (run_copy / "results.json").write_text(json.dumps(unfinished))
    assert main.main([*COMMAND, "--workdir", str(run_copy)]) == 0
    after = results(run_copy)
    assert after["views"]["collapsed"] == before["views"]["collapsed"]
    assert after["train"] == before["train"]
    assert (run_copy / "metrics.jsonl").read_text() == (finished_run / "metrics.jsonl").read_text()


def test_a_config_stored_before_a_field_was_added_still_loads(run_copy):
    config = json.loads((run_copy / "config.json").read_text())
    del config["late_phase"]["shared_grad_scale"]
    (run_copy / "config.json").write_text(json.dumps(config))
    assert lpw_jax.load(run_copy).config.late_phase.shared_grad_scale == 1.0
    assert main.main([*COMMAND, "--workdir", str(run_copy)]) == 0


def test_a_run_in_float64_is_not_loaded_rounded(run_copy):
    config = json.loads((run_copy / "config.json").read_text())
    config["train"]["compute_dtype"] = "float64"
    (run_copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="train.compute_dtype.*JAX_ENABLE_X64=1"):
        lpw_jax.load(run_copy)


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "precious").write_text("mine")
    assert main.main(["--config", DIGITS, "--workdir", str(tmp_path)]) == 2
    assert "holds weights and no config.json" in capsys.readouterr().err
    assert (tmp_path / "weights" / "precious").read_text() == "mine"


def test_a_run_with_empty_results_and_no_checkpoint_is_not_trained_over(run_copy, capsys):
    shutil.rmtree(run_copy / "checkpoints")
    (run_copy / "results.json").write_text("{}")
    assert main.main([*COMMAND, "--workdir", str(run_copy)]) == 2
    assert evaluate.main(["--workdir", str(run_copy)]) == 2
    with pytest.raises(UserError, match="config: is missing"):
        lpw_jax.load(run_copy)
    assert capsys.readouterr().err.count("results.json: must be JSON as a run writes it") == 2
    assert (run_copy / "weights").exists()


@pytest.fixture
def sigint():
    """A shell starts background jobs with SIGINT ignored, and children would inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["loading", "epoch  1/"])  # the first is followed by compilation
def test_ctrl_c_ends_in_words_and_with_130(tmp_path, moment, sigint):
    command = [sys.executable, survival.TINY_PROGRAM, "--config", DIGITS]
    process = subprocess.Popen(
        [*command, "--workdir", str(tmp_path / "run")], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=CONFIGS.parent,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if moment in line:
            break
    if moment == "loading":
        time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = errors.splitlines()  # in training one more, that it is being saved
    assert re.match("interrupted(;| and saved;)", lines[-1]) and len(lines) <= 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train.batch_size=60"], "train.batch_size = 60.*number of devices, 8"),
        (["--config.train.batch_size=720"], "train.batch_size = 720.*cycle of 4"),
        (["--config.late_phase.patterns=norm/scale"], "'norm/scale' matches none"),
        (["--config.data.validation_examples=1437"], "data.validation_examples = 1437: .*1437"),
        (["--config.data.ood_dir=/no/folder"], "data.ood_dir = '/no/folder'"),
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
