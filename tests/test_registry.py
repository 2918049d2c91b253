"""Names of networks and data sets: what is known of them, and functions of one's own."""

import os
import subprocess
import sys

import pytest
from short_run import DIGITS

from lpw_jax import registry
from lpw_jax.config import load_config
from lpw_jax.errors import UserError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes modules into the current directory, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", ".")])

    def write(name, text):
        path = (tmp_path / name.replace(".", "/")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for name in [name for name in sys.modules if name.startswith("reg_")]:
        del sys.modules[name]


def test_a_function_is_found_from_the_current_directory(module):
    module("reg_pack.inner", "class A:\n    @staticmethod\n    def make(): return 3\n")
    assert registry.resolve("reg_pack.inner:A.make", "model.name")() == 3


def test_the_current_directory_comes_first_only_while_an_own_module_is_imported(
    module, tmp_path_factory
):
    installed = tmp_path_factory.mktemp("installed")
    (installed / "reg_common.py").write_text("def f(): return 4\n")
    sys.path.insert(0, str(installed))
    module("reg_late", "def f(): import reg_later; return reg_later.x\n")
    module("reg_later", "x = 3\n")
    module("reg_common", "def f(): return 5\n")
    assert registry.resolve("reg_common:f", "model.name")() == 5
    assert registry.resolve("reg_late:f", "model.name")() == 3
    assert sys.path[0] == str(installed) and sys.path[-1] == os.getcwd()


def test_a_current_directory_that_was_deleted_is_no_place_for_modules(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert callable(registry.resolve("lpw_jax.models.resnet:ResNet", "model.name"))
    with pytest.raises(UserError, match="importing reg_nowhere raised ModuleNotFoundError"):
        registry.resolve("reg_nowhere:build", "model.name")
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reg_nowhere:build", "importing reg_nowhere raised ModuleNotFoundError: No module named"),
        ("reg_broken:build", r"ZeroDivisionError: division by zero \(.*reg_broken.py, line 2\)"),
        ("reg_good:biuld", r"reg_good has no biuld \(did you mean 'build'\?\)"),
        ("reg_good:number", "but that is 3"),
    ],
)
def test_what_is_no_function_is_refused_with_field_rule_and_value(module, name, message):
    module("reg_broken", "\n1 / 0\n")
    module("reg_good", "number = 3\ndef build(): ...\n")
    with pytest.raises(UserError, match=f"^model.name = '{name}': must name a .*{message}"):
        registry.resolve(name, "model.name")


def test_a_function_gets_what_it_names_and_its_failure_is_told(module):
    module("reg_calls", "def f(a, *, b=2, **others): return a, b, others\ndef g(): 1 / 0\n")
    assert registry.call("reg_calls:f", "data.name", {"a": 1, "c": 3}) == (1, 2, {})
    with pytest.raises(UserError, match="data.name = 'reg_calls:g': must not fail, .*, line 2"):
        registry.call("reg_calls:g", "data.name", {})


@pytest.mark.parametrize("name", ["my.data:load", "mnist", "emnist/letters", "image_folder"])
def test_own_data_and_those_of_tfds_are_possible_configs(name):
    flags = [f"--config.data.name={name}", "--config.data.image_size=9"]
    config = load_config(DIGITS, [*flags, "--config.data.mean=0.5", "--config.data.std=0.2"])
    assert config.data.name == name and config.data.mean == (0.5,)
    assert not registry.data(name).is_known


def test_means_must_be_finite_and_of_as_many_channels_as_deviations():
    with pytest.raises(UserError, match="data.mean = .nan,.: must be finite"):
        load_config(DIGITS, ["--config.data.mean=nan"])
    with pytest.raises(UserError, match=r"data.std = \(\): must be, like data.mean, empty or"):
        load_config(DIGITS, ["--config.data.mean=0.5,0.5,0.5"])
    with pytest.raises(UserError, match="data.std = 'a': expected tuple of float"):
        load_config(DIGITS, ["--config.data.std=a"])


@pytest.mark.parametrize(
    ("flag", "nearest"), [("data.name=digit", "digits"), ("model.name=resnet5", "resnet50")]
)
def test_a_wrong_name_is_answered_before_jax_is_imported(flag, nearest):
    code = f"""
import sys
from lpw_jax import main
code = main.main(["--config", {DIGITS!r}, "--config.{flag}"])
assert not {{"jax", "tensorflow"}} & set(sys.modules)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"did you mean '{nearest}'?" in done.stderr, done.stderr
