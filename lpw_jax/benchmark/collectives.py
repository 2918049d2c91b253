"""Communication of a cycle, read from programs compiled for several devices.

python -m lpw_jax.benchmark.collectives CONFIG_JSON compiles for the devices that are there; the
devices may be fake, and then nothing is run. `measure` does so in processes of their own.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from lpw_jax import config as config_lib
from lpw_jax import experiment
from lpw_jax.benchmark.counts import collectives, last_line
from lpw_jax.benchmark.programs import Cycle, PlainSGD
from lpw_jax.devices.parallel import Devices


def measure(config: ConfigDict, *, num_classes: int, device_counts: Sequence[int]) -> list[dict]:
    """For each number of devices, what `of_devices` returns, or why it is not there."""
    results = []
    for count in device_counts:
        if config.train.batch_size % count:
            reason = f"{count} does not divide train.batch_size = {config.train.batch_size}"
            results.append({"devices": count, "not_run": reason})
            continue
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        task = {"config": config_lib.to_dict(config), "num_classes": num_classes}
        child = subprocess.run(
            [sys.executable, "-m", "lpw_jax.benchmark.collectives", json.dumps(task)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        if child.returncode:
            results.append({"devices": count, "not_run": last_line(child)})
        else:
            results.append(json.loads(child.stdout.splitlines()[-1]))
    return results


def of_devices(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """Collectives of plain SGD's step and of a cycle in each layout, on all devices there are.

    Compiled as for accelerators, with merged members, so that no loop hides a collective. The
    layouts are all that `shard_map` has, by their names in words.
    """
    devices = Devices.over(backend="shard_map")
    num_members = config.late_phase.num_members
    model = experiment.build_model(config, num_classes, member_mode="vmap")
    programs = {"plain": PlainSGD(config, devices, model)}
    for num_groups in range(1, devices.count + 1):
        if math.gcd(num_members, devices.count) % num_groups == 0:
            grouped = devices.in_groups(num_groups)
            programs[grouped.layout] = Cycle(
                config, grouped, model, num_members=num_members, member_mode="vmap"
            )
    found = {"devices": devices.count}
    for name, program in programs.items():
        kinds = collectives(program.lower().compile().as_text())
        total = sum(kind["bytes"] for kind in kinds.values())
        images = program.images_per_call
        found[name] = {"collectives": kinds, "bytes_per_image": total / images, "images": images}
    return found


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    print(json.dumps(of_devices(config_lib.from_dict(task["config"]), task["num_classes"])))
