"""ImageNet fine-tuning as a user runs it: from tars to an exported network, killed on the way."""

import json
import signal

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import small_resnet
import survival
from imagenet_files import SYNSETS, make_tars
from torchvision_weights import state_dict

import lpw_jax
from lpw_jax import evaluate, export, main, registry
from lpw_jax.data import imagenet
from lpw_jax.files.workdir import Workdir
from lpw_jax.weights import pretrained

CONFIG = "imagenet_resnet50.py:sample"
NUM_VAL, EPOCHS = 6, 2


@pytest.fixture(scope="module")
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.NETWORKS, small_resnet.NAME, small_resnet.NETWORK)
        yield


@pytest.fixture(scope="module")
def folder(small_network, tmp_path_factory):
    """Tars of 32 training images, two cycles an epoch, and converted weights."""
    folder = tmp_path_factory.mktemp("imagenet")
    make_tars(folder / "tars", num_classes=4, per_class=8, num_val=NUM_VAL)
    weights = {name: array for name, array in state_dict("resnet50", 1000).items()}
    floats = {name: a.astype(np.float32) for name, a in weights.items() if a.ndim}
    safetensors.numpy.save_file(floats, folder / "resnet50.safetensors")
    return folder


@pytest.fixture(scope="module")
def flags(folder):
    fields = {
        "data.dir": folder / "tfds",
        "data.manual_dir": folder / "tars",
        "model.pretrained": folder / "resnet50.safetensors",
        "train.epochs": EPOCHS,
        "train.batch_size": 8,
        "data.image_size": 32,
        "data.resize": 40,
        "evaluate.batch_size": 4,
    }
    return [f"--config.{name}={value}" for name, value in fields.items()]


def started(workdir, flags):
    program = (str(survival.ROOT / "tests" / "small_resnet.py"),)
    return survival.start(workdir, flags=flags, config=CONFIG, program=program)


@pytest.fixture(scope="module")
def finished(folder, flags):
    """A run that nothing disturbed, which prepares the data."""
    program = started(folder / "runs" / "finished", flags)
    assert program.wait() == 0, program.errors
    return program


@pytest.mark.slow
def test_a_run_tells_what_the_pretrained_weights_are_worth_and_its_best_epoch(finished):
    results = json.loads((finished.workdir / "results.json").read_text())
    weights, best = results["pretrained"], results["best_epoch"]
    assert "torchvision states 76.130 % for its own, and these are other weights" in finished.output
    assert (weights["published"], weights["published_accuracy"]) == (None, 0.7613)
    epochs = [json.loads(s) for s in (finished.workdir / "metrics.jsonl").read_text().splitlines()]
    found = [epoch["evaluation"]["collapsed"]["accuracy"] for epoch in epochs]
    assert len(found) == EPOCHS and max(found) == best["views"]["collapsed"]["accuracy"]
    assert found[best["epoch"] - 1] == max(found)
    for name, value in epochs[-1]["evaluation"]["ensemble"].items():
        assert results["views"]["ensemble"][name] == value
    for view in (results["views"]["collapsed"], *results["views"]["members"], weights):
        assert view["accuracy"] <= view["top5_accuracy"] <= 1
    assert results["data"]["num_test"] == NUM_VAL and results["train"]["skipped_images"] == 0
    assert results["data"]["name"] == "imagenet2012" and "officially" in finished.errors
    with np.load(finished.workdir / "predictions" / "test.npz") as arrays:
        of_members = {"energy", "mutual_information", "disagreement"}
        assert set(arrays) == {"collapsed", "ensemble", "label"} | of_members
        assert arrays["collapsed"].shape == arrays["ensemble"].shape == (NUM_VAL, 1000)
        wrong = int((arrays["collapsed"].argmax(1) != arrays["label"]).sum())
    shown = Workdir(finished.workdir).load_pictures()["test"]
    assert len(shown.images) == min(wrong, 24) > 0 and max(shown.images.shape[1:3]) <= 128
    assert results["data"]["class_names"] == list(SYNSETS)


@pytest.mark.slow
def test_a_run_killed_on_the_way_ends_as_if_undisturbed(folder, finished, flags):
    workdir = folder / "runs" / "killed"
    in_the_midst = "--config.checkpoint.every_minutes=0.003"
    first = started(workdir, [*flags, in_the_midst])
    assert first.wait_for(lambda: first.newest() > 0), first.errors
    assert first.end() == -signal.SIGKILL
    second = started(workdir, flags)
    assert second.wait() == 0, second.errors
    assert second.resumed_from()
    assert survival.differences(workdir, finished.workdir) == []


@pytest.mark.slow
def test_the_collapsed_network_is_exported_under_torchvisions_names(finished, tmp_path):
    target = tmp_path / "collapsed.safetensors"
    assert export.main(["--workdir", str(finished.workdir), "--output", str(target)]) == 0
    run = lpw_jax.load(finished.workdir)
    variables, _ = pretrained.load_variables(target, model_name="resnet50", num_classes=1000)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 32, 32, 3)), jnp.float32)
    logits = [run.model.apply(tree, images) for tree in (run.collapsed, variables)]
    np.testing.assert_array_equal(*logits)


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_from_the_validation_tar_alone(
    finished, folder, tmp_path
):
    make_tars(tmp_path / "tars", num_classes=0, num_val=NUM_VAL)
    before = json.loads((finished.workdir / "results.json").read_text())
    data = [f"--config.data.dir={tmp_path / 'tfds'}"]
    data += [f"--config.data.manual_dir={tmp_path / 'tars'}"]
    assert evaluate.main(["--workdir", str(finished.workdir), *data]) == 0
    after = json.loads((finished.workdir / "results.json").read_text())
    assert "train images, officially" in before["data"]["note"]
    assert after["data"]["note"] == before["data"]["note"]
    for view in ("collapsed", "ensemble"):  # on other devices than before
        for name in ("accuracy", "top5_accuracy", "nll", "brier", "ece"):
            assert after["views"][view][name] == pytest.approx(
                before["views"][view][name], rel=1e-5
            )


def test_images_held_out_of_absent_training_images_are_none(tmp_path):
    make_tars(tmp_path / "tars", num_classes=0, num_val=NUM_VAL)
    folders = str(tmp_path / "tfds"), str(tmp_path / "tars")
    sizes = {"image_size": 32, "resize": 32, "validation_examples": 3}
    data = imagenet.load(*folders, **sizes, skip_corrupt=False, on_corrupt=print)
    assert (data.num_train, data.num_validation, data.num_test) == (0, 0, NUM_VAL)


def test_wrong_pretrained_weights_are_known_before_data_is_prepared(tmp_path, capsys):
    make_tars(tmp_path / "tars", num_val=1)
    fields = {
        "data.dir": tmp_path / "tfds",
        "data.manual_dir": tmp_path / "tars",
        "model.pretrained": tmp_path / "absent.safetensors",
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    workdir = ["--workdir", str(tmp_path / "run")]
    assert main.main(["--config", f"configs/{CONFIG}", *flags, *workdir]) == 2
    assert "absent.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "tfds").exists() and not (tmp_path / "run").exists()


def test_training_without_training_images_is_refused(tmp_path, capsys):
    make_tars(tmp_path / "tars", num_classes=0, num_val=NUM_VAL)
    arguments = [f"--config.data.dir={tmp_path / 'tfds'}"]
    arguments += [f"--config.data.manual_dir={tmp_path / 'tars'}", "--workdir", str(tmp_path / "r")]
    assert main.main(["--config", f"configs/{CONFIG}", *arguments]) == 2
    assert "ILSVRC2012_img_train.tar" in capsys.readouterr().err
