"""Writes the tables of docs/roofline.md: `python scripts/roofline.py --update docs/roofline.md`."""

import argparse
import collections
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from results_table import between_markers

from lpw_jax import models, streams
from lpw_jax.benchmark import roofline
from lpw_jax.devices.published_peaks import ACCELERATORS

ROOT = Path(__file__).resolve().parents[1]
# Network: its model and images.
NETWORKS = {
    "WRN-28-10": (dict(name="wide_resnet", depth=28, width=10, num_classes=10), (32, 32, 3)),
    "resnet50": (dict(name="resnet50", num_classes=1000), (224, 224, 3)),
}
KINDS = ("convolution", "batch norm", "addition", "pooling")
NAMES = {"bfloat16": "bfloat16", "tf32": "TF32", "float32": "float32"}


def measured(folder: Path) -> dict[tuple[str, str, str], float]:
    """(device_kind, network, precision): the most images/s of all benchmarks in `folder`."""
    best = collections.defaultdict(float)
    for file in sorted(folder.rglob("*.json")):
        results = json.loads(file.read_text())
        if not isinstance(results, Mapping):
            continue
        results = results.get("results", results)  # a suite's step has them inside
        for kind, network, precision, speed in roofline.reached(results):
            best[kind, network, precision] = max(best[kind, network, precision], speed)
    return best


def tables(folder: Path = ROOT / "results" / "benchmarks") -> str:
    """What an image costs, what vendors publish, and the bounds beside what was reached."""
    passes = {
        name: roofline.passes(models.create(**model), shape)
        for name, (model, shape) in NETWORKS.items()
    }
    texts = ["\n".join(part) for part in (_costs(passes), _peaks(), _bounds(passes, folder))]
    return "\n\n".join(texts) + "\n"


def _costs(passes: Mapping[str, list[roofline.Pass]]) -> Iterator[str]:
    yield f"| an image of training | GFLOP | {' | '.join(f'{kind}, MB' for kind in KINDS)} | MB |"
    yield "|---" * (3 + len(KINDS)) + "|"
    for name, found in passes.items():
        values = collections.Counter()
        for one in found:
            values[one.kind] += one.values
        cells = [f"{2 * values[kind] / 1e6:.1f}" for kind in KINDS]
        flops = sum(one.flops for one in found) / 1e9
        yield f"| {name} | {flops:.2f} | {' | '.join(cells)} | {2 * values.total() / 1e6:.1f} |"


def _peaks() -> Iterator[str]:
    yield "| published, of one device | bfloat16, TFLOP/s | TF32 | float32 | memory, GB/s | by |"
    yield "|---|---|---|---|---|---|"
    for one in ACCELERATORS:
        tf32 = f"{one.tf32 / 1e12:.1f}" if one.tf32 else "-"
        yield (
            f"| {one.name} | {one.bfloat16 / 1e12:.1f} | {tf32} | {one.float32 / 1e12:.1f} | "
            f"{one.bandwidth / 1e9:,.0f} | {one.source} |"
        )


def _bounds(passes: Mapping[str, list[roofline.Pass]], folder: Path) -> Iterator[str]:
    reached = measured(folder)
    yield (
        "| images/s at most | | by operations | with bytes of convolutions | "
        "with passes of batch norm and additions | reached |"
    )
    yield "|---|---|---|---|---|---|"
    for name, found in passes.items():
        for one in ACCELERATORS:
            for precision in roofline.PRECISIONS:
                limits = roofline.bounds(found, one, precision)
                if limits is None:
                    continue
                speeds = [
                    speed
                    for (kind, network, of), speed in reached.items()
                    if (network, of) == (name, precision) and one.is_kind(kind)
                ]
                cells = [f"{limits[bound]:,.0f}" for bound in ("operations", "fused", "passes")]
                cells.append(f"{max(speeds):,.0f}" if speeds else "not run")
                yield f"| {name}, {one.name} | {NAMES[precision]} | {' | '.join(cells)} |"


def updated(page: str) -> str:
    """`page` with the tables between its markers."""
    return between_markers(page, "roofline", f"{tables()}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", type=Path, metavar="PAGE", help="file to change")
    arguments = parser.parse_args()
    if arguments.update:
        arguments.update.write_text(updated(arguments.update.read_text()))
    else:
        print(tables(), end="")


if __name__ == "__main__":
    streams.guard()
    main()
