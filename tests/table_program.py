"""scripts/run_table.py as tests call it."""

import importlib
import shlex
import sys
from pathlib import Path

import pytest

from lpw_jax import config as config_lib
from lpw_jax import main as main_lib

SCRIPT = Path(__file__).parents[1] / "scripts" / "run_table.py"


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(SCRIPT.parent))
    yield importlib.import_module("run_table")
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture
def printed(program, capsys):
    def words_of(*arguments):
        assert program.main(arguments) == 0
        return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]

    return words_of


def parsed(command):
    """What lpw_jax.main makes of a printed training: its workdir and its config."""
    assert command[:3] == [sys.executable, "-m", "lpw_jax.main"]
    args, config = config_lib.parse(main_lib.parser(), command[3:])
    return args.workdir, config
