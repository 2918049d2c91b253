"""The console command: each program by its name, and configs of the package by theirs."""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lpw_jax import command
from lpw_jax import config as config_lib
from lpw_jax.config_schema import CONFIGS, config_names
from lpw_jax.errors import ConfigError

ROOT = Path(command.__file__).resolve().parents[1]


def lpw(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "lpw_jax.command", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lpw", *arguments])
    monkeypatch.setattr(command.errors, "begin", lambda: None)
    assert command.main() == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in command.COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_command_is_its_program_under_the_commands_name(tmp_path):
    done = lpw("train", "--config", "digits_bn", "--config.seed=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "lpw train: error: seed = -1: must be 0 to 2**32 - 1\n"


def test_a_command_ends_with_its_programs_code_and_imports_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lpw", "data", "--help"])
    monkeypatch.setattr(command.errors, "begin", lambda: None)
    ran = []

    def program(module, *, run_name):
        ran.append((module, run_name, list(sys.argv)))
        sys.exit(75)

    monkeypatch.setattr(runpy, "run_module", program)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 75
    assert ran == [("lpw_jax.data", "__main__", ["lpw data", "--help"])]
    imported = "print([m for m in ('jax', 'numpy', 'ml_collections', 'rich') if m in sys.modules])"
    code = f"import sys, lpw_jax.command; {imported}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"[]\n"


def test_scripts_are_commands(tmp_path):
    done = lpw("table", "digits", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert "usage: lpw table" in lpw("table", "--help", cwd=tmp_path).stdout


def test_a_mistaken_command_is_told_the_nearest(tmp_path):
    done = lpw("trian", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lpw: error: 'trian' is no command; the nearest is train\n"


def test_every_program_that_calls_itself_something_is_a_command():
    called = set()
    for path in (ROOT / "lpw_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "prog":
                called.add(node.args[0].value)
    assert called == {module for module, _ in command._MODULES.values()}


def test_scripts_in_the_wheel_import_only_what_is_in_it():
    setup = (ROOT / "setup.py").read_text()
    here = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    shipped = {name for name in here if f'"lpw_jax.scripts.{name}"' in setup}
    assert shipped >= {name for name, _ in command._SCRIPTS.values()}
    for name in shipped:
        tree = ast.parse((ROOT / "scripts" / f"{name}.py").read_text())
        imported = {
            module
            for node in ast.walk(tree)
            for module in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert imported & here <= shipped, name


def test_configs_of_the_package_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits_bn").mkdir()  # no file
    for name in ("digits_bn", "cifar10_bn:fast", "cifar10_bn"):
        file, *variant = name.split(":")
        path = ":".join([str(CONFIGS / f"{file}.py"), *variant])
        assert config_lib.load_config(name) == config_lib.load_config(path)
        assert config_lib.config_name(name) == config_lib.config_name(path)
    assert {"base", "digits_bn"} < set(config_names())


def test_a_file_comes_before_a_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (CONFIGS / "digits_bn.py").read_text()
    (tmp_path / "digits_bn").write_text(
        text.replace("return config", "config.seed = 7; return config")
    )
    assert config_lib.load_config("digits_bn").seed == 7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10_bm", "nearest: cifar10_bn"),
        ("configs/cifar10_bm.py:fast", "nearest: cifar10_bn"),
        ("x", "base, cifar100_bn, "),
        ("", "base, cifar100_bn, "),
    ],
)
def test_a_wrong_name_is_told_the_nearest(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="config file") as raised:
        config_lib.load_config(name)
    assert words in str(raised.value)
