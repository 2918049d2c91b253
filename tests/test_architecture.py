"""Reads the imports: they go downward only, TensorFlow comes late, few modules know the config."""

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lpw_jax"

# Lowest first. A module may import from its own layer, where no cycle may arise, and from below.
LAYERS = (
    (
        "beside", "command", "errors", "plain_text", "signals", "streams",
        "registered", "registry", "config", "config_file", "config_late_phase_rules",
        "config_rules", "config_schema",
        "files", "files.storage", "files.limits", "files.lock", "files.nested",
        "measures", "measures.*", "comparison.statistics", "comparison.paired",
        "weights", "weights.soundness", "weights.state_dicts", "weights.weight_files",
        "weights.torchvision_names",
        "weights.reference_names",
        "method", "method.*", "training.schedules",
        "surfaces", "surfaces.hessian", "surfaces.points", "surfaces.alike",
        "devices.compiling",
        # Packages, nothing in them.
        "devices", "display", "training", "evaluation", "comparison", "tasks",
    ),
    ("linen", "tasks.*", "training.progress", "display.console"),
    ("models", "models.*", "data", "data.*", "weights.pretrained", "weights.reference_weights"),
    ("devices.cpu", "devices.parallel", "devices.joining", "devices.lost", "devices.hosts",
     "devices.preemption", "devices.jax_settings", "files.*"),
    (
        "display.events", "display.schedule_report", "display.results_report",
        "devices.preflight", "devices.compilation", "devices.published_peaks",
        "weights.weight_download",
    ),
    ("display.*", "report", "report.*"),
    ("recipe", "training.runner", "evaluation.predict"),
    (
        "training.*", "evaluation.*", "surfaces.*", "evaluate", "experiment", "networks",
        "loading",
    ),
    (
        "launch", "dry_run", "benchmark", "benchmark.*", "torch_import", "export",
        "weights.reference_import",
    ),
    ("comparison.*",),
    ("compare", "report.__main__"),
    ("main", PACKAGE),  # the package itself offers the public names
)  # fmt: skip
CONFIG_READERS = {
    "config", "config_file", "config_schema", "experiment", "networks", "recipe",
    "training.timeline", "training.train", "loading", "evaluate", "evaluation.evaluator",
    "evaluation.deep_ensemble", "evaluation.soup", "evaluation.summary",
    "evaluation.text_ensemble", "launch", "main", "benchmark.*", "torch_import", "export",
    "weights.reference_import", "comparison.settings", "files.run_files", "files.workdir",
    "report.found_runs",
}  # fmt: skip
MAX_LINES = 300


def module_name(path):
    """`lpw_jax/data/cifar.py` is `data.cifar`, `lpw_jax/__init__.py` is `lpw_jax`."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or PACKAGE


MODULES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def layer_of(module):
    """The layer that has its name, or else the lowest one with a pattern of it."""
    for matches in (str.__eq__, fnmatch):
        for level, patterns in enumerate(LAYERS):
            if any(matches(module, pattern) for pattern in patterns):
                return level
    raise AssertionError(f"{module} is in no layer: add it to LAYERS in {Path(__file__).name}")


def imports(path, *, top_level=False):
    """Absolute dotted names that a file imports, `a.b.c` for `from a.b import c`."""
    package = path.relative_to(ROOT).parent.parts

    def visit(node):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *(node.module.split(".") if node.module else ())])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif not (top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    return set(visit(ast.parse(path.read_text(), filename=str(path))))


def internal_imports(path):
    """The modules of the package that a file imports, named as in MODULES."""
    found = set()
    for name in imports(path):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            inside = name.removeprefix(PACKAGE).removeprefix(".")
            parent = inside.rpartition(".")[0]
            # `from lpw_jax.step import train_step` names the module and then something in it.
            found.add(inside if inside in MODULES else parent or inside or PACKAGE)
    return found


def imports_package(names, package):
    return any(name == package or name.startswith(package + ".") for name in names)


def test_every_module_has_a_layer():
    for module in MODULES:
        layer_of(module)


def test_imports_go_downward_only():
    upward = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in internal_imports(path)
        if layer_of(imported) > layer_of(module)
    ]
    assert not upward


def test_imports_have_no_cycle():
    graph = {module: internal_imports(path) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


def test_the_method_stands_on_jax_and_optax_alone():
    allowed = {"jax", "optax", PACKAGE} | sys.stdlib_module_names
    for module, path in MODULES.items():
        if fnmatch(module, "method*"):
            assert {name.partition(".")[0] for name in imports(path)} <= allowed, module
            assert all(fnmatch(name, "method*") for name in internal_imports(path)), module


def test_the_method_speaks_of_no_task_and_no_library_of_networks():
    for module, path in MODULES.items():
        if fnmatch(module, "method*"):
            words = re.findall(r"(?i)cross.?entropy|images?\b|labels?\b|flax", path.read_text())
            assert not words, module


def test_tensorflow_is_imported_only_in_data_and_only_inside_functions():
    for module, path in MODULES.items():
        assert not imports_package(imports(path, top_level=True), "tensorflow"), module
        if not fnmatch(module, "data.*"):
            assert not imports_package(imports(path), "tensorflow"), module
            assert not imports_package(imports(path), "tensorflow_datasets"), module


def test_importing_what_the_package_imports_does_not_load_tensorflow():
    names = set().union(*(imports(path, top_level=True) for path in MODULES.values()))
    third_party = {name.partition(".")[0] for name in names} - {PACKAGE}
    program = f"""
import importlib, sys
for name in {sorted(third_party | {"tensorflow_datasets", "tensorboardX"})}:
    importlib.import_module(name)
sys.exit("tensorflow" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_few_modules_know_the_config():
    readers = {
        module
        for module, path in MODULES.items()
        if "config" in internal_imports(path) or imports_package(imports(path), "ml_collections")
    }
    assert not {
        reader for reader in readers if not any(fnmatch(reader, known) for known in CONFIG_READERS)
    }


SOURCES = [
    path
    for folder in (PACKAGE, "configs", "examples", "tests", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_no_file_is_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [path for path in SOURCES if path.stem in drawers]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import lpw_jax.step", {"step"}),
        ("from lpw_jax import step", {"step"}),
        ("from lpw_jax.step import train_step", {"step"}),
        ("from .step import train_step", {"step"}),
        ("from . import step", {"step"}),
        ("def f():\n    from lpw_jax.data.cifar import load", {"data.cifar"}),
        ("import numpy as np", set()),
    ],
)
def test_imports_are_read_in_every_form(line, expected, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "MODULES", {"step": None, "data.cifar": None})
    path = tmp_path / PACKAGE / "train.py"
    path.parent.mkdir()
    path.write_text(line)
    assert internal_imports(path) == expected
