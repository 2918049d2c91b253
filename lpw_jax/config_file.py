"""Config files: Python files that define `get_config()`."""

import contextlib
import difflib
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

import ml_collections
from ml_collections import ConfigDict

from lpw_jax import config_schema
from lpw_jax.errors import ConfigError, UserError
from lpw_jax.files import storage

_MODULE = "__config__"  # as Python calls the file that it runs __main__


def config_name(path: str) -> str:
    """Returns the name under which runs are filed: of 'configs/a.py:b' and 'a:b' it is 'a_b'."""
    file, *argument = _split_path(path)
    return re.sub(r"[^\w.-]+", "_", "_".join([Path(file).stem, *argument]))


def _split_path(path: str) -> list[str]:
    """Returns [file] or [file, argument]; what is no file may name a config of the package."""
    if Path(path).is_file():
        return [path]
    if parts := re.fullmatch(r"(.*?\.py):(.*)", path, re.DOTALL):
        return list(parts.groups())
    name, *argument = path.split(":", 1)
    is_name = name in config_schema.config_names()
    return [str(config_schema.CONFIGS / f"{name}.py"), *argument] if is_name else [path]


def _nearest(path: str) -> str:
    """The names of the package's configs that are most like `path`, or all of them."""
    names = config_schema.config_names()
    name = Path(path.split(":")[0]).stem
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"nearest: {', '.join(nearest)}" if nearest else f"there are {', '.join(names)}"


def run(path: str) -> ConfigDict:
    """Returns what a config file's `get_config` returns, unchecked.

    Raises:
        ConfigError: the file cannot be read, or fails.
    """
    file, *argument = _split_path(path)
    try:
        file = os.fspath(storage.path(file))
        source = Path(file).read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: no such config file, and none of this name comes with the package; "
            f"{_nearest(path)}"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot read this config file ({one_line(error)}); those that come with the "
            f"package are found by name, without a path and .py: {_nearest(path)}"
        ) from error
    config_schema.import_base()
    # Dataclasses and pickles look for the module of what a file defines.
    sys.modules[_MODULE] = module = types.ModuleType(_MODULE)
    module.__file__ = file
    try:
        with _neighbours(file):
            exec(compile(source, file, "exec"), module.__dict__)
            if not callable(getattr(module, "get_config", None)):
                raise ConfigError("a config file must define a function get_config()")
            config = module.get_config(*argument)
        if not isinstance(config, ConfigDict):
            raise ConfigError(
                f"get_config() must return a ConfigDict of ml_collections, not {config!r}"
            )
    except (Exception, SystemExit) as error:
        steps = traceback.extract_tb(error.__traceback__)
        lines = [step.lineno for step in steps if step.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines.append(error.lineno)
        place = f"{file}, line {lines[-1]}" if lines else file
        raise ConfigError(f"{place}: {one_line(error)}") from error
    frozen = isinstance(config, ml_collections.FrozenConfigDict)
    return ConfigDict(config) if frozen else config


@contextlib.contextmanager
def _neighbours(file: str) -> Iterator[None]:
    """Inside, modules beside a file can be imported, if none that is installed has their name.

    Afterwards they are forgotten: another file may have others of the same names.
    """
    folder = os.path.dirname(os.path.abspath(file))
    before = set(sys.modules)
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have removed it
            sys.path.remove(folder)
        new = sys.modules.keys() - before
        for name in new:
            place = getattr(sys.modules[name], "__file__", None) or ""
            if name.partition(".")[0] in new and place.startswith(os.path.join(folder, "")):
                del sys.modules[name]


def one_line(error: BaseException) -> str:
    """An exception in one line, without its kind if it speaks to users."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
