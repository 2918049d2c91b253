"""Whatever is read back of a run is what was written, or it is refused or told, in one line."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import short_run

import lpw_jax
from lpw_jax import evaluate, main
from lpw_jax import report as report_lib
from lpw_jax.config import load_config
from lpw_jax.errors import UserError
from lpw_jax.files import checkpoint, described, environment, measured, results, surface
from lpw_jax.files.workdir import Workdir
from lpw_jax.report import __main__ as report
from lpw_jax.weights import weight_files

INFORMING = ("config.json", "environment.json", "metrics.jsonl", "results.json")


def edited(file, path, value):
    """Sets a field of a JSON file, or of the last line of metrics.jsonl; None removes it."""
    *lines, last = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    content = part = json.loads(last)
    *sections, leaf = path.split(".")
    for section in sections:
        part = part[section]
    if value is None:
        del part[leaf]
    else:
        part[leaf] = value
    file.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(content)]))


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 1 << 4
    file.write_bytes(content)


def refused(folder, capsys):
    """The one line with which the report refuses a run."""
    assert report.main(["--workdir", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "path", "value", "rule"),
    [
        ("results.json", "views", "good", "must be an object"),
        ("results.json", "views.collapsed.accuracy", 1.5, "must be 0 to 1"),
        ("results.json", "views.collapsed.ece", float("nan"), "must be a finite number"),
        ("results.json", "views.ensemble.ood", [], "must be an object"),
        ("results.json", "views.members", {}, "must be a list"),
        ("results.json", "views.collapsed.accuracx", 0.5, "is no field"),
        ("results.json", "views", None, "is missing"),
        ("results.json", "best_epoch", 3, "must be an object"),
        ("results.json", "num_parameters", -1, "must be 0 or more"),
        ("results.json", "train.seconds", 10**400, "must be a finite number"),
        ("results.json", "train.seconds", "long", "must be a finite number"),
        ("results.json", "data.num_classes", True, "must be a whole number"),
        ("results.json", "status", "ready", "must be 'trained' or 'complete'"),
        ("results.json", "config.train", "fast", "expected a section"),
        ("config.json", "late_phase", 3, "expected a section"),
        ("config.json", "train.epochs", 0, "train.epochs = 0"),
        ("metrics.jsonl", "epoch", 5, "must be 3"),
        ("metrics.jsonl", "member_loss", "low", "must be a list"),
        ("metrics.jsonl", "evaluation.members", 1, "must be a list"),
        ("environment.json", "packages", ["jax"], "must be an object"),
    ],
)
def test_a_field_that_is_not_as_described_is_named(run_copy, capsys, name, path, value, rule):
    edited(run_copy / name, path, value)
    line = refused(run_copy, capsys)
    field = path.removeprefix("config.")
    assert f"{run_copy / name}: must be JSON as a run writes it; " in line
    assert field in line and rule in line


@pytest.mark.parametrize("name", INFORMING)
@pytest.mark.parametrize("content", ["", "{", "3\n", "[" * 10_000, "\ud800"])
def test_a_file_that_is_none_is_named(run_copy, capsys, name, content):
    (run_copy / name).write_bytes(content.encode(errors="surrogatepass"))
    if (name, content) == ("metrics.jsonl", ""):
        return  # of a run before the end of its first epoch
    assert f"{run_copy / name}: must be JSON as a run writes it; " in refused(run_copy, capsys)


def without_rows(number):
    return lambda arrays: {
        name: array[:, number:] if name == "members" else array[number:]
        for name, array in arrays.items()
    }


PREDICTIONS = {
    "fewer rows": without_rows(3),
    "no rows": without_rows(360),
    "other labels": lambda arrays: arrays | {"label": np.roll(arrays["label"], 1)},
    "labels out of range": lambda arrays: arrays | {"label": arrays["label"] + 5},
    "labels below": lambda arrays: arrays | {"label": arrays["label"] - 1},
    "labels that are none": lambda arrays: arrays | {"label": arrays["label"] / 2},
    "other rows": lambda arrays: arrays | {"collapsed": arrays["collapsed"][::-1].copy()},
    "fewer classes": lambda arrays: arrays | {"ensemble": arrays["ensemble"][:, :4]},
    "a view less": lambda arrays: {n: a for n, a in arrays.items() if n != "ensemble"},
}


@pytest.mark.parametrize("change", [*PREDICTIONS.values(), None], ids=[*PREDICTIONS, "a bit"])
def test_predictions_that_are_not_those_of_the_results_are_refused(run_copy, capsys, change):
    file = run_copy / "predictions" / "test.npz"
    if change is None:
        flip(file, 0.1)
    else:
        with np.load(file) as arrays:
            changed = change(dict(arrays))
        np.savez(file, **changed)
    line = refused(run_copy, capsys)
    assert str(file) in line and "lpw_jax.evaluate --workdir" in line
    assert evaluate.main(["--ensemble", str(run_copy), str(run_copy)]) == 2


def test_a_changed_byte_of_weights_changes_nothing_or_is_refused(finished_run, tmp_path):
    def read(folder, step):
        return checkpoint.checksum(lpw_jax.load_weights(folder, step))

    refusals = 0
    for step, part in ((None, "weights"), (64, "checkpoints/64")):
        whole = read(finished_run, step)
        files = [path for path in (finished_run / part).rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda file: file.stat().st_size)[-3:]:
            copy = tmp_path / str(refusals) / file.parent.name / file.name
            shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns("predictions"))
            flip(copy / file.relative_to(finished_run), 0.5)
            try:
                assert read(copy, step) == whole, file
            except UserError as error:
                refusals += 1
                assert "\n" not in str(error) and str(copy) in str(error)
    assert refusals >= 2


def test_weights_of_another_run_are_refused_and_unknown_ones_told(run_copy, capsys):
    weights = lpw_jax.load_weights(run_copy)
    other = {**weights, "shared": {**weights["shared"], "head": {"bias": np.ones(3)}}}
    shutil.rmtree(run_copy / "weights")
    checkpoint.save_weights(run_copy / "weights", other)
    with pytest.raises(UserError, match=r"weights: damaged, or of another run.*checksum"):
        lpw_jax.load(run_copy)
    (run_copy / "checksums.json").unlink()
    lpw_jax.load_weights(run_copy)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("(older runs have none), so it cannot be checked")


@pytest.mark.parametrize("name", INFORMING)
def test_a_changed_figure_is_told(run_copy, capsys, name):
    file = run_copy / name
    content = file.read_text()
    number = re.search(r"(?<=\d\.)\d", content)
    changed = str((int(number[0]) + 1) % 10 or 1)
    file.write_text(content[: number.start()] + changed + content[number.end() :])
    folder = Workdir(run_copy)
    for _ in range(2):
        folder.read(name)
    assert capsys.readouterr().err.count(f"{file} is not what the run wrote (checksum)") == 1


def test_a_file_of_weights_is_what_was_written(tmp_path):
    arrays = {"b": np.arange(60.0).reshape(3, 20), "a": np.ones((), np.int64)}
    content = weight_files.encode(arrays, {"format": "pt"})
    assert content == weight_files.encode(arrays, {"format": "pt"})
    found, metadata, _ = weight_files.decode(content, tmp_path)
    assert metadata == {"format": "pt"} and found["b"].tolist() == arrays["b"].tolist()
    values = {name: array.tolist() for name, array in arrays.items()}
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 2
        try:
            found, _, _ = weight_files.decode(bytes(damaged), tmp_path)
        except UserError:
            continue
        assert {name: array.tolist() for name, array in found.items()} == values


@pytest.mark.parametrize("name", INFORMING)
@pytest.mark.parametrize("content", [b"", b'{"epoch": 1', None])
def test_what_only_informs_is_set_aside_and_the_run_goes_on(run_copy, capsys, name, content):
    file, config = run_copy / name, load_config(short_run.DIGITS, short_run.FULL)
    file.unlink() if content is None else file.write_bytes(content)
    folder = Workdir(run_copy)
    stored, found = folder.known()
    assert (found is None) == (name == "results.json")
    assert stored is not None and stored.to_dict() == config.to_dict()
    folder.start_session(config, resumed=True)
    told = capsys.readouterr().err
    aside = run_copy / f"damaged-{name}"
    is_damaged = content or (content == b"" and name != "metrics.jsonl")
    if is_damaged:
        assert aside.read_bytes() == content and told.count("renamed") == 1
        assert f"renamed {aside.name}" in told and len(told.splitlines()) == 1
    else:
        assert not aside.exists()
        assert f"{file} is missing" in told or name == "results.json" or content == b""
    if name in ("config.json", "environment.json"):
        assert folder.read(name) is not None
    elif is_damaged:  # by the training, in time
        assert not file.exists()


def test_without_config_and_results_the_checkpoints_decide(run_copy, capsys):
    for name in INFORMING:
        (run_copy / name).write_text("")
    assert Workdir(run_copy).known() == (None, None)
    shutil.rmtree(run_copy / "checkpoints")
    with pytest.raises(UserError, match=r"results\.json: must be JSON"):
        Workdir(run_copy).known()


@pytest.mark.slow
def test_a_run_resumes_whatever_its_informing_files_are(run_copy, capsys):
    before = results_of(run_copy)
    for name in INFORMING:
        (run_copy / name).write_text("{")
    other = ["--config.train.learning_rate=0.2", "--workdir", str(run_copy)]
    assert main.main([*short_run.COMMAND, *other]) == 2
    assert "must be of the same config and data" in capsys.readouterr().err
    assert (run_copy / "config.json").read_text() == "{"
    assert main.main([*short_run.COMMAND, "--workdir", str(run_copy)]) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "renamed" in line]
    assert all(f"renamed damaged-{name}" in told for name in INFORMING)
    assert results_of(run_copy) == before
    assert (run_copy / report_lib.NAME).exists()


def results_of(folder):
    found = Workdir(folder).read_results()
    return dataclasses.replace(found, train=None)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for module in (environment, measured, results, surface)
        for kind in vars(module).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    ],
)
def test_every_field_of_a_file_has_a_description(kind):
    told = [name for names, _ in described.documented(kind) for name in names.split(", ")]
    assert told == list(vars(kind)["__annotations__"])
