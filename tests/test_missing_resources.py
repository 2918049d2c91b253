"""Devices and memory that are not there, and arrays of another shape, are named in one line."""

import jax
import numpy as np
import pytest

import lpw_jax
from lpw_jax import errors, evaluate, export, main
from lpw_jax.errors import UserError

DIGITS = "configs/digits_bn.py"
XLA = jax.errors.JaxRuntimeError


@pytest.fixture
def no_devices(monkeypatch):
    """JAX as it is with JAX_PLATFORMS=cuda where there is no GPU."""

    def fail():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fail)


@pytest.mark.parametrize(
    "program",
    [
        lambda run, out: main.main(["--config", DIGITS, "--workdir", f"{out}/new"]),
        lambda run, out: evaluate.main(["--workdir", run]),
        lambda run, out: export.main(["--workdir", run, "--output", f"{out}/net.safetensors"]),
    ],
    ids=["main", "evaluate", "export"],
)
def test_devices_that_are_not_there_are_named(program, no_devices, finished_run, tmp_path, capsys):
    assert program(str(finished_run), tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "error: JAX_PLATFORMS = 'cpu': JAX cannot use such a device here" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        XLA("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.\nstack\nof C++"),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("f4")),
    ],
    ids=["XLA", "Python", "numpy"],
)
def test_too_little_memory_names_what_to_make_smaller(error, capsys):
    def run():
        raise error

    assert errors.exit_code("program", run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "too little memory" in line
    for field in ("train.batch_size", "num_microbatches", "evaluate.batch_size", "member_mode"):
        assert field in line


def test_a_fault_of_the_program_is_none_of_memory():
    def run():
        raise XLA("INTERNAL: a fault")

    with pytest.raises(XLA):
        errors.exit_code("program", run)


IMAGES = {
    "float32 [2, 8, 8, 3]": np.zeros((2, 8, 8, 3), np.float32),
    "uint8 [2, 8, 8]": np.zeros((2, 8, 8), np.uint8),
    "uint8 [2, 8, 8, 1]": np.zeros((2, 8, 8, 1), np.uint8),
    "uint8 [8, 8, 3]": np.zeros((8, 8, 3), np.uint8),
    "uint8 []": np.zeros((), np.uint8),
    "list [": [[[[0, 0, 0]]]],
    "NoneType None": None,
}


@pytest.mark.parametrize("got", IMAGES)
def test_images_that_a_run_cannot_take_are_refused_by_shape_and_type(got, finished_run):
    run = lpw_jax.load(finished_run)
    with pytest.raises(UserError, match=r"images: must be \[N, H, W, 3\] uint8, 0 to 255") as error:
        run.normalize(IMAGES[got])
    assert f"got {got}" in str(error.value)
