"""report.html: of a real run on digits, and of what is left of one."""

import json
import re
import shutil

import numpy as np
import pytest
from page_reader import Page
from short_run import NOTE

from lpw_jax import report
from lpw_jax.display import console
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import metrics
from lpw_jax.report import __main__ as program
from lpw_jax.report import page, run_files
from lpw_jax.training.journal import Journal


@pytest.fixture(scope="module")
def written(finished_run):
    return Page((finished_run / report.NAME).read_text())


def copy(run, folder, *, without=()):
    shutil.copytree(run, folder)
    for name in (report.NAME, *without):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def made(folder):
    """The page that the program writes of a folder."""
    assert program.main(["--workdir", str(folder)]) == 0
    return Page((folder / report.NAME).read_text())


def read_json(folder, name):
    return json.loads((folder / name).read_text())


def test_a_run_writes_its_report(written):
    assert written.title.endswith("/digits")
    assert list(written.sections) == [
        "Results", "Learning curves", "Accuracy on the way", "Classes", "Most confident mistakes",
        "Calibration", "Members", "Cost", "Parameters", "Config", "Environment",
        "Not in this report",
    ]  # fmt: skip
    assert "WRN-10-1 on digits, seed 0: complete." in written.sections["Results"]
    assert "The 2 members are right on " in written.sections["Results"]
    assert "Release of 2 members at the end of epoch 1" in written.sections["Learning curves"]
    assert "SWA averages the weights from epoch 2" in written.sections["Learning curves"]


def test_a_training_shows_its_epochs_as_they_end(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SECONDS", 0)
    monkeypatch.setattr(report, "_SHARE", float("inf"))
    gone = ("predictions", "weights", "results.json")
    folder = copy(finished_run, tmp_path / "digits", without=gone)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    journal = Journal(Workdir(folder), [])
    for done, record in enumerate(records, 1):
        journal.add(record)
        shown = Page((folder / report.NAME).read_text()).sections["Results"]
        assert f": in training or interrupted, {done} of 3 epochs done." in shown
    assert done == 3


def test_the_page_needs_no_network_and_runs_nothing(written):
    inside = [ref for ref in written.references if not ref.startswith(("data:", "#"))]
    assert inside == [] and written.images
    assert written.tags.isdisjoint({"script", "link", "iframe", "object"})
    for svg in written.images.values():
        assert re.findall(r'href="(?!#)', svg) == [] and "<image" not in svg and "http" not in svg


def test_figures_tell_their_values_where_a_reader_points(finished_run, written):
    records = [json.loads(s) for s in (finished_run / "metrics.jsonl").read_text().splitlines()]
    (alt,) = (alt for alt in written.images if alt.startswith("Training loss over epochs"))
    assert [told[:2] for told in written.told[alt]] == [
        [f"epoch {record['epoch']}", f"mean: {record['loss']:.4g}"] for record in records
    ]
    low, high = min(records[-1]["member_loss"]), max(records[-1]["member_loss"])
    assert written.told[alt][-1][2] == f"members: {low:.4g} to {high:.4g}"
    assert all(written.told.values())


def test_what_a_config_says_is_shown_and_not_obeyed(finished_run, written):
    assert written.rows()["data.note"] == [NOTE]
    assert NOTE in written.sections["Results"]
    assert NOTE not in (finished_run / report.NAME).read_text()


def test_values_are_those_of_the_results(finished_run, written):
    rows, results = written.rows(), read_json(finished_run, "results.json")
    for view in ("collapsed", "ensemble"):
        found = results["views"][view]
        shown = [float(cell) for cell in rows[view][:4]]
        expected = [100 * found["accuracy"], found["nll"], found["brier"], found["ece"]]
        assert shown == pytest.approx(expected, abs=0.005)
        assert shown[1:] == [round(value, 4) for value in expected[1:]]
    train = results["train"]
    assert rows["devices"] == [f"{train['num_devices']} x {train['device_kind']}"]
    assert rows["training speed"] == [f"{train['images_per_second']:,.1f} images/s"]
    assert rows["peak memory"][0].startswith(f"{train['peak_memory_bytes']:,} bytes")
    assert rows["total"][:3] == ["384", "346", "730"]
    assert rows["head"][:2] == ["0", "330"]
    config, environment = (read_json(finished_run, f"{n}.json") for n in ("config", "environment"))
    assert rows["train.epochs"] == [str(config["train"]["epochs"])]
    assert rows["packages.jax"] == [environment["packages"]["jax"]]


def test_the_program_writes_the_same_page_again(finished_run, written, tmp_path):
    again = (copy(finished_run, tmp_path / "digits") / "metrics.jsonl").parent
    assert again.parent != finished_run.parent
    page_again = made(again)
    assert page_again.images == written.images and page_again.tables == written.tables


def test_json_files_alone_are_enough(finished_run, written, tmp_path):
    folder = copy(
        finished_run, tmp_path / "json", without=("predictions", "weights", "checkpoints")
    )
    found = made(folder)
    assert all(table in written.tables for table in found.tables)
    assert found.sections["Not in this report"].count("no predictions/test.npz") == 1
    assert len(found.images) == len(written.images) - 2


def test_an_unfinished_run_shows_its_epochs(finished_run, tmp_path):
    gone = ("predictions", "weights", "results.json")
    folder = copy(finished_run, tmp_path / "unfinished", without=gone)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(lines[0] + "\n")
    found = made(folder)
    assert "in training or interrupted, 1 of 3 epochs done" in found.sections["Results"]
    assert "when training ends" in found.sections["Not in this report"]
    assert found.rows()["images trained on"] == [f"{json.loads(lines[0])['images']:,}"]
    (folder / "metrics.jsonl").unlink()
    assert "no epoch yet" in made(folder).sections["Not in this report"]


def test_what_is_missing_is_named_with_its_setting(finished_run, tmp_path):
    folder = copy(finished_run, tmp_path / "plain")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        del record["evaluation"]
        record.pop("member_distance", None)
        record.pop("evaluation_swa", None)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    lacking = made(folder).sections["Not in this report"]
    assert lacking.count("evaluate.every_epochs") == 2 and "data.ood_dir" in lacking


def test_foreign_images_have_scores_and_histograms(finished_run, tmp_path):
    folder = copy(finished_run, tmp_path / "ood")
    results = read_json(folder, "results.json")
    logits = np.random.default_rng(0).normal(size=(50, 10))
    outside = {"collapsed": logits, "ensemble": metrics.log_softmax(logits)}
    label = np.full(50, -1, np.int32)
    Workdir(folder).save_predictions("ood_SVHN", {**outside, "label": label})
    scores = {"auroc": 0.8765, "aupr_in": 0.5, "aupr_out": 0.25, "fpr95": 0.125}
    for view in ("collapsed", "ensemble"):
        results["views"][view]["ood"]["SVHN"] = scores | {"energy": {"auroc": 0.75}}
    (folder / "results.json").write_text(json.dumps(results))
    found = made(folder)
    assert found.rows()["SVHN, ensemble"] == ["0.8765", "0.5000", "0.2500", "0.1250", "0.7500"]
    assert "Histograms of entropy on the test set and on SVHN" in found.images
    read = run_files.read(Workdir(folder)).outside["SVHN"]["collapsed"]["entropy"]
    np.testing.assert_allclose(read, metrics.predictive_entropy(metrics.log_softmax(logits)))


def test_predictions_are_scored_in_parts_as_at_once(finished_run, monkeypatch):
    whole = run_files.read(Workdir(finished_run)).test
    monkeypatch.setattr(run_files, "_ROWS", 37)
    for view, scores in run_files.read(Workdir(finished_run)).test.items():
        for name, values in scores.items():
            np.testing.assert_array_equal(values, whole[view][name])


def test_the_bins_of_the_diagram_have_the_calibration_error(finished_run):
    results = read_json(finished_run, "results.json")
    for view, scores in run_files.read(Workdir(finished_run)).test.items():
        bins = metrics.calibration_bins(scores["confidence"], scores["correct"])
        assert len(bins["count"]) == metrics.ECE_BINS and bins["count"].sum() == 360
        filled = bins["count"] > 0
        gaps = np.abs(bins["accuracy"] - bins["confidence"])[filled]
        ece = (gaps * bins["count"][filled]).sum() / 360
        assert ece == pytest.approx(results["views"][view]["ece"], abs=1e-6)
        assert ece == pytest.approx(bins["ece"], abs=1e-12)


@pytest.mark.parametrize("name", ["metrics.jsonl", "results.json", "predictions/test.npz"])
def test_damaged_files_are_named(finished_run, tmp_path, name, capsys):
    folder = copy(finished_run, tmp_path / "damaged")
    (folder / name).write_text("[1]\n")
    assert program.main(["--workdir", str(folder)]) == 2
    assert str(folder / name) in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert program.main(["--workdir", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_a_report_that_fails_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(page, "build", fail)
    report.refresh(Workdir(tmp_path))
    assert "report.html was not written: RuntimeError: no fonts" in capsys.readouterr().err
    assert not (tmp_path / report.NAME).exists()


def test_a_training_writes_it_at_most_once_a_minute(finished_run, tmp_path, monkeypatch):
    folder, clock = copy(finished_run, tmp_path / "live"), [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    live, file = report.Live(Workdir(folder)), folder / report.NAME
    for seconds, due in ((0, False), (59, False), (60, True), (119, False), (121, True)):
        file.unlink(missing_ok=True)
        clock[0] = float(seconds)
        live.refresh()
        assert file.exists() == due, seconds


def test_slow_reports_take_a_hundredth_of_the_time(tmp_path, monkeypatch):
    clock, calls = [0.0], []

    def slow(folder, *, due):
        calls.append(due())
        clock[0] += 2.0 * due()

    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(report, "refresh", slow)
    live = report.Live(Workdir(tmp_path))
    for seconds in (60, 261, 262):
        clock[0] = float(seconds)
        live.refresh()
    assert calls == [True, False, True]


def test_parameters_of_older_runs_are_totals(finished_run, tmp_path):
    folder = copy(finished_run, tmp_path / "older")
    results = read_json(folder, "results.json")
    counts = results.pop("parameters")
    (folder / "results.json").write_text(json.dumps(results))
    assert made(folder).rows()["weights of one member"] == ["730"]
    assert console.parameter_table(counts).columns[3].footer == "730"
