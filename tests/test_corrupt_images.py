"""A run that meets corrupt images names them, is saved, and goes on without them if asked to."""

import json
import re

import pytest
import survival
from imagenet_files import train_images, val_images, write_train, write_val
from short_run import CONFIGS

from lpw_jax import evaluate, main
from lpw_jax.data import epoch_order, imagenet, imagenet_prepare
from lpw_jax.data.streamed import _features

# test_streamed.py has quick tests of the same images.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]
SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")
NUM_TRAIN, NUM_VAL, BATCH_SIZE = 40, 7, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared images, of which the one that seed 0 meets third from last does not decode."""
    folder = tmp_path_factory.mktemp("imagenet")
    images = train_images(SYNSETS, NUM_TRAIN // 4)
    validation = val_images(range(1, NUM_VAL + 1))

    def prepare(name):
        (folder / name).mkdir()
        write_train(folder / name, images)
        write_val(folder / name, validation)
        imagenet_prepare.prepare(str(folder / "tfds" / name), str(folder / name))

    prepare("intact")
    data = load(str(folder / "tfds" / "intact"))
    number = epoch_order(0, 1, NUM_TRAIN)[-3]
    damaged = _features(data.train_records[number])["file_name"].bytes_list.value[0].decode()
    for files in images.values():
        files[:] = [(name, cut(image) if name == damaged else image) for name, image in files]
    validation[2] = (validation[2][0], b"not an image")
    prepare("damaged")
    return folder


def load(folder):
    sizes = {"image_size": 32, "resize": 40, "validation_examples": 0}
    return imagenet.load(folder, "", **sizes, skip_corrupt=False, on_corrupt=print)


def cut(image):
    return image[: len(image) // 3]


@pytest.fixture(scope="module")
def train(folder):
    fields = {
        "data.dir": folder / "tfds" / "damaged",
        "data.image_size": 32,
        "data.resize": 40,
        "train.epochs": 2,
        "train.batch_size": BATCH_SIZE,
        "train.num_microbatches": 1,
        "evaluate.batch_size": 4,
        "evaluate.every_epochs": 0,
        "late_phase.member_mode": "vmap",  # compiles soonest
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    flags += ["--config", f"{CONFIGS}/imagenet_resnet50.py:sample"]
    return lambda name, *more: main.main([*flags, *more, "--workdir", str(folder / name)])


def test_a_corrupt_image_ends_a_run_that_is_saved_and_goes_on_without_it(folder, train, capsys):
    assert train("run") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert ".JPEG" in error and "is corrupt" in error and "data.skip_corrupt=True" in error
    saved = max(int(path.name) for path in (folder / "run" / "checkpoints").iterdir())
    assert saved > 0
    assert error.endswith(f"Saved at step {saved}: the same command continues there")
    assert train("run", "--config.data.skip_corrupt=True") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"resumed at epoch \d+, step {saved}\b", output), output
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["train"]["skipped_images"] == 1
    assert results["data"]["skipped"] == {"test": 1}
    assert "1 test images left out as corrupt" in output
    assert train("undisturbed", "--config.data.skip_corrupt=True") == 0
    assert survival.differences(folder / "run", folder / "undisturbed") == []


def test_an_evaluation_may_skip_corrupt_images_too(folder, capsys):
    config = folder / "run" / "config.json"
    assert json.loads(config.read_text())["data"]["skip_corrupt"] is False
    command = ["--workdir", str(folder / "run")]
    assert evaluate.main(command) == 2
    assert "ILSVRC2012_val_00000003.JPEG" in capsys.readouterr().err
    assert evaluate.main([*command, "--config.data.skip_corrupt=True"]) == 0
    results = json.loads((folder / "run" / "results.json").read_text())
    assert results["status"] == "complete" and results["data"]["skipped"] == {"test": 1}
