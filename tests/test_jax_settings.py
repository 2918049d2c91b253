"""Nothing in the environment or in JAX's settings changes what is drawn, or how it is computed."""

import contextlib
import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import survival
from comparison_files import results, write
from short_run import DIGITS

import lpw_jax
from lpw_jax.comparison import marks, runs
from lpw_jax.config import load_config
from lpw_jax.devices import jax_settings
from lpw_jax.files import environment
from lpw_jax.files.environment import Environment
from lpw_jax.files.workdir import Workdir

OTHERWISE = {
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 3,
    "jax_default_matmul_precision": "bfloat16",
    "jax_enable_x64": True,
    "jax_softmax_custom_jvp": True,
    "jax_disable_jit": True,
}


@contextlib.contextmanager
def otherwise():
    """JAX with all of these settings; compiling for each of them alone takes long."""
    before = {name: getattr(jax.config, name) for name in OTHERWISE}
    try:
        for name, value in OTHERWISE.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def drawn_by_the_library():
    """What `LatePhase.init` and `release` draw from one key, typed and raw."""
    kinds, sgd = [lpw_jax.low_rank(2, "a"), lpw_jax.copies("b")], optax.sgd(0.1)
    method = lpw_jax.LatePhase(lambda *_: None, kinds, sgd, sgd)
    raw = np.array([0, 7], np.uint32)
    key = jax.random.wrap_key_data(raw, impl="threefry2x32")
    params = {name: np.ones((4, 6), np.float32) for name in "ab"}

    def release(params, key, raw):
        tied = method.init(params, key=key)
        return method.release(tied, raw, num_members=3, sigma=0.1).members

    return jax.device_get(jax.jit(release)(params, key, raw))


def test_what_the_library_draws_is_a_function_of_the_key():
    expected = drawn_by_the_library()
    with otherwise(), jax.disable_jit(False):
        jax.tree.map(np.testing.assert_array_equal, drawn_by_the_library(), expected)


def drawn_by_a_network():
    """What a network that knows no key draws, its type, and the precision of its products."""

    def draw(x):
        a, b = jax.random.split(jax.random.key(5))
        return jax.random.bits(a), jax.random.normal(b, (3,)), x @ x, jax.nn.softmax(x)

    x = np.ones((2, 2), np.float32)
    found = jax.device_get(jax.jit(draw)(x))
    return found, str(jax.make_jaxpr(lambda x: jax.grad(lambda x: jnp.sum(x @ x))(x))(x))


def test_a_program_computes_alike_and_leaves_the_users_settings():
    options = {"compute_dtype": "float32", "matmul_precision": "highest"}
    with jax_settings.pinned(**options):
        expected = drawn_by_a_network()
    with otherwise():
        with jax_settings.pinned(**options):
            found = drawn_by_a_network()
        assert {name: getattr(jax.config, name) for name in OTHERWISE} == OTHERWISE
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])
    assert found[1] == expected[1] and "HIGHEST" in found[1]


def test_every_other_setting_is_recorded_or_without_effect(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--b=1 --xla_force_host_platform_device_count=4 --a=2")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = jax_settings.recorded()
    assert found["XLA_FLAGS"] == "--a=2 --b=1" and found["NVIDIA_TF32_OVERRIDE"] == "0"
    assert {"jax_optimization_level", "jax_disable_most_optimizations"} <= found.keys()
    assert not found.keys() & OTHERWISE.keys()
    assert not [name for name in found if "cache" in name or "log" in name]
    assert json.loads(json.dumps(found)) == found


def test_a_session_with_other_settings_is_told_what_they_are(tmp_path, monkeypatch):
    folder, config = Workdir(tmp_path), load_config(DIGITS, [])
    assert folder.start_session(config, resumed=False) == []
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    (line,) = folder.start_session(config, resumed=True)
    assert line.startswith("settings.XLA_FLAGS = '--xla_cpu_enable_fast_math=true', not ")
    assert len(folder.read_environment().resumed) == 1


def test_what_an_older_environment_does_not_tell_is_no_difference():
    told = {"python": "3.11.1", "packages": {"jax": "0.10.2"}}
    older = Environment(**told, arguments=["a"])
    newer = Environment(**told, arguments=["b"], settings={"XLA_FLAGS": "--a"})
    assert environment.differences(older, newer) == []
    newer = dataclasses.replace(newer, packages={"jax": "0.11.0"})
    assert environment.differences(older, newer) == ["packages.jax = '0.11.0', not '0.10.2'"]


def test_runs_of_other_settings_are_marked(tmp_path):
    for name, flags in (("cifar10_bn", "--fast"), ("cifar10_sgd", "")):
        write(tmp_path / name, results(name))
        made = {"packages": {"jax": "0.10.2"}, "settings": {"XLA_FLAGS": flags}}
        (tmp_path / name / "environment.json").write_text(json.dumps(made))
    named = [str(tmp_path / name) for name in ("cifar10_bn", "cifar10_sgd")]
    ours, theirs = runs.gather(named, left_out=[])
    (mark,) = marks.marks(ours, theirs)
    assert (
        mark.label == "other computing settings" and "XLA_FLAGS = '', not '--fast'" in mark.detail
    )


@pytest.mark.slow
def test_importing_changes_no_setting():
    program = """
import jax
before = dict(jax.config.values)
import lpw_jax
for name in lpw_jax.__all__:
    getattr(lpw_jax, name)
changed = {name for name, value in jax.config.values.items() if value != before.get(name, value)}
assert not changed, changed
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.slow
def test_a_run_is_the_same_whatever_the_environment_says(tmp_path, monkeypatch):
    plain = survival.undisturbed()
    variables = {name.upper(): str(value) for name, value in OTHERWISE.items()}
    variables |= {"FLAX_FIX_RNG_SEPARATOR": "1", "FLAX_RETURN_FROZENDICT": "1", "LC_ALL": "C"}
    variables |= {"PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2"}
    variables |= {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    otherwise = survival.start_tiny(tmp_path / "otherwise")
    assert otherwise.wait() == 0, otherwise.errors
    monkeypatch.undo()
    assert survival.differences(otherwise.workdir, plain) == []
