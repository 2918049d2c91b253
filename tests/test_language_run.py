"""Whole runs on a text: the same on all devices, resumed, with and without members."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from short_run import CONFIGS

from lpw_jax import compare, evaluate, experiment, loading, main, networks
from lpw_jax.config import ConfigError, load_config
from lpw_jax.data import text_files
from lpw_jax.data.text_sources import Windows
from lpw_jax.devices import parallel
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.errors import Preempted, UserError
from lpw_jax.evaluation import deep_ensemble
from lpw_jax.files.workdir import Workdir
from lpw_jax.training.train import Training

SMALL = str(CONFIGS / "text_small.py")
TINY = {
    "data.name": "text",
    "data.num_bytes": 0,
    "data.sequence_length": 6,
    "data.context": 4,
    "model.width": 5,
    "model.embedding": 3,
    "train.epochs": 3,
    "train.batch_size": 4,
    "train.anneal_start": 1,
    "train.anneal_end": 2,
    "late_phase.release_epoch": 1,
    "late_phase.num_members": 2,
    "late_phase.sigma": 0.05,
    "late_phase.member_mode": "vmap",
    "swa.start_epoch": 2,
    "checkpoint.every_epochs": 1,
    "evaluate.every_epochs": 1,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A file of 2,000 bytes."""
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_bytes(b"abcdefgh, " * 200)
    return str(file)


def flags(words, **changes):
    fields = TINY | {"data.dir": words} | {k.replace("__", "."): v for k, v in changes.items()}
    return [f"--config.{name}={value}" for name, value in fields.items()]


def config_of(words, **changes):
    return load_config(SMALL, flags(words, **changes))


def training(config, num_devices):
    devices = Devices.over(jax.devices()[:num_devices], backend=config.parallel.backend)
    return Training(config, experiment.load_dataset(config), devices)


class AfterCycles(Preemption):
    """Asks a training to end after so many cycles."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def due(self):
        self.left -= 1
        return self.left < 0


def run(config, folder, num_devices=1, preemption=None):
    """The folder of a whole training."""
    folder.mkdir(exist_ok=True)
    with experiment.pinned(config):
        state, _ = training(config, num_devices).run(Workdir(folder), preemption)
    Workdir(folder).save_weights(networks.to_weights(state))
    return folder


def saved(folder):
    return Workdir(folder).load_weights()


def assert_equal(one, other, tolerance=0.0):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())


def by_program(folder, words, **changes):
    """The folder of a run by the program, on one device."""
    one = jax.devices()[:1]
    command = ["--config", SMALL, *flags(words, **changes), "--workdir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "found", lambda: one)
        assert main.main(command) == 0
    return folder


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory):
    return by_program(tmp_path_factory.mktemp("runs") / "whole", words)


@pytest.mark.slow
def test_a_run_that_was_stopped_amid_epochs_is_the_undisturbed_one(words, finished, tmp_path):
    """In the tied phase and with members: the carried state is in the checkpoint."""
    config = config_of(words)
    for cycles, epochs in ((30, 0), (65, 1)):  # of 74 and 37 an epoch
        with pytest.raises(Preempted):
            run(config, tmp_path, preemption=AfterCycles(cycles))
        assert len(Workdir(tmp_path).read_metrics()) == epochs
    assert_equal(saved(finished), saved(run(config, tmp_path)))


EXACT = {
    "train__optimizer": "sgd",
    "train__compute_dtype": "float64",
    "evaluate__every_epochs": 0,
}


@pytest.fixture(scope="module")
def exact(words, tmp_path_factory):
    """A run on one device."""
    return run(config_of(words, **EXACT), tmp_path_factory.mktemp("exact") / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "layout", "backend"),
    [(4, "groups", "shard_map")],
)
def test_devices_and_layouts_change_nothing_but_rounding(
    num_devices, layout, backend, words, exact, tmp_path
):
    config = config_of(words, parallel__layout=layout, parallel__backend=backend, **EXACT)
    many = run(config, tmp_path / "many", num_devices)
    assert_equal(saved(exact), saved(many), tolerance=1e-9)


@pytest.mark.slow
def test_members_one_after_the_other_are_members_at_once(words, finished, tmp_path):
    found = run(config_of(words, late_phase__member_mode="scan"), tmp_path)
    assert_equal(saved(finished), saved(found), tolerance=1e-3)


@pytest.mark.slow
def test_one_member_is_the_tied_training(words, tmp_path):
    """With plain SGD, which a release does not begin anew."""
    plain = dict(
        train__optimizer="sgd", train__momentum=0.0, train__nesterov=False, swa__start_epoch=0,
        late_phase__num_members=1, late_phase__sigma=0.0, train__compute_dtype="float64",
    )  # fmt: skip
    tied = run(config_of(words, late_phase__release_epoch=-1, **plain), tmp_path / "tied")
    one = run(config_of(words, **plain), tmp_path / "one")
    assert_equal(saved(tied), saved(one), tolerance=1e-12)


@pytest.mark.slow
def test_a_text_has_no_surface_yet(finished, capsys):
    assert evaluate.main(["--workdir", str(finished), "--surface"]) == 2
    assert "--surface: must be of a run on images, data.name = " in capsys.readouterr().err


@pytest.mark.slow
def test_the_program_trains_evaluates_and_reports_a_text(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    results = json.loads((folder / "results.json").read_text())
    views = results["views"]
    assert len(views["members"]) == 2 and results["data"]["num_test"] == 17
    for view in (views["collapsed"], views["ensemble"], *views["members"]):
        assert view["bpc"] == pytest.approx(view["nll"] / np.log(2)) and 0 < view["bpc"] < 8
    weights = Workdir(folder).load_weights()
    assert not jax.tree.leaves(weights.get("batch_stats", {}))
    page = (folder / "report.html").read_text()
    assert "Generated text" in page and "Bits per character on the way" in page
    assert "The 2 members need " in page and "Confusion matrix" not in page
    assert "sequences/s" in page and "images trained on" not in page
    assert not (folder / "predictions" / "pictures.npz").exists()
    assert len((folder / "sample.txt").read_bytes()) == 1000
    records = Workdir(folder).read_metrics()
    assert records[-1]["evaluation_swa"]["collapsed"]["bpc"] == pytest.approx(
        views["collapsed"]["bpc"]
    )
    assert records[-1]["loss"] < records[0]["loss"]


@pytest.mark.slow
def test_a_deep_ensemble_has_the_runs_mean_probabilities(words, finished, tmp_path):
    other = by_program(tmp_path / "other", words, seed=1)
    runs = [str(finished), str(other)]
    found = deep_ensemble.run(runs, output=str(tmp_path / "both"))["views"]
    own = [Workdir(run).read_results().views.collapsed.bpc for run in runs]
    assert [member["bpc"] for member in found["members"]] == pytest.approx(own)
    assert found["collapsed"] is None
    dataset = experiment.load_dataset(config_of(words))
    (feed,) = Windows(dataset, "test").feeds(np.arange(17)[None], epoch=0)
    probs = []
    for run in runs:
        network = loading.load(run)
        logits = network.model.apply(network.collapsed, feed["image"])
        every = jax.nn.softmax(np.asarray(logits, np.float64))
        probs.append(np.take_along_axis(np.asarray(every), feed["label"][..., None], -1)[..., 0])
    bits = -np.log2(np.mean(probs, 0))[feed["label"] >= 0].mean()
    assert found["ensemble"]["bpc"] == pytest.approx(bits, rel=1e-5)
    with pytest.raises(UserError, match="must be collapsed for runs on a text"):
        deep_ensemble.run(runs, output=None, view="ensemble")


@pytest.mark.slow
def test_an_evaluation_repeats_the_figures(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    views = json.loads((folder / "results.json").read_text())["views"]
    assert evaluate.main(["--workdir", str(folder)]) == 0
    again = json.loads((folder / "results.json").read_text())["views"]
    assert again["collapsed"]["bpc"] == pytest.approx(views["collapsed"]["bpc"])


@pytest.mark.slow
def test_runs_on_one_text_are_compared_sequence_by_sequence(words, finished, tmp_path):
    other = by_program(tmp_path / "tied" / "seed0", words, late_phase__release_epoch=-1)
    report = compare.run([str(finished), str(other)], baseline="tied", out=str(tmp_path / "out"))
    bits = [
        json.loads((folder / "results.json").read_text())["views"]["collapsed"]["bpc"]
        for folder in (finished, other)
    ]
    (comparison,) = report["comparisons"]
    (row,) = (r for r in comparison["rows"] if (r["view"], r["quantity"]) == ("collapsed", "bpc"))
    assert row["difference"] == pytest.approx(bits[0] - bits[1])
    paired = {(r["view"], r["quantity"]): r for r in comparison["paired"]}
    assert set(paired) == {("collapsed", "bpc"), ("ensemble", "bpc")}
    # The last sequence has fewer bytes, and counts as much here.
    assert paired["collapsed", "bpc"]["difference"] == pytest.approx(bits[0] - bits[1], abs=0.05)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"data.name": "digits"}, "model.name = 'lstm': must be lstm for a text"),
        ({"model.name": "wide_resnet", "model.depth": 10}, "model.name = 'wide_resnet': must be"),
        (
            {"data.validation_examples": 5},
            "validation_examples = 5: must be 0 for python_sources",
        ),
        ({"train.num_microbatches": 2}, "train.num_microbatches = 2: must be 1 for python_sources"),
        (
            {"late_phase.inner_training": False},
            "inner_training = False: must be True for python_so",
        ),
        ({"data.sequence_length": 0}, "data.sequence_length = 0: must be >= 1"),
        ({"data.context": -1}, "data.context = -1: must be >= 0"),
        ({"model.embedding": 0}, "model.embedding = 0: must be >= 1"),
    ],
)
def test_impossible_settings_are_refused(change, rule):
    with pytest.raises(ConfigError, match=rule):
        load_config(SMALL, [f"--config.{name}={value}" for name, value in change.items()])


CELLS = sorted(CONFIGS.glob("enwik8_*.py"))


@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.stem)
def test_the_networks_of_the_paper_have_its_size(path):
    config = load_config(str(path))
    networks.check(config)
    assert len(CELLS) == 6
    state = networks.shapes(config, 256)
    count = sum(leaf.size for leaf in jax.tree.leaves((state.shared, state.members)))
    assert count == 1_558_896 + (0 if "head/bias" in config.late_phase.patterns else 4_690)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in CELLS if path.stem.endswith("_swa")], ids=lambda path: path.stem
)
def test_the_paper_s_cells_pass_a_dry_run(path, tmp_path, monkeypatch, capsys):
    """With SWA, a dry run takes steps of all phases that the others have."""
    content = b"<page>The quick brown fox</page>" * 12_000
    monkeypatch.setattr(text_files, "ENWIK8_BYTES", len(content))
    monkeypatch.setattr(text_files, "ENWIK8_MD5", hashlib.md5(content).hexdigest())
    (tmp_path / "enwik8").write_bytes(content)
    fields = {"data.manual_dir": tmp_path, "data.sequence_length": 25, "train.batch_size": 8}
    small = [f"--config.{name}={value}" for name, value in fields.items()]
    command = ["--config", str(path), *small, "--workdir", str(tmp_path / "run"), "--dry_run"]
    assert main.main(command) == 0
    assert "all checks passed" in capsys.readouterr().out
