"""The program: flags, exit codes, and its own configs wherever it is started."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lpw_jax import config as config_lib
from lpw_jax import main
from lpw_jax.errors import Preempted, UserError

ROOT = Path(config_lib.__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
SMALL = str(CONFIGS / "cifar10_small.py")


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", SMALL, "--config.train.epochs=0"], "train.epochs = 0: must be >= 1"),
        (["--config", SMALL, "--config.train.epoch=5"], "train.epochs"),
        (["--config", "nowhere.py"], "nowhere.py: no such config file"),
        (["--config", SMALL, "--work", "x"], "unrecognized arguments: --work x"),
        (["--config", SMALL, "--workdir", ""], "--workdir = ''"),
        (["--config", SMALL, "--workdir", f"{SMALL}/run"], "writable folder"),
        (["--config", SMALL, "--workdir", "gs://b/run", "--profile"], "--profile: needs a local"),
        (["--config", SMALL, "--profile", "--dry_run"], "--dry_run: not allowed with argument --p"),
        ([], "--config"),
    ],
)
def test_program_refuses_mistakes_with_exit_code_2_and_no_traceback(arguments, words, tmp_path):
    done = python("-m", "lpw_jax.main", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "python -m lpw_jax.main: error: " in done.stderr and words in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_help_shows_the_flags_and_examples(tmp_path):
    done = python("-m", "lpw_jax.main", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in ("--config FILE", "--config.FIELD", "--workdir", "examples:", "digits_bn"):
        assert words in done.stdout


def test_own_configs_are_found_beside_a_decoy_and_nothing_heavy_is_imported(tmp_path):
    decoy = tmp_path / "configs"
    decoy.mkdir()
    for name in ("__init__", "base", "cifar10_bn"):
        (decoy / f"{name}.py").write_text("raise RuntimeError('decoy')\n")
    (decoy / "mine.py").write_text(
        "from configs import base\n\n\ndef get_config():\n"
        "    c = base.get_config()\n    c.seed = 5\n    return c\n"
    )
    before = "import sys, types; sys.modules['configs'] = types.ModuleType('configs'); "
    for first in ("", before):
        code = first + (
            "import sys; from lpw_jax import config, main; path = list(sys.path); "
            "print(config.load_config('configs/mine.py').seed, "
            f"config.load_config({str(CONFIGS / 'cifar10_bn.py')!r}).train.epochs, "
            "[m for m in ('jax', 'flax', 'numpy', 'tensorflow') if m in sys.modules], "
            "path == sys.path)"
        )
        done = python("-c", code, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("5 200 [] True\n", "")
    done = python(
        "-m", "lpw_jax.main", "--config=configs/mine.py", "--config.seed=-1", cwd=tmp_path
    )
    assert done.returncode == 2 and "seed = -1" in done.stderr and "decoy" not in done.stderr


def test_files_named_like_libraries_stand_in_no_programs_way(tmp_path):
    for name in ("random", "typing", "argparse", "ml_collections", "etils"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('decoy')\n")
    done = python("-m", "lpw_jax.main", "--config", SMALL, "--config.seed=-1", cwd=tmp_path)
    assert done.returncode == 2 and "seed = -1" in done.stderr and "decoy" not in done.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder where nobody writes")
def test_a_workdir_is_where_a_shell_would_see_it(tmp_path, monkeypatch):
    monkeypatch.chdir("/proc/self")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/run", "$HOME/run"):
        main._check_workdir(name)
    with pytest.raises(UserError, match="must be a writable folder"):
        main._check_workdir("run")


@pytest.fixture
def launch(monkeypatch):
    """Puts a module in the place of lpw_jax.launch: what `main` makes of its end is the law."""
    module = types.ModuleType("lpw_jax.launch")
    monkeypatch.setitem(sys.modules, "lpw_jax.launch", module)
    monkeypatch.setattr(sys.modules["lpw_jax"], "launch", module, raising=False)
    return module


def test_default_workdir_is_named_by_config_and_seed(launch):
    calls = []
    launch.run = lambda config, **rest: calls.append((config.seed, rest))
    assert main.main(["--config", SMALL, "--config.seed=7"]) == 0
    workdir = os.path.join("runs", "cifar10_small", "seed7")
    assert calls == [(7, {"workdir": workdir, "rehearse": False, "profile": False})]


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (UserError("no data"), 2, "python -m lpw_jax.main: error: no data\n"),
        (Preempted(), 75, "asked to end; the same command continues\n"),
        (KeyboardInterrupt(), 130, "interrupted; "),
    ],
)
def test_user_errors_and_interrupts_end_without_a_traceback(raised, code, words, launch, capsys):
    def run(config, **_):
        raise raised

    launch.run = run
    assert main.main(["--config", SMALL]) == code
    assert capsys.readouterr().err.startswith(words)


def test_faults_of_the_program_keep_their_traceback(launch):
    def run(config, **_):
        raise ValueError("a fault")

    launch.run = run
    with pytest.raises(ValueError, match="a fault"):
        main.main(["--config", SMALL])
