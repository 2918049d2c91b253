"""One benchmark, part by part; what a part cannot run, it says, and the others go on."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import console, experiment, preflight
from lpw_jax.benchmark import collectives, counts, pytorch, settings, whole
from lpw_jax.benchmark.timing import Contender, matmul_flops_per_second
from lpw_jax.errors import UserError
from lpw_jax.parallel import Devices
from lpw_jax.storage import first_line
from lpw_jax.workdir import environment

PLAIN, OWN_CONVOLUTIONS = "plain SGD", "plain SGD, JAX's convolutions"


def measure(
    config: ConfigDict,
    *,
    parts: Sequence[str],
    num_members: Sequence[int],
    member_modes: Sequence[str],
    repeats: int,
    seconds: float,
    device_counts: Sequence[int],
    pytorch_code: str | None,
    pytorch_python: str,
    arguments: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Measures `parts` in their order and yields all results so far after each.

    Args:
      num_members: values of K; that of `config` is added.
      repeats: rounds of each step, contenders in turn.
      seconds: length of an epoch of the whole program.
      device_counts: numbers of devices for which collectives are counted.
      pytorch_code: clone of the published code, or None.
      pytorch_python: a Python with torch.
      arguments: with which `lpw_jax.main` would train this config.
    """
    devices = Devices.over()
    dataset, _ = experiment.load_data(config) if "program" in parts else (None, None)
    num_classes = dataset.num_classes if dataset else 100 if config.data.name == "cifar100" else 10
    results = {
        "environment": environment(),
        "config": config_lib.to_dict(config),
        "memory_limit_bytes": preflight.device_memory(devices.all[0]),
        "state": state_bytes(config, num_classes),
    }
    yield results
    bench = _Steps(config, devices, num_classes)
    tasks: dict[str, Callable[[], Any]] = {
        "matmul": lambda: _peaks(config, devices, repeats),
        "step": lambda: bench.run(sorted({*num_members, bench.num_members}), member_modes, repeats),
        "program": lambda: _whole_program(config, dataset, devices, bench, seconds, repeats),
        "collectives": lambda: collectives.measure(
            config, num_classes=num_classes, device_counts=device_counts
        ),
        "start": lambda: whole.first_step(arguments),
        "pytorch": lambda: pytorch.compare(
            config, bench, code=pytorch_code, python=pytorch_python, repeats=repeats
        ),
    }
    for part in parts:
        console.say(f"benchmark: {part}")
        try:
            results[part] = tasks[part]()
        except (UserError, jax.errors.JaxRuntimeError, subprocess.SubprocessError) as error:
            results[part] = {"not_run": first_line(error)}
        yield results


def state_bytes(config: ConfigDict, num_classes: int) -> dict[str, int]:
    """Weights and optimiser state: of plain SGD, and with the config's members."""

    def of(num_members):
        program = settings.late_phase(
            config,
            Devices.over(jax.devices()[:1]),
            settings.model_of(config, num_classes),
            num_members=num_members,
            member_mode="scan",
        )
        shapes = jax.eval_shape(program.init, jax.random.key(0))
        weights = (shapes.shared, shapes.late_phase, shapes.opt_shared, shapes.opt_late)
        return preflight.tree_bytes(weights), shapes

    (plain, shapes), (late, _) = of(1), of(config.late_phase.num_members)
    return {
        "num_parameters": sum(map(np.size, jax.tree.leaves((shapes.shared, shapes.late_phase)))),
        "plain_bytes": plain,
        "late_phase_bytes": late,
    }


def _peaks(config: ConfigDict, devices: Devices, repeats: int) -> dict[str, Any]:
    """FLOP/s of large matrix products."""
    size = 2048 if devices.all[0].platform == "cpu" else 8192
    kinds = {
        "bfloat16": ("bfloat16", "default"),
        "float32": ("float32", "highest"),
        "float32, default precision": ("float32", "default"),
    }
    return {"size": size} | {
        name: matmul_flops_per_second(*kind, size=size, repeats=3 * repeats)
        for name, kind in kinds.items()
    }


class _Steps:
    """The bare steps, on random images that lie on the devices."""

    def __init__(self, config: ConfigDict, devices: Devices, num_classes: int):
        self.config, self.num_members = config, config.late_phase.num_members
        self._devices, self._num_classes = devices, num_classes

    def late_phase(self, num_members: int, member_mode: str) -> Contender:
        """A cycle, compiled and warm."""
        model = settings.model_of(self.config, self._num_classes, member_mode)
        return Contender(
            settings.late_phase(
                self.config,
                self._devices,
                model,
                num_members=num_members,
                member_mode=member_mode,
            )
        )

    def run(
        self, num_members: Sequence[int], member_modes: Sequence[str], repeats: int
    ) -> dict[str, Any]:
        """Every contender's facts."""
        model = settings.model_of(self.config, self._num_classes)
        own = model.clone(conv_general_dilated=None)
        contenders, failed = {}, []

        def add(name, build, **facts):
            try:
                contenders[name] = (build(), facts)
            except jax.errors.JaxRuntimeError as error:
                failed.append({"name": name, **facts, "not_run": first_line(error)})
            else:
                console.say(f"  {name}: compiled in {contenders[name][0].compile_seconds:.1f} s")

        add(PLAIN, lambda: Contender(settings.plain_sgd(self.config, self._devices, model)))
        if model != own:
            add(
                OWN_CONVOLUTIONS,
                lambda: Contender(settings.plain_sgd(self.config, self._devices, own)),
            )
        for k in num_members:
            for mode in member_modes if k > 1 else member_modes[:1]:
                name = f"K = {k}, {mode}" if k > 1 else "K = 1"
                add(
                    name,
                    lambda k=k, mode=mode: self.late_phase(k, mode),
                    num_members=k,
                    member_mode=mode,
                )
        for _ in range(repeats):
            for contender, _ in contenders.values():
                contender.round()
        measured = [
            {"name": name, **facts, **contender.facts()}
            for name, (contender, facts) in contenders.items()
        ]
        counted = next(
            contender
            for name, (contender, _) in reversed(contenders.items())
            if name in (PLAIN, OWN_CONVOLUTIONS)  # without loops, whose bodies count once
        )
        train_flops = counted.flops and counted.flops / counted.images_per_call
        return {
            "contenders": measured + failed,
            "flops_per_image": {
                "compiled": train_flops and train_flops * self._devices.count,
                "by_hand": counts.wide_resnet_flops(
                    depth=self.config.model.depth,
                    width=self.config.model.width,
                    num_classes=self._num_classes,
                ),
            },
        }


def _whole_program(config, dataset, devices, bench, seconds, repeats) -> dict[str, Any]:
    """The whole program's speed between two measurements of the bare step."""
    mode = experiment.member_mode(config)
    bare = bench.late_phase(config.late_phase.num_members, mode)
    for _ in range(repeats):
        bare.round()
    speed = bare.facts()["images_per_second"]
    found = whole.train(config, dataset, devices, seconds=seconds, speed=speed)
    for _ in range(repeats):
        bare.round()
    bare_speed = bare.images_per_call / float(np.median(bare.rounds))
    return found | {"bare_images_per_second": bare_speed, "bare_rounds": bare.rounds}
