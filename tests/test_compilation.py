"""What a program has compiled is kept on disk for the next: where, and what stands against it."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import survival
from short_run import CONFIGS, DIGITS

from lpw_jax.devices import compilation

# The program, and then how often JAX looked into its cache, and found there what it sought.
PROGRAM = """
import json, sys
import jax
sys.path.append("tests")
import tiny_net
from lpw_jax import main, models
models.create = tiny_net.create
counts = {"compile_requests_use_cache": 0, "cache_hits": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    counts[name] = counts.get(name, 0) + 1
jax.monitoring.register_event_listener(count)
code = main.main(sys.argv[1:])
print(json.dumps([counts["compile_requests_use_cache"], counts["cache_hits"]]))
sys.exit(code)
"""
QUICK = [
    "--config.train.epochs=2",
    "--config.train.batch_size=16",
    "--config.late_phase.release_epoch=1",
    "--config.late_phase.num_members=2",
    "--config.late_phase.sigma=0.05",
    "--config.late_phase.member_mode=vmap",  # compiles soonest
    "--config.data.validation_examples=1400",
]


def train(workdir, home, **environment):
    """Trains on one device in a process of its own; returns the two counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPIL")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--config", DIGITS, "--workdir", str(workdir), *QUICK],
        cwd=CONFIGS.parent,
        env=kept
        | {"XLA_FLAGS": survival.QUICK_COMPILER, "HOME": str(home), "XDG_CACHE_HOME": ""}
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def entries(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def predictions(workdir):
    with np.load(workdir / "predictions" / "test.npz") as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_a_second_run_compiles_nothing_and_repeats_the_first_bit_for_bit(tmp_path):
    everything = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    sought, found = train(tmp_path / "a", tmp_path, **everything)
    folder = tmp_path / ".cache" / "lpw_jax" / "xla"
    kept = entries(folder)
    assert len(kept) == sought - found > 10
    sought, found = train(tmp_path / "b", tmp_path, **everything)
    assert sought == found and entries(folder) == kept
    first, second = predictions(tmp_path / "a"), predictions(tmp_path / "b")
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture
def settings(monkeypatch):
    """JAX's settings as they are without any environment variable."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_cache_lies_where_xdg_says(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation.use_cache()
    assert settings.jax_compilation_cache_dir == str(tmp_path / "lpw_jax" / "xla")
    assert os.listdir(tmp_path / "lpw_jax" / "xla") == []


@pytest.mark.parametrize("caches", ["", "relative/path"])
def test_without_an_absolute_xdg_folder_it_lies_in_the_home_folder(
    caches, settings, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation.use_cache()
    assert settings.jax_compilation_cache_dir == str(tmp_path / ".cache" / "lpw_jax" / "xla")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("jax_compilation_cache_dir", "/elsewhere"), ("jax_enable_compilation_cache", False)],
)
def test_jax_own_settings_win(setting, value, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = getattr(settings, setting)
    settings.update(setting, value)
    compilation.use_cache()
    folder = settings.jax_compilation_cache_dir
    settings.update(setting, before)
    assert folder == (value or None) and not list(tmp_path.iterdir())


def test_several_processes_use_a_cache_only_where_one_is_set(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    compilation.use_cache()
    assert settings.jax_compilation_cache_dir is None and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_warned_of_and_ends_nothing(
    settings, tmp_path, monkeypatch, capsys
):
    (tmp_path / "lpw_jax").write_text("a file, where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compilation.use_cache()
    assert settings.jax_compilation_cache_dir is None
    warning = capsys.readouterr().err
    assert warning.startswith("warning: compiled programs are not kept") and "lpw_jax" in warning
    assert warning.count("\n") == 1
    assert jax.jit(lambda x: x + 1)(np.int32(1)) == 2
