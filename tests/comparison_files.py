"""Small trees of finished runs, as the programs write them, for tests of comparisons."""

import copy
import functools
import json

import numpy as np

from lpw_jax import config as config_lib
from lpw_jax import config_schema
from lpw_jax.measures import metrics

OOD = ("LSUN", "TIN", "SVHN", "CIFAR")
PRETRAINED = {
    "published": "imagenet1k_v1",
    "model": "resnet50",
    "published_accuracy": 0.76,
    **dict.fromkeys(("accuracy", "nll", "brier", "ece"), 0.5),
}
IMPORTED = {"file": "a.pth", "sha256": "ab", "format": "pth", "tied": False}
OVERVIEW = """\
num_parameters 36732690.000000
num_coefs 10.000000
final_test_acc {accuracy:f}
final_nll {nll:f}
final_auroc 0.951000 0.942000 0.963000 0.914000
num_train_epochs 200
finished 1.000000
"""


@functools.cache
def _config(name, overrides):
    file = str(config_schema.CONFIGS / f"{name}.py")
    return config_lib.to_dict(config_lib.load_config(file, overrides))


def results(name, *, seed=0, accuracy=96.4, overrides=(), note="", **data):
    """results.json of a finished run of configs/NAME.py; `accuracy` of the collapsed, in %."""
    config = copy.deepcopy(_config(name, tuple(overrides)))
    config["seed"] = seed
    released = config["late_phase"]["release_epoch"] >= 0
    num_members = config["late_phase"]["num_members"] if released else 1
    outside = name.startswith("cifar")

    def member(accuracy):
        nll = 0.14 + (96.4 - accuracy) / 50
        return {"accuracy": accuracy / 100, "nll": nll, "brier": 0.055, "ece": 0.012}

    def view(accuracy):
        return {
            **member(accuracy),
            "ood": {s: {"auroc": 0.95 + seed / 1000} if outside else None for s in OOD},
            "ood_mean_auroc": 0.95 + seed / 1000 if outside else None,
        }

    return {
        "config": config,
        "seed": seed,
        "status": "complete",
        "num_parameters": 36489290,
        "num_late_phase_parameters": 24340,
        "coasting": config["late_phase"]["coasting"],
        "pretrained": PRETRAINED if name.startswith("imagenet") else None,
        "data": {
            "name": config["data"]["name"],
            "num_classes": 10,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "note": note,
            "ood_note": "",
            "num_test": 10_000,
            "sha256": "a" * 64,
            **data,
        },
        "views": {
            "collapsed": view(accuracy),
            "ensemble": view(accuracy + (0.05 if released else 0)),
            "members": [member(accuracy - 0.1)] * num_members,
        },
        "train": {
            "seconds": 7200.0,
            "images_per_second": 540.0,
            "num_devices": 2,
            "device_kind": "GPU",
            "peak_memory_bytes": 18_000_000_000,
            "skipped_images": 0,
        },
    }


def write(folder, found):
    """A run's folder with results.json; returns it as text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(found.get("config", {})))
    (folder / "results.json").write_text(json.dumps(found))
    return str(folder)


def write_seeds(folder, name, accuracies, **keywords):
    """folder/seed0, seed1, ...: a run for each accuracy."""
    for seed, accuracy in enumerate(accuracies):
        found = results(name, seed=seed, accuracy=accuracy, **keywords)
        write(folder / f"seed{seed}", found)
    return str(folder)


def write_overview(folder, *, accuracy=0.9646, nll=1400.0, text=OVERVIEW):
    """performance_overview.txt as the PyTorch code writes it; returns the file as text."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "performance_overview.txt"
    file.write_text(text.format(accuracy=accuracy, nll=nll))
    return str(file)


def write_predictions(folder, *, seed, wrong=(), ood=(), labels=None):
    """predictions/ of two members that are right except on the images `wrong`, of 40 in all."""
    rng = np.random.default_rng(seed)
    labels = np.arange(40) % 10 if labels is None else labels

    def logits(targets, sharpness):
        noise = rng.normal(size=(2, len(targets), 10))
        return (sharpness * np.eye(10)[targets] + noise).astype(np.float32)

    def save(name, targets, labels, sharpness):
        members = logits(targets, sharpness)
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / "predictions" / f"{name}.npz",
            collapsed=members.mean(axis=0),
            ensemble=metrics.ensemble_log_probs(members).astype(np.float32),
            label=labels,
            members=members,
        )

    targets = labels.copy()
    targets[list(wrong)] = (targets[list(wrong)] + 1) % 10
    save("test", targets, labels, 20.0)
    found = json.loads((folder / "results.json").read_text())
    found["data"]["num_test"] = None  # its figures are not those of these few
    (folder / "results.json").write_text(json.dumps(found))
    for name in ood:
        save(f"ood_{name}", labels, np.full(40, -1), 1.0)
