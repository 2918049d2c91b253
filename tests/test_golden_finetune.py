"""Import, fine-tuning and evaluation of a ResNet-50 against the published code, in float64."""

import json
import re
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from torchvision_weights import state_dict

from lpw_jax import experiment, networks
from lpw_jax.config import load_config
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.training import train
from lpw_jax.weights.torchvision_names import COUNTER, to_torch, torch_name

GOLDEN = Path(__file__).parent / "golden"
CONFIG = str(Path(__file__).parents[1] / "configs" / "imagenet_resnet50.py")
TOLERANCE = 1e-9
NUM_CLASSES = 10


class Floats:
    """A `Source` of normalised images that nothing changes."""

    resident, corrupt = (), frozenset()

    def __init__(self, images, labels):
        self.image_shape = images.shape[1:]
        self._arrays = {"image": images, "label": labels.astype(np.int32)}

    def __len__(self):
        return len(self._arrays["label"])

    def feeds(self, indices, *, epoch):
        for index in indices:
            feed = {name: array[index] for name, array in self._arrays.items()}
            yield feed | {"valid": index >= 0}

    def batch(self, resident, feed, step):
        return dict(feed)


def recorded_images(seed):
    """Training images [48, ...] in the order of the recording, their labels, and test images."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((12, 4, 3, 64, 64)).reshape(48, 3, 64, 64)
    labels, test = rng.integers(0, NUM_CLASSES, (12, 4)), rng.standard_normal((8, 3, 64, 64))
    return images.transpose(0, 2, 3, 1), labels.ravel(), test.transpose(0, 2, 3, 1)


def error(ours, recorded):
    return np.abs(np.asarray(ours) - recorded).max() / np.abs(recorded).max()


def assert_sums_agree(weights, golden):
    """Of every tensor that has a use: (sum, sum of squares), members' batch norms one by one."""
    ours = {
        torch_name("resnet50", f"any/{'/'.join(path)}"): leaf
        for tree in weights.values()
        for path, leaf in flatten_dict(tree).items()
    }
    compared = set()
    for key in golden.files:
        name, is_norm = key.removeprefix("norm/"), key.startswith("norm/")
        if not is_norm or name.endswith(COUNTER):
            continue
        member = re.search(r"\.specialist_modules\.(\d+)", name)
        plain = re.sub(r"\.specialist_modules\.\d+", "", name)
        if member is None and f"norm/{_specialist(name)}" in golden.files:
            continue  # a batch norm's original, without use
        leaf = to_torch(ours[plain] if member is None else ours[plain][int(member[1])])
        found = error([leaf.sum(), np.square(leaf).sum()], golden[key])
        assert found <= TOLERANCE, f"{key}: {found:.2e}"
        compared.add((plain, member and member[1]))
    num_members = json.loads(str(golden["settings"]))["k"]
    own = len(flatten_dict(weights["late_phase"])) + len(flatten_dict(weights["batch_stats"]))
    assert len(compared) == len(flatten_dict(weights["shared"])) + num_members * own


def _specialist(name):
    module, leaf = name.rsplit(".", 1)
    return f"{module}.specialist_modules.0.{leaf}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "coasting", "member_mode", "num_devices", "layout"),
    [
        ("coasting", "every_minibatch", "vmap", 2, "data"),
        ("per_spec_optim", "none", "scan", 3, "members"),
    ],
)
def test_fine_tuning_agrees_with_the_published_code(
    float64, run, coasting, member_mode, num_devices, layout, tmp_path, monkeypatch
):
    golden = np.load(GOLDEN / f"finetune_resnet50_{run}.npz")
    settings = json.loads(str(golden["settings"]))
    fields = {
        "model.pretrained": tmp_path / "resnet50.safetensors",
        "train.epochs": 1,
        "train.batch_size": settings["batch"],
        "train.num_microbatches": settings["split"],
        "train.learning_rate": settings["lr"],
        "train.weight_decay": settings["wd"],
        "train.compute_dtype": "float64",
        "late_phase.num_members": settings["k"],
        "late_phase.learning_rate": settings["spec_lr"],
        "late_phase.coasting": coasting,
        "late_phase.member_mode": member_mode,
        "parallel.layout": layout,
        "evaluate.batch_size": 3,  # does not divide the 8 test images
        "evaluate.every_epochs": 0,
        "checkpoint.every_epochs": 0,
        "checkpoint.every_minutes": 0,
    }
    config = load_config(CONFIG, [f"--config.{name}={value}" for name, value in fields.items()])
    weights = state_dict("resnet50", NUM_CLASSES)
    safetensors.numpy.save_file(weights, config.model.pretrained)
    images, labels, test_images = recorded_images(int(golden["images_seed"]))
    test = Floats(test_images, np.zeros(len(test_images)))
    monkeypatch.setattr(experiment, "train_source", lambda *_: Floats(images, labels))
    monkeypatch.setattr(experiment, "evaluation_sources", lambda *_: {"test": test})
    monkeypatch.setattr(train, "epoch_order", lambda seed, epoch, n: np.arange(n, dtype=np.int32))
    dataset = types.SimpleNamespace(
        num_classes=NUM_CLASSES, image_shape=images.shape[1:], identity=dict, name="recorded"
    )
    devices = Devices.over(jax.devices()[:num_devices])
    training = train.Training(config, dataset, devices)
    logits, evaluator = [], training.evaluator

    def views(state, *, on_batch):
        """What the program asks for before it trains, and this test at the end."""
        if not logits:  # as it is released, so that one program evaluates both
            released = training.released(training.initial_state)
            state = networks.without_optimisers(released)
        arrays, found = evaluator.predict(evaluator.place(state), test, on_batch=on_batch)
        logits.append(arrays["collapsed"])
        return found

    monkeypatch.setattr(evaluator, "views", views)
    losses, cycles = [], training.runner.cycles

    def recording(*args, **options):
        for state, found in cycles(*args, **options):
            losses.append(found["loss"])
            yield state, found

    monkeypatch.setattr(training.runner, "cycles", recording)
    final, _ = training.run(Workdir(tmp_path / "run"))
    # Of a minibatch the program has the mean loss of its microbatches.
    recorded = golden["losses"].reshape(-1, settings["split"]).mean(1)
    assert error(np.concatenate(losses), recorded) <= TOLERANCE
    assert_sums_agree(networks.to_weights(final), golden)
    views(final, on_batch=lambda: None)
    for found, name in zip(logits, ("pretrained_logits", "final_logits"), strict=True):
        assert error(found, golden[name]) <= TOLERANCE, name
