"""Eight CPU devices, strict arithmetic and kept programs, for every test and its processes."""

import atexit
import functools
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import shared

ROOT = Path(__file__).parents[1]
os.environ["NPROC"] = "16"  # with fewer threads than devices, steps that run ahead can deadlock
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        shared.QUICK_COMPILER,
    ]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Many tests compile the same programs, and so does the next session: one folder keeps them all.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Of two processes one may read what the other has not wholly written: then both compile it.
UNFINISHED = "ignore:Error reading persistent compilation cache entry"
os.environ.setdefault("PYTHONWARNINGS", UNFINISHED)
if shared.FOLDER not in os.environ:  # the first process of the session
    shared.make_room(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]), 10**9)
    os.environ[shared.FOLDER] = tempfile.mkdtemp(prefix="lpw_jax-tests-")
    atexit.register(shutil.rmtree, os.environ[shared.FOLDER], ignore_errors=True)

import jax  # noqa: E402  (it reads the environment once)
import pytest  # noqa: E402

# Files that take longest, the longest first: begun last, one of them would keep one worker busy
# long after the others have ended.
DEAR = (
    "test_golden_finetune.py",
    "test_golden.py",
    "test_imagenet_run.py",
    "test_benchmark_suite.py",
    "test_hosts.py",
    "test_kill.py",
    "test_train.py",
    "test_language_run.py",
    "test_all_weights.py",
    "test_hosts_disturbed.py",
    "test_imagenet_hosts.py",
    "test_kinds_in_the_program.py",
    "test_benchmark.py",
    "test_own_network.py",
    "test_preemption.py",
    "test_structure.py",
    "test_pretrained.py",
    "test_wheel.py",
    "test_examples.py",
    "test_bfloat16.py",
    "test_parallel.py",
    "test_run_table.py",
    "test_compilation.py",
    "test_noisy_quadratic.py",
    "test_own_example.py",
    "test_remote_storage.py",
)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", UNFINISHED)


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(DEAR)}
    items.sort(key=lambda item: rank.get(item.path.name, len(DEAR)))


def pytest_collection_finish():
    gc.freeze()  # what is imported is not garbage: looked through, it took 5 % of the time
    gc.set_threshold(100_000, 20, 20)
    assert "tensorflow" not in sys.modules, "collected, a test imports TensorFlow: 4 s a worker"


jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True)
def told_nothing():
    """What a program warns of once, it warns of once in every test."""
    yield
    if console := sys.modules.get("lpw_jax.display.console"):
        console.told.clear()


@pytest.fixture
def float64():
    """Turns on 64-bit arrays for one test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def foreign_arithmetic(float64):
    """Layers of other libraries promote ranks and types."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def fast_steps(monkeypatch):
    """What runs on all devices is compiled to faster machine code: for long trainings."""
    from lpw_jax.devices import cpu

    options = cpu.compiler_options() | {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(cpu, "compiler_options", lambda: options)


def _created(create):
    """While a fixture is in use, every network that the program makes is of `create`."""
    from lpw_jax import models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "create", create)
        yield


@pytest.fixture(scope="module")
def tiny_network():
    """Every network that the program makes is `tiny_net.PatchNet`."""
    import tiny_net

    yield from _created(tiny_net.create)


@pytest.fixture(scope="module")
def two_layers():
    """Likewise `tiny_net.TinyNet`: several shared weights and batch norms."""
    import tiny_net

    options = dict(network=tiny_net.TinyNet, use_bias=False)
    yield from _created(functools.partial(tiny_net.create, **options))


@pytest.fixture(scope="module")
def finished_run(tiny_network):
    """Folder of a finished run of `short_run.COMMAND`, of a tiny network. Only to be read."""
    import short_run

    from lpw_jax import main

    def train(folder):
        with pytest.MonkeyPatch.context() as patch:
            # As users run it: what the program itself asks of XLA then counts.
            others = os.environ["XLA_FLAGS"].replace(shared.QUICK_COMPILER, "")
            patch.setenv("XLA_FLAGS", others)
            assert main.main([*short_run.COMMAND, "--workdir", str(folder / "digits")]) == 0

    return shared.once("finished_run", train) / "digits"


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of `finished_run` that a test may change."""
    return shutil.copytree(finished_run, tmp_path / "copy")
