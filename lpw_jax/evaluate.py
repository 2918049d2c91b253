"""Evaluates a trained run in three views: collapsed, ensemble and each member.

python -m lpw_jax.evaluate --workdir DIR [--config.data.dir=...] [--config.data.ood_dir=...]
python -m lpw_jax.evaluate --ensemble RUN1 RUN2 ... [--output DIR]
python -m lpw_jax.evaluate --soup RUN1 RUN2 ... --output DIR [--config.data.dir=...]
python -m lpw_jax.evaluate --workdir DIR --corruptions DIR   (CIFAR-10-C or CIFAR-100-C)
python -m lpw_jax.evaluate --workdir DIR --surface [IMAGES]   (the loss around the networks)
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lpw_jax import config as config_lib
from lpw_jax import experiment, loading, networks, registry, report
from lpw_jax.command import prog
from lpw_jax.data import corruptions as corrupted_data
from lpw_jax.data import ood
from lpw_jax.data.text import Text
from lpw_jax.devices import compilation, hosts
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console, events, results_report
from lpw_jax.display.progress_bar import compiling_shown
from lpw_jax.errors import UserError, exit_code, leave
from lpw_jax.evaluation import corruptions, deep_ensemble, soup
from lpw_jax.evaluation.evaluator import Evaluator, check_data
from lpw_jax.evaluation.pictures import Pictures
from lpw_jax.evaluation.sample import sample
from lpw_jax.files import checkpoint, described, pictures
from lpw_jax.files.measured import Evaluation, Views
from lpw_jax.files.results import Results
from lpw_jax.files.run_files import SURFACE
from lpw_jax.files.workdir import SAMPLE, Workdir
from lpw_jax.measures.views import VIEWS, ood_separation
from lpw_jax.method.state import State
from lpw_jax.surfaces import of_run


def evaluate(
    evaluator: Evaluator,
    state: State,
    ood_sets: dict[str, np.ndarray],
    folder: Workdir,
    preemption: Preemption,
) -> dict[str, Any]:
    """Predicts every set and writes `predictions/`.

    Returns the `views` and `validation` of `Results`, and some fields of its `data`, by name.

    Raises:
      Preempted: between two batches.
    """
    folder.clear_predictions()
    skipped, shown, is_text = {}, Pictures(), isinstance(evaluator.dataset, Text)
    placed = evaluator.place(state)

    def predict_and_save(name, source):
        console.say(f"evaluating {name}, {len(source):,} {evaluator.task.examples}")
        predictions, views = evaluator.predict(placed, source, on_batch=preemption.check)
        folder.save_predictions(name, predictions)
        skipped[name] = len(source) - len(predictions["label"])
        if name != "validation" and not is_text:
            shown.add(name, source, predictions)
        return predictions, views

    test, views = predict_and_save("test", evaluator.sources["test"])
    held_out, validation = evaluator.sources.get("validation"), None
    if held_out is not None:
        held_out, validation = predict_and_save("validation", held_out)
    temperature = validation and evaluator.task.temperature
    for view in VIEWS:
        scaled = temperature and temperature(held_out, test, view)
        if temperature and not scaled:
            console.warn(
                f"no temperature was fitted for {view}: it needs validation images with right and "
                "with wrong predictions, and more right ones than by chance; train with more "
                "validation images (data.validation_examples)"
            )
        views[view] |= {"temperature_scaled": scaled, "ood": dict.fromkeys(ood.OOD_SETS)}
    for name, images in ood_sets.items():
        source = experiment.unlabelled_source(evaluator.config, evaluator.dataset, images)
        outside, _ = predict_and_save(f"ood_{name}", source)
        for view in VIEWS:
            views[view]["ood"][name] = ood_separation(test, outside, view)
    for view in VIEWS:
        sets = views[view]["ood"].values()
        views[view]["ood_mean_auroc"] = (
            float(np.mean([s["auroc"] for s in sets])) if all(sets) else None
        )
    if not is_text:
        folder.save_predictions(pictures.NAME, shown.arrays)
    ood_note = ood.ood_note({name: len(images) for name, images in ood_sets.items()})
    return {
        "views": described.read(Views, views),
        "validation": validation and described.read(Evaluation, validation),
        "data": {
            "ood_note": ood_note,
            "ood_digests": {name: ood.digest(images) for name, images in ood_sets.items()},
            "skipped": skipped,
        },
    }


def finish(
    evaluator: Evaluator,
    weights: dict[str, Any],
    ood_sets: dict[str, np.ndarray],
    folder: Workdir,
    results: Results,
    preemption: Preemption,
) -> dict[str, Any]:
    """Evaluates, completes results.json, prints the final table and returns the file's contents.

    Raises:
      UserError: the data are not those of the training.
    """
    dataset = evaluator.dataset
    identity = dataset.identity()
    digest = "sha256" if identity["num_train"] else "test_sha256"
    check_data(folder, dataset.name, getattr(results.data, digest), identity[digest])
    where = str(folder.path / "weights")
    shape = dataset.image_shape
    state = networks.from_weights(evaluator.config, weights, dataset.num_classes, where, shape)
    if results.data.num_validation and not identity["num_validation"]:
        console.warn(
            "validation images are not there: `validation` and `temperature_scaled` will be null"
        )
    # Until its predictions are whole again, the run is one that was not evaluated.
    results = dataclasses.replace(results, status="trained", views=None, validation=None)
    folder.write_results(results)
    with compiling_shown():
        found = evaluate(evaluator, state, ood_sets, folder, preemption)
    data = found.pop("data")
    if identity["num_train"] or evaluator.config.data.note:  # it tells of the training images too
        data["note"] = dataset.note
    data["class_names"] = list(dataset.class_names) or None
    for name in ("num_test", "test_sha256"):  # of networks that were trained elsewhere
        data[name] = getattr(results.data, name) or identity[name]
    results = dataclasses.replace(
        results, status="complete", data=dataclasses.replace(results.data, **data), **found
    )
    if isinstance(dataset, Text):
        written = sample(evaluator.model, networks.collapse_of(evaluator.model)(state)[0])
        if hosts.is_primary():
            folder.write_file(SAMPLE, written)
    with preemption.deferred():  # once results.json is complete, nothing is made again
        events.write_results(folder, results)
        folder.write_results(results)
        report.refresh(folder)
    results_report.say(results)
    console.say(f"results: {folder.path / 'results.json'}, shown in {report.NAME} beside it")
    return described.plain(results)


def run(
    workdir: str,
    overrides: Sequence[str] = (),
    *,
    corruptions_dir: str = "",
    surface_images: int | None = None,
) -> dict:
    """Evaluates the final weights in `workdir` again and rewrites its results.

    `overrides` are flags such as '--config.data.ood_dir=DIR'; they may change where data lies and
    how it is evaluated, nothing that was trained. With `corruptions_dir` it evaluates the corrupted
    images there instead, and writes and returns corruptions.json; with `surface_images` it writes
    and returns surface.json, of so many training images.
    """
    if surface_images is not None and surface_images < 1:
        raise UserError(f"--surface = {surface_images}: must be 1 or more images")
    folder = Workdir(workdir)
    config, results = folder.read_trained()
    for flag in config_lib.split_flags(overrides)[1]:
        field = flag.removeprefix("--config.").partition("=")[0]
        if field not in config_lib.NOT_TRAINED:
            changeable = ", ".join(config_lib.NOT_TRAINED)
            raise UserError(f"{flag}: only {changeable} can change after training")
    config = config_lib.override(config, overrides)
    if surface_images is not None and registry.data(config.data.name).is_text:
        raise UserError(f"--surface: must be of a run on images, data.name = {config.data.name!r}")
    corrupted = corruptions_dir and corrupted_data.load(config.data.name, corruptions_dir)
    compilation.use_cache()
    preemption = Preemption()
    with (
        experiment.pinned(config),
        preemption.watched(),
        folder.claimed(),
    ):
        weights = folder.load_weights()
        if corrupted:
            dataset = experiment.load_dataset(config)
            evaluator = Evaluator(config, dataset, Devices.over(backend=config.parallel.backend))
            return corruptions.evaluate(evaluator, weights, corrupted, folder, preemption)
        if surface_images is not None:
            return described.plain(
                _surface(config, results, weights, surface_images, folder, preemption)
            )
        dataset, ood_sets = experiment.load_data(config, to_train=False)
        evaluator = Evaluator(config, dataset, Devices.over(backend=config.parallel.backend))
        return finish(evaluator, weights, ood_sets, folder, results, preemption)


def _surface(config, results, weights, num_images, folder, preemption):
    dataset, weights = experiment.load_dataset(config), {"final": weights}
    check_data(folder, dataset.name, results.data.sha256, dataset.identity()["sha256"])
    # A run that keeps checkpoints keeps one of its end.
    if config.swa.start_epoch and (
        config.checkpoint.every_epochs or config.checkpoint.every_minutes
    ):
        for step in checkpoint.numbers(folder.checkpoints)[-1:]:
            weights["last"] = loading.load_weights(folder.path, step)
    evaluator = Evaluator(config, dataset, Devices.over(backend=config.parallel.backend))
    surface = of_run.evaluate(evaluator, weights, num_images, folder, preemption)
    report.refresh(folder)
    console.say(f"surface: {folder.path / SURFACE}, shown in {report.NAME} beside it")
    return surface


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog=prog("lpw_jax.evaluate"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", metavar="DIR", help="folder of a finished run")
    what.add_argument(
        "--ensemble", nargs="+", metavar="RUN", help="finished runs, the members of a deep ensemble"
    )
    what.add_argument(
        "--soup",
        nargs="+",
        metavar="RUN",
        help="finished runs from the same pretrained weights, whose weights are averaged",
    )
    parser.add_argument(
        "--surface",
        nargs="?",
        type=int,
        const=of_run.IMAGES,
        metavar="IMAGES",
        help="computes the loss around the run's networks on so many training images (default: "
        f"{of_run.IMAGES}); the results are in the workdir's surface.json",
    )
    parser.add_argument(
        "--corruptions",
        metavar="DIR",
        default="",
        help="folder with the .npy files of CIFAR-10-C or CIFAR-100-C, to evaluate instead of the "
        "test set; the results are in the workdir's corruptions.json",
    )
    deep_ensemble.add_flags(parser)
    args, overrides = parser.parse_known_args(argv)
    if args.ensemble:
        others = {"--corruptions": args.corruptions, "--surface": args.surface is not None}
        if given := [*overrides, *(name for name, is_given in others.items() if is_given)]:
            parser.error(f"not with --ensemble: {' '.join(given)}")
        options = {name: getattr(args, name) for name in ("output", "view", "mixed")}
        return exit_code(parser.prog, lambda: deep_ensemble.run(args.ensemble, **options))
    if args.soup:
        if not args.output or args.mixed or args.corruptions or args.surface is not None:
            parser.error(
                "--soup needs --output, and goes with none of --mixed, --corruptions, --surface"
            )

        def evaluate_soup():
            soup.write(args.soup, output=args.output)
            run(args.output, overrides)

        return exit_code(parser.prog, evaluate_soup)
    if args.output or args.mixed or args.view != parser.get_default("view"):
        parser.error("--output, --view and --mixed go with --ensemble")
    if args.surface is not None and args.corruptions:
        parser.error("--surface: not with --corruptions")
    options = {"corruptions_dir": args.corruptions, "surface_images": args.surface}
    return exit_code(parser.prog, lambda: run(args.workdir, overrides, **options))


if __name__ == "__main__":
    leave(main())
