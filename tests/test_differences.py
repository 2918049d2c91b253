"""What differs from the published PyTorch code, where no other test says so; the list in docs/."""

import ast
import re
from pathlib import Path

import jax
import pytest
from etils import epath
from test_golden import CONFIG
from test_import_late_phase import golden_entries, run_import

from lpw_jax import networks
from lpw_jax.comparison import overview
from lpw_jax.config import load_config
from lpw_jax.data import cycles_per_epoch
from lpw_jax.files.workdir import Workdir

ROOT = Path(__file__).parents[1]
ONLY_BATCH_NORM = "--config.late_phase.patterns=(.*/)?bn[^/]*/(scale|bias)"


def test_results_count_one_network_and_the_published_code_every_copy(tmp_path):
    entries = golden_entries("cifar_sgd_coasting", "final/")
    assert run_import(entries, tmp_path) == 0
    results = Workdir(tmp_path / "run").read_results()
    members = {name: array for name, array in entries.items() if "running_" not in name}
    everyone = sum(array.size for array in members.values())
    tied = sum(array.size for name, array in members.items() if "no_coef_modules.1" in name)
    late, k = results.num_late_phase_parameters, 3
    assert tied == late
    assert everyone + tied == results.num_parameters + k * late


def layers(tree):
    """Names of those that have arrays in a divided tree."""
    return {name for name, layer in tree.items() if jax.tree.leaves(layer)}


def test_the_head_is_late_phase_unless_the_patterns_leave_it_out():
    for flags, is_late in (([], True), ([ONLY_BATCH_NORM], False)):
        state = networks.shapes(load_config(CONFIG, flags), 10)
        shared, late = layers(state.shared), layers(state.members)
        assert ("head" in late, "head" in shared) == (is_late, not is_late)
        assert "bn_out" in late and "bn_out" not in shared


@pytest.mark.parametrize("name", ["resnet50", pytest.param("densenet161", marks=pytest.mark.slow)])
def test_the_head_of_every_imagenet_network_can_be_late_phase(name):
    file = str(ROOT / "configs" / f"imagenet_{name}.py")
    for flags, is_late in (([], False), ([f"{ONLY_BATCH_NORM},head/(kernel|bias)"], True)):
        late = layers(networks.shapes(load_config(file, flags), 1000).members)
        assert ("head" in late) == is_late


def test_aurocs_are_named_in_the_published_codes_order(tmp_path):
    """Its performance_overview lists LSUN (resized), TIN (resized), SVHN, the other CIFAR."""
    lines = "final_test_acc 0.96\nfinal_nll 1400\nfinal_auroc 0.91 0.92 0.93 0.94\nfinished 1\n"
    (tmp_path / overview.FILE).write_text(lines)
    found = overview.quantities(overview.read(epath.Path(tmp_path / overview.FILE)))["collapsed"]
    aurocs = {name: value for name, value in found.items() if name.startswith("auroc")}
    assert aurocs == pytest.approx(
        {
            "auroc_LSUN": 91.0,
            "auroc_TIN": 92.0,
            "auroc_SVHN": 93.0,
            "auroc_CIFAR": 94.0,
            "auroc_mean": 92.5,
        }
    )


def test_a_minibatch_of_125_leaves_no_remainder_of_cifar():
    for size, images in ((125, 50_000), (128, 49_920)):
        for members in (1, 10):
            cycles = cycles_per_epoch(50_000, batch_size=size, num_members=members)
            assert cycles * size * members == images


def test_every_test_that_the_page_cites_exists():
    cited = set(
        re.findall(r"(tests/\w+\.py)(?:::(\w+))?", (ROOT / "docs" / "differences.md").read_text())
    )
    assert cited
    for file, name in cited:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert not name or name in functions, f"{file}::{name}"
