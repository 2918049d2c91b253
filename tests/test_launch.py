"""What happens around a training: rehearsal, what stops it, what resuming leaves and refuses."""

import dataclasses
import json
import re
import signal

import numpy as np
import pytest
from short_run import COMMAND

import lpw_jax
from lpw_jax import evaluate, experiment, main
from lpw_jax.data import load_dataset
from lpw_jax.display import events
from lpw_jax.errors import UserError
from lpw_jax.evaluation.evaluator import Evaluator

pytestmark = pytest.mark.usefixtures("tiny_network")


def run(workdir, *flags):
    return main.main([*COMMAND, "--workdir", str(workdir), *flags])


def results(workdir):
    return json.loads((workdir / "results.json").read_text())


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_a_dry_run_takes_steps_of_every_phase_and_leaves_a_picture_only(tmp_path, capsys):
    assert run(tmp_path / "new", "--dry_run") == 0
    shown = capsys.readouterr().out
    for words in ("weights of one member", "learning rate", "layout: data"):
        assert words in shown
    for phase in ("tied", "SWA"):
        assert f"{phase}, step 1: loss" in shown and f"{phase}, step 2: loss" in shown
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["schedule.png"]


def test_a_dry_run_changes_nothing_in_a_finished_run(run_copy, capsys):
    before = results(run_copy)
    assert run(run_copy, "--dry_run") == 0
    assert "nothing was trained" in capsys.readouterr().out
    assert results(run_copy) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.parallel.num_devices=3"], "parallel.num_devices = 3: .*found 8"),
        (["--config.parallel.platform=tpu"], "parallel.platform = 'tpu': .*found 8 x cpu"),
        (["--config.parallel.layout=members"], "parallel.layout = 'members': .*2 is not by 8"),
    ],
)
def test_other_devices_than_asked_for_are_refused(flags, message, tmp_path, capsys):
    assert run(tmp_path / "run", *flags) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, capsys):
    flags = ["--config.train.learning_rate=1e20"]
    assert run(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert "the loss of step" in error and "Last good checkpoint: none" in error
    assert "train.learning_rate (now 1e+20)" in error
    assert not (tmp_path / "run" / "results.json").exists()
    assert checkpoints(tmp_path / "run") == []


@pytest.mark.slow
def test_a_loss_that_is_not_finite_may_be_tolerated(tmp_path, capsys):
    flags = ["--config.train.learning_rate=1e20", "--config.train.on_nonfinite=warn"]
    flags += ["--config.evaluate.every_epochs=0"]
    assert run(tmp_path / "run", *flags) == 2  # these weights can be saved, but not evaluated
    errors = capsys.readouterr().err
    assert errors.count("loss became infinite or not a number") == 3
    assert re.search("error: weights: must hold .*; not so: (shared|members)/", errors)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [None] * 3
    assert results(tmp_path / "run")["status"] == "trained"


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "times"), [(0.0, 0), (50.0, 1)])
def test_a_release_that_undoes_the_training_is_warned_of(tmp_path, capsys, sigma, times):
    flags = [f"--config.late_phase.sigma={sigma}", "--config.train.epochs=5"]
    flags += ["--config.late_phase.release_epoch=4", "--config.evaluate.every_epochs=0"]
    assert run(tmp_path / "run", *flags, "--config.swa.start_epoch=0") == 0
    assert capsys.readouterr().err.count("the release raised the loss from") == times


def test_weights_load_as_plain_trees(finished_run):
    final = lpw_jax.load_weights(finished_run)
    assert set(final) == {"shared", "late_phase", "batch_stats"}
    assert final["late_phase"]["head"]["bias"].shape == (2, 10)
    steps = checkpoints(finished_run)
    assert len(steps) == 2  # config.checkpoint.keep
    earlier = lpw_jax.load_weights(finished_run, step=steps[0])
    assert isinstance(earlier["shared"]["conv1"]["kernel"], np.ndarray)
    with pytest.raises(UserError, match=f"no such checkpoint; there are: {steps[0]}, {steps[1]}"):
        lpw_jax.load_weights(finished_run, step=1)


def test_a_resumed_run_keeps_the_record_of_its_first_session(run_copy):
    for name in ("results.json", "metrics.jsonl"):
        (run_copy / name).unlink()
    before = json.loads((run_copy / "environment.json").read_text())
    assert run(run_copy) == 0
    after = json.loads((run_copy / "environment.json").read_text())
    (resumed,) = after.pop("resumed")
    assert after == before and resumed["packages"] == before["packages"]
    assert len((run_copy / "metrics.jsonl").read_text().splitlines()) == 3


def test_evaluation_on_other_data_is_refused(run_copy, monkeypatch, capsys):
    data = load_dataset("digits", data_dir="", validation_examples=1181)
    other = dataclasses.replace(data, test_images=255 - data.test_images)
    monkeypatch.setattr(experiment, "load_data", lambda config, to_train: (other, {}))
    assert evaluate.main(["--workdir", str(run_copy)]) == 2
    assert "data.dir: digits is not the one that" in capsys.readouterr().err
    assert results(run_copy)["status"] == "complete"


def test_an_interrupted_evaluation_is_done_again(run_copy, monkeypatch):
    before = results(run_copy)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "predict", interrupted)
        assert evaluate.main(["--workdir", str(run_copy)]) == 130
    assert results(run_copy)["status"] == "trained"
    assert run(run_copy) == 0
    assert results(run_copy)["views"] == before["views"]


def test_a_finished_run_without_its_report_gets_one(run_copy):
    (run_copy / "report.html").unlink()
    assert run(run_copy) == 0
    assert "<h2>Results</h2>" in (run_copy / "report.html").read_text()


def test_a_request_to_end_waits_while_results_are_written(run_copy, monkeypatch):
    (run_copy / "report.html").unlink()
    monkeypatch.setattr(events, "write_results", lambda *_: signal.raise_signal(signal.SIGUSR1))
    assert evaluate.main(["--workdir", str(run_copy)]) == 0
    assert results(run_copy)["status"] == "complete" and (run_copy / "report.html").exists()
