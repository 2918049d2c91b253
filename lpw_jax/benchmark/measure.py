"""One benchmark, part by part; what a part cannot run, it says, and the others go on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment
from lpw_jax.benchmark import (
    check,
    collectives,
    counts,
    dispatch,
    input_pipeline,
    memory,
    pytorch,
    whole,
)
from lpw_jax.benchmark.programs import Cycle, PlainSGD
from lpw_jax.benchmark.timing import Contender, matmul_flops_per_second
from lpw_jax.data import imagenet
from lpw_jax.devices import preflight
from lpw_jax.devices.parallel import Devices
from lpw_jax.display import console
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import described
from lpw_jax.files.environment import environment

PLAIN, OWN_CONVOLUTIONS = "plain SGD", "plain SGD, JAX's convolutions"


def measure(
    config: ConfigDict,
    *,
    parts: Sequence[str],
    num_members: Sequence[int],
    member_modes: Sequence[str],
    repeats: int,
    seconds: float,
    matmul_size: int | None,
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
      matmul_size: rows of the matrices multiplied; None takes what fills the device.
      device_counts: numbers of devices for which collectives are counted.
      pytorch_code: clone of the published code, or None.
      pytorch_python: a Python with torch.
      arguments: with which `lpw_jax.main` would train this config.
    """
    results: dict[str, Any] = {}
    if "start" in parts:  # first, while the devices are free for other processes
        console.say("benchmark: start")
        results["start"] = whole.first_step(arguments)
    devices = Devices.over(backend=config.parallel.backend)
    config_lib.check_devices(config, devices.count)
    bench = _Steps(config, devices)
    results |= {
        "environment": described.plain(environment()),
        "config": config_lib.to_dict(config),
        "state": bench.state_bytes(),
    }
    yield results
    tasks: dict[str, Callable[[], Any]] = {
        "check": lambda: check.agreement(config, num_classes=bench.num_classes),
        "matmul": lambda: _peaks(devices, repeats, matmul_size),
        "step": lambda: bench.run(sorted({*num_members, bench.num_members}), member_modes, repeats),
        "program": lambda: bench.whole_program(seconds, repeats),
        "input": lambda: input_pipeline.measure(config, repeats=repeats),
        "collectives": lambda: collectives.measure(
            config, num_classes=bench.num_classes, device_counts=device_counts
        ),
        "memory": lambda: memory.measure(
            config, devices, num_classes=bench.num_classes, member_modes=member_modes
        ),
        "remat": lambda: memory.times(
            config, devices, num_classes=bench.num_classes, repeats=repeats
        ),
        "dispatch": lambda: dispatch.measure(devices, repeats=repeats),
        "pytorch": lambda: pytorch.compare(
            config, bench.fastest, code=pytorch_code, python=pytorch_python, repeats=repeats
        ),
    }
    for part in tasks:
        is_streamed = config.data.name == imagenet.NAME
        if part not in parts or (part == "input" and not is_streamed):
            continue
        console.say(f"benchmark: {part}")
        try:
            results[part] = tasks[part]()
        except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
            results[part] = {"not_run": first_line(error)}
        yield results


def _peaks(devices: Devices, repeats: int, size: int | None) -> dict[str, Any]:
    """FLOP/s of one device with large matrix products."""
    size = size or (2048 if devices.all[0].platform == "cpu" else 8192)
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

    def __init__(self, config: ConfigDict, devices: Devices):
        self.config, self.num_members = config, config.late_phase.num_members
        self.num_classes = experiment.num_classes(config)
        self._devices = devices

    def late_phase(self, num_members: int, member_mode: str) -> Contender:
        """A cycle, compiled and warm."""
        return Contender(self._late_phase(num_members, member_mode))

    def _late_phase(self, num_members, member_mode):
        return Cycle(
            self.config,
            self._devices,
            experiment.build_model(self.config, self.num_classes, member_mode=member_mode),
            num_members=num_members,
            member_mode=member_mode,
        )

    def fastest(self) -> tuple[str, Contender]:
        """The member mode that suits the devices, and a cycle of the config's K in it."""
        mode = experiment.member_mode(self.config, fits=lambda: True)
        try:
            return mode, self.late_phase(self.num_members, mode)
        except jax.errors.JaxRuntimeError:  # not enough memory
            return "scan", self.late_phase(self.num_members, "scan")

    def state_bytes(self) -> dict[str, int]:
        """Weights and optimiser state: of plain SGD, and with the config's members."""

        def weights(num_members):
            program = self._late_phase(num_members, "scan")
            shapes = jax.eval_shape(program.init, jax.random.key(0))
            of_optimisers = (shapes.shared_opt_state, shapes.member_opt_state)
            return (shapes.shared, shapes.members), of_optimisers

        plain, late = weights(1), weights(self.num_members)
        return {
            "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(plain[0])),
            "plain_bytes": preflight.tree_bytes(plain),
            "late_phase_bytes": preflight.tree_bytes(late),
        }

    def whole_program(self, seconds: float, repeats: int) -> dict[str, Any]:
        """The whole program's speed between two measurements of the bare step."""
        dataset = experiment.load_dataset(self.config)
        mode, bare = self.fastest()
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.late_phase.member_mode = mode
        for _ in range(repeats):
            bare.round()
        speed = bare.facts()["images_per_second"]
        found = whole.train(config, dataset, self._devices, seconds=seconds, speed=speed)
        for _ in range(repeats):
            bare.round()
        return found | {"bare": bare.facts()}

    def run(
        self, num_members: Sequence[int], member_modes: Sequence[str], repeats: int
    ) -> dict[str, Any]:
        """Every contender's facts."""
        model = experiment.build_model(self.config, self.num_classes, member_mode="scan")
        own = model.clone(conv_general_dilated=None)
        contenders, failed = {}, []

        def add(name, build, **facts):
            try:
                contenders[name] = (build(), facts)
            except jax.errors.JaxRuntimeError as error:
                failed.append({"name": name, **facts, "not_run": first_line(error)})
            else:
                facts["peak_memory_bytes"] = preflight.peak_memory()  # so far, of the process
                console.say(f"  {name}: compiled in {contenders[name][0].compile_seconds:.1f} s")

        add(PLAIN, lambda: Contender(PlainSGD(self.config, self._devices, model)))
        if model != own:
            add(
                OWN_CONVOLUTIONS,
                lambda: Contender(PlainSGD(self.config, self._devices, own)),
            )
        for k in num_members:
            for mode in member_modes:
                add(
                    f"K = {k}, {mode}",
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
                "by_hand": counts.training_flops(model, experiment.image_shape(self.config)),
            },
        }
