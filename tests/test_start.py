"""How a program starts: what it imports, and what it compiles before and beside the first step."""

import re
import subprocess
import sys
import threading
from collections import Counter

import jax
import numpy as np
import pytest
from short_run import CONFIGS, DIGITS, subset

from lpw_jax.config import load_config
from lpw_jax.data import digits
from lpw_jax.devices.compilation import Program
from lpw_jax.devices.parallel import Devices
from lpw_jax.files.workdir import Workdir
from lpw_jax.training.train import Training

HEAVY = ("jax", "flax", "optax", "orbax", "sklearn", "matplotlib", "tensorflow")


def imported(program):
    """Which of HEAVY a program has imported at its end."""
    program += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CONFIGS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("argument", ["--help", "--config.train.epochs=none"])
def test_help_and_a_mistake_in_a_config_are_told_before_jax_is_imported(argument):
    program = f"""
from lpw_jax import main
try:
    main.main(["--config", {DIGITS!r}, {argument!r}])
except SystemExit:
    pass
"""
    assert imported(program)[-1] == "[]"


def test_the_first_line_comes_before_jax_is_imported(tmp_path):
    program = f"""
import sys
from lpw_jax import main
from lpw_jax.display import console
say = console.say
def stop(what):
    say(what)
    raise KeyboardInterrupt
console.say = stop
assert main.main(["--config", {DIGITS!r}, "--workdir", {str(tmp_path / "run")!r}]) == 130
"""
    assert imported(program) == ["digits_bn, seed 0: starting JAX", "[]"]


def test_digits_are_read_and_divided_as_by_scikit_learn_without_importing_it():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    ours, source = digits.load("digits"), load_digits()
    numbers = np.arange(len(source.target))
    train, test = train_test_split(numbers, test_size=360, stratify=source.target, random_state=0)
    np.testing.assert_array_equal(ours.train_labels, source.target[train])
    np.testing.assert_array_equal(ours.test_labels, source.target[test])
    darkest = source.images[test].reshape(360, -1).min(1) * (255 / 16)
    np.testing.assert_array_equal(ours.test_images.reshape(360, -1).min(1), np.round(darkest))
    read = "from lpw_jax.data import digits; digits.load('digits')"
    assert "sklearn" not in imported(read)[-1]


@pytest.fixture
def compiled():
    """A Counter of (name of the thread, without its number) for every program that is compiled."""
    counts = Counter()

    def on_duration(event, *_, **__):
        if "backend_compile_duration" in event:
            counts[re.sub(r"_\d+$", "", threading.current_thread().name)] += 1

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    yield counts
    jax.monitoring.unregister_event_duration_listener(on_duration)


def test_a_program_is_compiled_once_in_a_thread_and_its_call_waits(compiled):
    devices = Devices.over(jax.devices()[:1])
    x, y = devices.replicate(np.ones(3)), devices.send(np.ones((1, 2)))
    program = Program(devices.lift(lambda x, y: x * y.sum(), in_axes=(None, 0), out_axes=None))
    compiled.clear()
    like = (jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in (x, y))
    program.begin(*like)
    np.testing.assert_array_equal(program(x, y), [2, 2, 2])
    np.testing.assert_array_equal(program(program(x, y), y), [4, 4, 4])
    assert compiled == {"compilation": 1}


def test_what_could_not_be_compiled_is_told_by_the_call():
    def fail(*_):
        raise MemoryError("too little memory")

    program = Program(jax.jit(lambda x: x + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", fail)
        program.begin(np.float32(1))
        with pytest.raises(MemoryError, match="too little"):
            program(np.float32(1))


@pytest.mark.slow
def test_few_programs_are_compiled_and_the_dear_ones_in_threads(compiled, tiny_network, tmp_path):
    """In threads the initial state, both cycles, the distance of members and the evaluation."""
    options = ("train.epochs=2", "train.batch_size=8", "train.anneal_end=2", "train.anneal_start=0",
               "late_phase.release_epoch=1", "late_phase.num_members=2")  # fmt: skip
    config = load_config(DIGITS, [f"--config.{option}" for option in options])
    jax.clear_caches()
    training = Training(config, subset(48), Devices.over(jax.devices()[:1]))
    state, _ = training.run(Workdir(tmp_path))
    placed = training.evaluator.place(state)
    training.evaluator.measure(placed, training.evaluator.sources["test"], on_batch=lambda: None)
    assert compiled["compilation"] == 6  # the cycle's two, the collapse, and the three others
    assert compiled["MainThread"] <= 4  # two of keys, a conversion, the release
