"""Evaluates a trained run in three views: collapsed, ensemble and each member.

python -m lpw_jax.evaluate --workdir DIR [--config.data.dir=...] [--config.data.ood_dir=...]
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import compilation, console, experiment, metrics
from lpw_jax import config as config_lib
from lpw_jax import late_phase as lp
from lpw_jax.data import Dataset, ood
from lpw_jax.errors import SharedError, UserError, exit_code, leave
from lpw_jax.parallel import Devices
from lpw_jax.predict import Predictor
from lpw_jax.preemption import Preemption
from lpw_jax.workdir import Workdir

VIEWS = ("collapsed", "ensemble")


def evaluate(
    config: ConfigDict,
    weights: dict[str, Any],
    dataset: Dataset,
    ood_sets: dict[str, np.ndarray],
    devices: Devices,
    folder: Workdir,
    preemption: Preemption,
) -> dict[str, Any]:
    """Predicts every set and writes `predictions/`.

    Returns the `views`, `validation` and `data.ood_note` of results.json, by name.

    Raises:
      Preempted: between two batches.
    """
    predict = Predictor(
        devices=devices,
        model=experiment.build_model(config, dataset.num_classes),
        weights=weights,
        mean=dataset.mean,
        std=dataset.std,
        # A batch of one member fills a device; merged ones would only need more memory.
        member_mode=experiment.member_mode(config, fits=lambda: False),
        batch_size=config.evaluate.batch_size,
    )
    folder.clear_predictions()

    def predict_and_save(name, images, labels):
        console.say(f"evaluating {name}, {len(images):,} images")
        predictions = predict(images, on_batch=preemption.check)
        folder.save_predictions(name, {**predictions, "label": labels})
        return predictions

    test = predict_and_save("test", dataset.test_images, dataset.test_labels)
    views, validation = score(test, dataset.test_labels), None
    if len(dataset.validation_labels):
        images, labels = dataset.validation_images, dataset.validation_labels
        validation = score(predict_and_save("validation", images, labels), labels)
    for view in VIEWS:
        views[view]["ood"] = dict.fromkeys(ood.OOD_SETS)
    for name, images in ood_sets.items():
        no_label = np.full(len(images), -1, np.int32)
        outside = predict_and_save(f"ood_{name}", images, no_label)
        for view in VIEWS:
            entropies = (metrics.predictive_entropy(log_probs(p, view)) for p in (test, outside))
            views[view]["ood"][name] = metrics.ood_metrics(*entropies)
    for view in VIEWS:
        sets = views[view]["ood"].values()
        views[view]["ood_mean_auroc"] = (
            float(np.mean([s["auroc"] for s in sets])) if all(sets) else None
        )
    ood_note = ood.ood_note({name: len(images) for name, images in ood_sets.items()})
    return {"views": views, "validation": validation, "ood_note": ood_note}


def log_probs(predictions: dict[str, np.ndarray], view: str) -> np.ndarray:
    """Log probabilities [N, classes] of a view of `Predictor`'s result."""
    if view == "ensemble":
        return predictions["ensemble"]
    return metrics.log_softmax(predictions[view])


def score(predictions: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Accuracy, NLL, Brier score and ECE of the three views."""
    views = {
        view: metrics.classification_metrics(log_probs(predictions, view), labels) for view in VIEWS
    }
    members = [
        metrics.classification_metrics(metrics.log_softmax(logits), labels)
        for logits in predictions["members"]
    ]
    return {**views, "members": members}


def summarize(
    config: ConfigDict, weights: dict[str, Any], dataset: Dataset, train: dict[str, Any]
) -> dict[str, Any]:
    """results.json before its `views`: what was trained, on what, at what cost."""
    late = sum(leaf.size for leaf in jax.tree.leaves(weights["late_phase"]))
    late //= lp.num_members(weights["late_phase"])
    shared = sum(leaf.size for leaf in jax.tree.leaves(weights["shared"]))
    return {
        "config": config_lib.to_dict(config),
        "seed": config.seed,
        "status": "trained",
        "num_parameters": shared + late,
        "num_late_phase_parameters": late,
        "coasting": config.late_phase.coasting,
        "data": {
            **dataset.identity(),
            "note": dataset.note,
            "ood_note": None,
            "num_classes": dataset.num_classes,
            "mean": dataset.mean,
            "std": dataset.std,
        },
        "views": None,
        "validation": None,
        "train": train,
    }


def finish(
    config: ConfigDict,
    weights: dict[str, Any],
    dataset: Dataset,
    ood_sets: dict[str, np.ndarray],
    devices: Devices,
    folder: Workdir,
    results: dict[str, Any],
    preemption: Preemption,
) -> dict[str, Any]:
    """Evaluates, completes results.json, prints the final table and returns the results.

    Raises:
      UserError: the data are not those of the training.
    """
    there, here = results["data"].get("sha256"), dataset.identity()["sha256"]
    if there not in (None, here):
        raise SharedError(
            f"data.dir: {dataset.name} is not the one that {str(folder.path)!r} was trained on "
            f"(sha256 {there[:12]}... there, {here[:12]}... here)"
        )
    where = str(folder.path / "weights")
    experiment.check_weights(config, weights, dataset.num_classes, where)
    # Until its predictions are whole again, the run is one that was not evaluated.
    results |= {"status": "trained", "views": None, "validation": None}
    folder.write_json("results.json", results)
    found = evaluate(config, weights, dataset, ood_sets, devices, folder, preemption)
    results["data"] |= {"note": dataset.note, "ood_note": found.pop("ood_note")}
    results |= {"status": "complete", **found}
    folder.write_json("results.json", results)
    console.say(console.results_table(results))
    console.say(f"results: {folder.path / 'results.json'}")
    return results


def run(workdir: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluates the final weights in `workdir` again and rewrites its results.

    `overrides` are flags such as '--config.data.ood_dir=DIR'; they may change where data lies and
    how it is evaluated, nothing that was trained.
    """
    folder = Workdir(workdir)
    stored, results = folder.read_trained()
    for flag in config_lib.split_flags(overrides)[1]:
        field = flag.removeprefix("--config.").partition("=")[0]
        if field not in config_lib.NOT_TRAINED:
            changeable = ", ".join(config_lib.NOT_TRAINED)
            raise UserError(f"{flag}: only {changeable} can change after training")
    config = config_lib.override(config_lib.from_dict(stored), overrides)
    compilation.use_cache()
    preemption = Preemption()
    with (
        jax.enable_x64(config.train.compute_dtype == "float64"),
        preemption.watched(),
        folder.claimed(),
    ):
        weights = folder.load_weights()
        dataset, ood_sets = experiment.load_data(config)
        return finish(
            config, weights, dataset, ood_sets, Devices.over(), folder, results, preemption
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lpw_jax.evaluate",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of a finished run")
    args, overrides = parser.parse_known_args(argv)
    return exit_code(parser.prog, lambda: run(args.workdir, overrides))


if __name__ == "__main__":
    leave(main())
