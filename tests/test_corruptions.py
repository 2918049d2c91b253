"""CIFAR-10-C from its files to corruptions.json, and what is refused before it is computed."""

import json

import corruption_files
import jax
import numpy as np
import pytest
import tfds_fixtures
from scipy.special import softmax
from short_run import CONFIGS
from sklearn.metrics import accuracy_score, log_loss

import lpw_jax
from lpw_jax import evaluate, main
from lpw_jax.data import Dataset
from lpw_jax.data.corruptions import CORRUPTIONS, load
from lpw_jax.errors import UserError
from lpw_jax.evaluation import corruptions
from lpw_jax.measures import metrics

IMAGES, LABELS = tfds_fixtures.arrays("cifar10", "test")


@pytest.fixture
def folder(tmp_path):
    return corruption_files.write(tmp_path / "CIFAR-10-C", IMAGES, LABELS)


@pytest.fixture(scope="module")
def workdir(tiny_network, tmp_path_factory):
    """A finished run on a small CIFAR-10, with the small CIFAR-100 as its only OOD set."""
    path = tmp_path_factory.mktemp("runs") / "cifar10"
    fields = {
        "model.depth": 10,
        "data.dir": tfds_fixtures.folder() / "array_record",
        "data.validation_examples": 1075,
        "train.batch_size": 16,
        "train.epochs": 1,
        "train.anneal_start": 0,
        "train.anneal_end": 1,
        "late_phase.num_members": 2,
        "late_phase.release_epoch": 0,
        "late_phase.sigma": 0.5,
        "late_phase.member_mode": "vmap",  # compiles soonest
        "evaluate.batch_size": 24,
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = str(CONFIGS / "cifar10_small.py")
    assert main.main(["--config", config, "--workdir", str(path), *flags]) == 0
    return path


def run(workdir, folder):
    return evaluate.main(["--workdir", str(workdir), "--corruptions", str(folder)])


@pytest.fixture(scope="module")
def evaluated(workdir, tmp_path_factory):
    """That run evaluated on its own test images, corrupted; the folder of these."""
    folder = tmp_path_factory.mktemp("data") / "CIFAR-10-C"
    assert run(workdir, corruption_files.write(folder, IMAGES, LABELS)) == 0
    return folder


def found_in(workdir):
    return json.loads((workdir / "corruptions.json").read_text())


def dataset(labels, unofficial=""):
    none = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int32)
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    return Dataset("cifar10", *none, *none, images, labels, 10, (0,) * 3, (1,) * 3, "", unofficial)


def test_files_are_mapped_by_corruption_and_severity(folder):
    np.save(folder / "speckle_noise.npy", np.zeros(3))  # one of the four that are not looked at
    found = load("cifar10", str(folder))
    assert tuple(found.images) == CORRUPTIONS and len(CORRUPTIONS) == 15
    np.testing.assert_array_equal(found.labels, LABELS)
    for name, images in found.images.items():
        assert isinstance(images, np.memmap) and images.shape == (5, *IMAGES.shape)
        stored = np.load(folder / f"{name}.npy")
        np.testing.assert_array_equal(images[3], stored[3 * len(LABELS) : 4 * len(LABELS)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])  # both are published
def test_labels_of_any_integer_type_are_read(folder, dtype):
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(dtype))
    assert load("cifar10", str(folder)).labels.dtype == np.int32


def test_all_missing_files_are_named(folder):
    missing = ["shot_noise.npy", "jpeg_compression.npy", "labels.npy"]
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError, match=f"lacks {', '.join(missing)}$"):
        load("cifar10", str(folder))


@pytest.mark.parametrize("path", ["absent", "gs://bucket/CIFAR-10-C"])
def test_a_folder_that_is_not_on_this_machine_is_refused(tmp_path, path):
    path = path if "://" in path else str(tmp_path / path)
    with pytest.raises(UserError, match=f"--corruptions = '{path}': must be a folder on this"):
        load("cifar10", path)


def test_other_data_than_cifar_is_refused(folder):
    with pytest.raises(UserError, match="must be cifar10 or cifar100.*but this run's is digits"):
        load("digits", str(folder))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fog", np.zeros((100, 32, 32, 3)), r"uint8 \[100, 32, 32, 3\].*20 images.*float64"),
        ("fog", np.zeros((99, 32, 32, 3), np.uint8), r"found uint8 \[99, 32, 32, 3\]"),
        ("fog", np.zeros((100, 3, 32, 32), np.uint8), r"found uint8 \[100, 3, 32, 32\]"),
        ("fog", np.array([None]), "cannot be read"),
        ("labels", np.zeros(101, int), r"integers \[5 N\], found int64 \[101\]"),
        ("labels", np.zeros(0, int), r"found int64 \[0\]"),
        ("labels", np.zeros((20, 5), int), r"found int64 \[20, 5\]"),
        ("labels", np.zeros(100), r"found float64 \[100\]"),
        ("labels", np.arange(100) % 11, r"labels must lie in 0\.\.9, found 0\.\.10"),
        ("labels", np.append(np.tile(LABELS, 5)[:-1], 0), "must repeat after each of 5"),
    ],
)
def test_damaged_files_are_named(folder, name, array, message):
    np.save(folder / f"{name}.npy", array)
    with pytest.raises(UserError, match=f"{name}.npy.*{message}.*; unpack the archive again"):
        load("cifar10", str(folder))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None])
def test_files_that_are_no_arrays_are_named(folder, content):
    file = folder / "snow.npy"
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    with pytest.raises(UserError, match="snow.npy cannot be read: .*; unpack the archive again"):
        load("cifar10", str(folder))


def test_labels_must_be_those_of_the_official_test_set_in_any_order(folder):
    found = load("cifar10", str(folder))
    assert found.matches(dataset(LABELS[::-1]))
    other = np.minimum(LABELS + 1, 9)
    with pytest.raises(UserError, match=r"labels.npy: each class of cifar10 .* 0 to 4, but has 2"):
        found.matches(dataset(other))
    assert not found.matches(dataset(other, unofficial="a part"))
    assert not found.matches(dataset(np.concatenate([LABELS, LABELS])))  # a part of the files


def test_means_are_over_corruptions_and_severities():
    rng = np.random.default_rng(0)
    figures = rng.random((15, 5, 3))
    measured = {
        name: [
            {"collapsed": {}, "ensemble": dict(zip(("accuracy", "nll", "ece"), f, strict=True))}
            for f in column
        ]
        for name, column in zip(CORRUPTIONS, figures, strict=True)
    }
    found = corruptions.summarize(measured, "ensemble")
    assert found["corruptions"]["snow"][4]["nll"] == figures[CORRUPTIONS.index("snow"), 4, 1]
    for means, expected in (
        *zip(found["by_severity"], figures.mean(axis=0), strict=True),
        (found["mean"], figures.mean(axis=(0, 1))),
    ):
        assert means["error"] == pytest.approx(1 - expected[0], rel=1e-12)
        assert [means["nll"], means["ece"]] == pytest.approx(expected[1:], rel=1e-12)


@pytest.mark.slow
def test_a_run_is_evaluated_on_every_corruption_and_severity(workdir, evaluated):
    found = found_in(workdir)
    assert (found["data"], found["folder"]) == ("cifar10", str(evaluated))
    assert found["labels_match_test_set"] and found["images_per_severity"] == len(LABELS)
    views = json.loads((workdir / "results.json").read_text())["views"]
    for view, part in found["views"].items():
        assert tuple(part["corruptions"]) == CORRUPTIONS and len(part["by_severity"]) == 5
        for severity in part["corruptions"]["fog"]:  # here not corrupted at all
            for name, value in severity.items():
                assert value == pytest.approx(views[view][name], rel=1e-5)
        assert part["corruptions"]["frost"][4] != part["corruptions"]["frost"][0]


@pytest.mark.slow
def test_figures_are_those_of_the_loaded_networks_predictions(workdir, evaluated):
    found, trained = found_in(workdir)["views"], lpw_jax.load(workdir)
    images = np.load(evaluated / "contrast.npy")[2 * len(LABELS) : 3 * len(LABELS)]
    networks = [trained.collapsed, *(trained.member(k) for k in range(2))]
    apply = jax.jit(lambda variables, batch: trained.model.apply(variables, batch))
    collapsed, *members = (
        softmax(np.asarray(apply(network, trained.normalize(images)), np.float64), axis=-1)
        for network in networks
    )
    for view, probs in (("collapsed", collapsed), ("ensemble", np.mean(members, axis=0))):
        part = found[view]["corruptions"]["contrast"][2]
        assert part["accuracy"] == accuracy_score(LABELS, probs.argmax(axis=-1))
        assert part["nll"] == pytest.approx(log_loss(LABELS, probs, labels=range(10)), rel=1e-4)
        ece = metrics.classification_metrics(np.log(probs), LABELS)["ece"]
        assert part["ece"] == pytest.approx(ece, abs=1e-4)


@pytest.mark.slow
def test_other_labels_are_warned_about_and_recorded(workdir, evaluated, tmp_path, capsys):
    results = workdir / "results.json"
    before = found_in(workdir), results.read_text()
    folder = corruption_files.write(tmp_path / "part", IMAGES[:7], LABELS[:7])
    assert run(workdir, folder) == 0
    output, found = capsys.readouterr(), found_in(workdir)
    assert "7 images a severity whose labels are not those of the 20" in output.err
    assert "Mean error in % over 15 corruptions of cifar10, 7 images each" in output.out
    assert not found["labels_match_test_set"] and found["images_per_severity"] == 7
    assert results.read_text() == before[1]
    (workdir / "corruptions.json").write_text(json.dumps(before[0]))


@pytest.mark.slow
def test_what_is_missing_is_said_before_anything_is_computed(workdir, folder, capsys, monkeypatch):
    (folder / "zoom_blur.npy").unlink()
    monkeypatch.setattr(evaluate.Workdir, "load_weights", None)  # calling it would be an error
    assert run(workdir, folder) == 2
    assert "all 16 files of CIFAR-10-C, but lacks zoom_blur.npy" in capsys.readouterr().err


@pytest.mark.slow
def test_results_of_the_run_hold_every_measure(workdir):
    found = json.loads((workdir / "results.json").read_text())["views"]
    assert 0 <= found["ensemble"]["disagreement"] <= 1
    assert 0 <= found["ensemble"]["mutual_information"] <= np.log(2)
    for view in ("collapsed", "ensemble"):
        scores = found[view]["ood"]["CIFAR"]
        of_members = {"mutual_information"} if view == "ensemble" else set()
        others = {"energy", "max_probability"} | of_members
        assert set(scores) == {"auroc", "aupr_in", "aupr_out", "fpr95"} | others
        assert found[view]["ood_mean_auroc"] is None  # of three sets that are not there
        assert "temperature_scaled" in found[view]
