"""A whole run: what can be known is checked, then it trains, resumes or only evaluates."""

import zlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import dry_run, evaluate, experiment, networks, registry, report
from lpw_jax.devices import hosts, preflight, published_peaks
from lpw_jax.devices.parallel import Devices
from lpw_jax.devices.preemption import Preemption
from lpw_jax.display import console, results_report, schedule_report
from lpw_jax.display.progress_bar import compiling_shown
from lpw_jax.errors import UserError
from lpw_jax.evaluation.evaluator import Evaluator
from lpw_jax.evaluation.summary import summarize
from lpw_jax.files import described
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir
from lpw_jax.measures import parameters
from lpw_jax.training.train import Training


def run(
    config: ConfigDict, *, workdir: str, rehearse: bool = False, profile: bool = False
) -> dict[str, Any] | None:
    """Trains and evaluates what `config` describes; returns the contents of results.json.

    A run that was interrupted goes on at its newest checkpoint, one that was trained is evaluated,
    and a finished one is shown. With `rehearse` or `profile` all checks are made, a few steps taken
    or traced, and nothing is trained (None is returned). Every process of the run makes this call.

    Raises:
      UserError: anything that the user can mend, nearly always before training starts.
      Preempted: the run was asked to end; the same call continues it.
    """
    preemption = Preemption()
    rehearsal = dry_run.profile if profile else dry_run.rehearse if rehearse else None
    with experiment.pinned(config), preemption.watched():
        if not hosts.is_primary():
            console.be_quiet()
        devices = Devices.over(backend=config.parallel.backend)
        flags = {"--dry_run": rehearse, "--profile": profile}
        hosts.check_same("config", {**config_lib.agreed(config), **flags})
        hosts.together(lambda: _check_devices(config, devices))
        folder = Workdir(workdir)

        def earlier():
            return hosts.on_primary(lambda: earlier_results(config, folder))

        if not rehearsal and _is_finished(results := earlier()):  # it may be read-only
            console.say(
                f"{workdir} holds this run, finished; lpw_jax.evaluate can evaluate it again"
            )
            if not (folder.path / report.NAME).exists():  # it was killed on the way
                report.refresh(folder)
            results_report.say(results)
            return described.plain(results)
        with folder.claimed():
            results = earlier()  # another process may have trained it meanwhile
            if results and not rehearsal:
                folder.identify(config)
            to_train = results is None or rehearsal is not None
            known = registry.data(config.data.name)
            if to_train and known.is_known:  # a first time: a wrong file is known before data is
                num_classes = known.num_classes
                hosts.primary_first(
                    lambda: experiment.pretrained_weights(config, num_classes=num_classes)
                )
            console.say(f"workdir {workdir}; loading {config.data.name}")
            dataset, ood_sets = hosts.primary_first(
                lambda: experiment.load_data(config, to_train=to_train)
            )
            hosts.check_same("data", dataset.identity())
            checksums = {name: zlib.crc32(images) for name, images in ood_sets.items()}
            hosts.check_same("out-of-distribution data", checksums)
            preemption.check()
            if to_train:
                found = hosts.exchange(preflight.device_memory(jax.local_devices()[0]))
                room = None if None in found else min(found)
                training = hosts.together(lambda: _prepared(config, dataset, devices, room))
                if not folder.checkpoints.exists():
                    with compiling_shown():
                        training.begin(1, fresh=True)
                weights = {"sha256": training.identity.get("pretrained")}
                hosts.check_same("pretrained weights", weights)
                evaluator = training.evaluator
                hosts.on_primary(lambda: _check_room(training, ood_sets, folder, room))
                if rehearsal:
                    with compiling_shown():
                        rehearsal(training, folder)
                    return None
                with preemption.deferred():
                    trained_state, trained = training.run(folder, preemption)
                    weights = networks.to_weights(trained_state)
                    results = summarize(config, weights, dataset, trained)
                    folder.save_weights(weights)
                    folder.write_results(results)
            else:
                console.say(f"{workdir} holds this run, trained but not evaluated yet")
                weights = hosts.on_primary(folder.load_weights)
                evaluator = Evaluator(config, dataset, devices)
            return evaluate.finish(evaluator, weights, ood_sets, folder, results, preemption)


def _is_finished(results: Results | None) -> bool:
    return results is not None and results.status == "complete"


def earlier_results(config: ConfigDict, folder: Workdir) -> Results | None:
    """results.json of an earlier run of `config` in `folder`, None if it must be trained.

    Where checkpoints are, they decide: files that only inform may be missing or damaged.

    Raises:
      UserError: the folder holds another run, or something else.
    """
    stored, results = folder.known()
    if stored is None:
        return None
    differing = config_lib.differences(stored.to_dict(), config.to_dict())
    if differing:
        raise UserError(
            f"--workdir = {str(folder.path)!r}: holds a run of another config; choose another "
            f"folder. Different: {'; '.join(differing)}"
        )
    return results


def _check_devices(config: ConfigDict, devices: Devices) -> None:
    """Refuses a config that does not fit the devices, and patterns that match no weight."""
    preflight.check_devices(
        num_devices=config.parallel.num_devices,
        platform=config.parallel.platform,
        found=devices.all,
    )
    config_lib.check_devices(config, devices.count)
    experiment.num_groups(config, devices.count)
    networks.check(config)


def _prepared(
    config: ConfigDict, dataset: experiment.AnyDataset, devices: Devices, room: int | None
) -> Training:
    """The training, built and shown."""
    if not registry.data(config.data.name).is_known:
        networks.check(config, dataset)
    training = Training(config, dataset, devices, device_memory=room)
    weights = networks.to_weights(training.tied_like)
    shown = config_lib.to_dict(config)
    for field in {"depth", "width", "embedding"} - set(
        registry.network(config.model.name).settings
    ):
        del shown["model"][field]  # not this network's
    console.print_config(shown)
    counts = parameters.counts(weights["shared"], weights["late_phase"])
    console.say(console.parameter_table(counts))
    console.say(
        f"{devices.count} x {devices.all[0].device_kind} on {jax.process_count()} host(s); "
        f"members: {training.member_mode}, layout: {training.in_groups.layout}"
    )
    if note := published_peaks.float32_note(
        platform=devices.all[0].platform,
        device_kind=devices.all[0].device_kind,
        compute_dtype=config.train.compute_dtype,
        matmul_precision=config.train.matmul_precision,
    ):
        console.say(note)
    console.say(schedule_report.schedule_table(training.timeline.plan()))
    return training


def _check_room(
    training: Training, ood_sets: dict[str, np.ndarray], folder: Workdir, room: int | None
) -> None:
    """Refuses a disk, and warns of a device's memory (`room`), that is too small."""
    config, timeline, state = training.config, training.timeline, training.final_like
    weights = networks.without_optimisers(state)
    checkpoint = (state, weights if timeline.averages else ())
    members = config.evaluate.member_predictions * timeline.members(timeline.epochs)
    predicted = [*training.evaluator.sources.values(), *ood_sets.values()]
    num_classes = training.evaluator.dataset.num_classes
    itemsize = np.promote_types(training.model.dtype, np.float32).itemsize
    preflight.check_disk(
        folder.path,
        num_bytes=preflight.run_bytes(
            checkpoint=checkpoint,
            weights=weights,
            keep=config.checkpoint.keep,
            predictions=sum(map(len, predicted)) * (members + 2) * num_classes * itemsize,
        ),
    )
    estimate = training.step_bytes(training.member_mode)
    console.say(f"estimated memory of a training step: {preflight.in_words(estimate)} on a device")
    platform = training.devices.all[0].platform
    if warning := preflight.memory_warning(estimate, room, platform=platform):
        console.warn(warning)
