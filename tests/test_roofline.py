"""Bounds of speed: counted as a small network's shapes say, and the page is the script's."""

import dataclasses
import json
import sys

import jax.numpy as jnp
import pytest
import survival

from lpw_jax import models
from lpw_jax.benchmark import counts, roofline
from lpw_jax.devices.published_peaks import ACCELERATORS, Peaks, float32_note, of

sys.path.append(str(survival.ROOT / "scripts"))
import roofline as script  # noqa: E402

SLOW = Peaks("slow", "none", 1e9, None, 1e8, 1e6, "nobody")


def wide(depth, width):
    return models.create("wide_resnet", depth=depth, width=width, num_classes=10)


def test_the_page_has_the_tables_that_the_script_writes():
    page = (survival.ROOT / "docs" / "roofline.md").read_text()
    assert script.updated(page) == page
    assert page.count("| resnet50, ") == page.count("| WRN-28-10, ") == 10


def test_values_of_the_smallest_network_are_those_of_its_layers_by_hand():
    found = roofline.passes(wide(10, 1), (32, 32, 3))
    values = {kind: sum(one.values for one in found if one.kind == kind) for kind in script.KINDS}
    large, middle, small = 16 * 32 * 32, 32 * 16 * 16, 64 * 8 * 8  # outputs of the three groups
    first = 2 * (3 * 32 * 32 + large)  # whose images need no gradient
    ends = 2 * (large + large)  # of the first group's two convolutions
    ends += 2 * (large + middle) + 2 * middle  # conv1 and the shortcut; conv2
    ends += 2 * (middle + small) + 2 * small
    assert values["convolution"] == first + 3 * ends
    norms = 2 * large + (large + middle) + (middle + small) + small
    assert values["batch norm"] == 9 * norms
    assert values["addition"] == 6 * (large + middle + small)


@pytest.mark.parametrize("name", ["wide_resnet", "resnet50"])
def test_operations_are_those_that_are_counted_elsewhere(name):
    side = 32 if name == "wide_resnet" else 64
    model = models.create(name, depth=16, width=2, num_classes=10, dtype=jnp.bfloat16)
    found = roofline.passes(model, (side, side, 3))
    assert sum(one.flops for one in found) == counts.training_flops(model, (side, side, 3))


def test_bounds_are_ever_tighter_and_without_memory_speed_they_are_bytes():
    found = roofline.passes(wide(10, 1), (32, 32, 3))
    limits = roofline.bounds(found, SLOW, "bfloat16")
    assert limits["operations"] > limits["fused"] > limits["passes"]
    total = sum(one.values for one in found)
    starved = dataclasses.replace(SLOW, bandwidth=1.0)
    assert roofline.bounds(found, starved, "bfloat16")["passes"] == pytest.approx(1 / (2 * total))
    assert roofline.bounds(found, starved, "float32")["passes"] == pytest.approx(1 / (4 * total))
    assert roofline.bounds(found, SLOW, "tf32") is None
    rich = dataclasses.replace(SLOW, bandwidth=1e30)
    assert len({round(bound, 6) for bound in roofline.bounds(found, rich, "float32").values()}) == 1


def test_what_was_reached_is_the_fastest_cycle_of_the_same_network_precision_and_device(tmp_path):
    def result(speed, kind="NVIDIA H100 80GB HBM3", matmul_precision="high"):
        contenders = [{"name": "K = 1, vmap", "num_members": 1, "images_per_second": speed}]
        contenders += [{"name": "plain SGD", "images_per_second": 9e9}]
        contenders += [{"name": "K = 10, vmap", "num_members": 10, "not_run": "memory"}]
        train = {"compute_dtype": "float32", "matmul_precision": matmul_precision}
        model = {"name": "wide_resnet", "depth": 28, "width": 10}
        return {
            "config": {"model": model, "train": train},
            "environment": {"num_devices": 2, "device_kind": kind},
            "step": {"contenders": contenders},
        }

    suite = tmp_path / "h100"
    suite.mkdir()
    (suite / "tf32.json").write_text(json.dumps({"results": result(8000.0)}))
    (tmp_path / "a.json").write_text(json.dumps(result(6000.0)))
    (tmp_path / "b.json").write_text(json.dumps(result(600.0, matmul_precision="highest")))
    (tmp_path / "c.json").write_text(json.dumps(result(70.0, kind="cpu")))
    lines = script.tables(tmp_path).splitlines()
    [tf32] = [line for line in lines if line.startswith("| WRN-28-10, H100 SXM | TF32")]
    [float32] = [line for line in lines if line.startswith("| WRN-28-10, H100 SXM | float32")]
    assert tf32.endswith("| 4,000 |") and float32.endswith("| 300 |")
    assert sum("not run" in line for line in lines) == 18


@pytest.mark.parametrize(
    ("kind", "name"),
    [("NVIDIA H100 80GB HBM3", "H100 SXM"), ("TPU v4", "TPU v4"), ("TPU v5 lite", "TPU v5e")],
)
def test_devices_are_known_by_the_names_that_jax_gives_them(kind, name):
    assert of(kind).name == name and of(f"{kind} II") is None


def test_published_peaks_are_those_without_sparsity():
    for one in ACCELERATORS:
        assert one.bfloat16 > (one.tf32 or 0) > one.float32 or one.tf32 is None
        assert one.tf32 is None or one.tf32 == pytest.approx(one.bfloat16 / 2)


GPU = dict(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
FLOAT32 = dict(compute_dtype="float32", matmul_precision="highest")


def test_a_gpu_in_float32_is_told_what_tf32_and_bfloat16_would_gain_and_nobody_else():
    assert float32_note(**GPU, **FLOAT32) == (
        "float32 products do without tensor cores here (no TF32); "
        "--config.train.matmul_precision=high takes TF32, at most 7.4 times as fast by published "
        "peaks, --config.train.compute_dtype=bfloat16 bfloat16, at most 14.8 times as fast by "
        "published peaks"
    )
    other = float32_note(platform="gpu", device_kind="another", **FLOAT32)
    assert "matmul_precision=high takes TF32, on most GPUs some times as fast" in other
    for changed in (
        {"platform": "tpu"},
        {"platform": "cpu"},
        {"compute_dtype": "bfloat16"},
        {"compute_dtype": "float64"},
        {"matmul_precision": "high"},
    ):
        assert float32_note(**{**GPU, **FLOAT32, **changed}) == ""
