"""What `import lpw_jax` loads, and how long it takes."""

import re
import subprocess
import sys

import pytest

import lpw_jax

IMPORT = """
import sys, time
import jax
start = time.perf_counter()
{second}
print(time.perf_counter() - start)
print(*sys.modules)
"""


def imported(second):
    program = [sys.executable, "-c", IMPORT.format(second=second)]
    found = subprocess.run(program, check=True, capture_output=True, text=True, timeout=120)
    seconds, modules = found.stdout.splitlines()
    return float(seconds), {name.partition(".")[0] for name in modules.split()} | set(
        modules.split()
    )


LIBRARY = "import lpw_jax; [getattr(lpw_jax, name) for name in dir(lpw_jax) if 'load' not in name]"


def test_the_library_needs_jax_and_optax_alone():
    _, modules = imported(LIBRARY)
    _, of_optax = imported("import optax")
    heavy = {"flax", "tensorflow", "orbax", "matplotlib", "ml_collections", "equinox", "etils"}
    assert not modules & heavy - of_optax
    own = {name for name in modules - of_optax if "." not in name}
    assert own <= {"lpw_jax"} | set(sys.stdlib_module_names)


def test_help_lists_the_public_names_in_their_order():
    listed = re.findall(r"^    (\w+(?:, \w+)*)(?=  |$)", lpw_jax.__doc__, re.MULTILINE)
    assert ", ".join(listed).split(", ") == lpw_jax.__all__


@pytest.mark.slow
def test_the_library_is_imported_in_a_moment():
    # The least of some: the machine may be busy.
    assert min(imported("import lpw_jax; lpw_jax.LatePhase")[0] for _ in range(5)) < 0.3
