"""The published PyTorch code beside ours: the same network and batch, in turn on one device."""

import json
import statistics
import subprocess
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from lpw_jax import beside
from lpw_jax.benchmark.counts import last_line
from lpw_jax.benchmark.timing import Contender

SCRIPT = beside.folder("scripts") / "benchmark_pytorch.py"
TURNS, SECONDS_A_TURN = 3, 300


def compare(
    config: ConfigDict,
    fastest: Callable[[], tuple[str, Contender]],
    *,
    code: str | None,
    python: str,
    repeats: int,
) -> dict[str, Any]:
    """Images/s of the published code, as it is and tuned, and of ours between its runs.

    Args:
      fastest: builds our contender and says in which member mode.
      code: clone of the published code.
      python: a Python that has torch.
      repeats: rounds in each of TURNS turns. What takes longer than SECONDS_A_TURN in one is not
        measured: bfloat16 is, for one, where a CPU has no instructions for it.
    """
    if code is None:
        return {"not_run": "--pytorch_code names no clone of the published code"}
    num_members = config.late_phase.num_members
    mode, ours = fastest()
    platform = "cpu" if jax.default_backend() == "cpu" else "cuda"
    command = [python, str(SCRIPT), "--code", code, "--device", platform]
    command += ["--depth", str(config.model.depth), "--width", str(config.model.width)]
    command += ["--batch_size", str(config.train.batch_size), "--num_members", str(num_members)]
    runs: dict[str, list[dict[str, Any]]] = {"published": [], "tuned": []}
    for _ in range(TURNS):
        for variant, done in runs.items():
            if not (done and "not_run" in done[-1]):
                done.append(_run([*command, "--variant", variant, "--repeats", str(repeats)]))
            for _ in range(repeats):
                ours.round()
    found: dict[str, Any] = {"ours": {"member_mode": mode, **ours.facts()}, "runs": runs}
    for variant, done in runs.items():
        speeds = [run["images_per_second"] for run in done if "images_per_second" in run]
        found[variant] = statistics.median(speeds) if speeds else None
    return found


def _run(command: list[str]) -> dict[str, Any]:
    """What a process prints, or why there is nothing."""
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_A_TURN)
    except subprocess.TimeoutExpired:
        return {"not_run": f"it took more than {SECONDS_A_TURN} s"}
    return {"not_run": last_line(child)} if child.returncode else json.loads(child.stdout)
