"""What a configuration may be: its fields and types, which are those of `configs.base`."""

import ast
import difflib
import importlib.util
import json
import numbers
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from lpw_jax import beside, config_rules
from lpw_jax.errors import ConfigError

CONFIGS = beside.folder("configs")


def import_base() -> types.ModuleType:
    """Imports our own `configs.base`, whatever `configs` the current directory holds.

    Afterwards `from configs import ...` in any config file finds ours too.
    """
    file = str(CONFIGS / "__init__.py")
    package = sys.modules.get("configs")
    if package is None or getattr(package, "__file__", None) != file:
        for name in [name for name in sys.modules if name.split(".")[0] == "configs"]:
            del sys.modules[name]
        # By its place: in a wheel it lies in our package, whose folder must not be on sys.path.
        spec = importlib.util.spec_from_file_location("configs", file)
        sys.modules["configs"] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return importlib.import_module("configs.base")


def config_names() -> list[str]:
    """The names by which programs find the configs that come with the package."""
    return sorted(file.stem for file in CONFIGS.glob("*.py") if file.stem != "__init__")


def schema() -> dict[str, Any]:
    """Returns base's defaults as nested dicts: they say which fields exist and their types."""
    return import_base().get_config().to_dict()


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Flattens sections: {'train.epochs': 200, ...}."""
    flat = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def typed(value: Any, default: Any) -> Any:
    """Returns `value` as the type of `default` if it is one, or raises TypeError.

    An int does for a float and a list for a tuple. An empty default is a tuple of floats.
    """
    kind = type(default)
    if kind is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(value)
        return tuple(typed(item, default[0] if default else 0.0) for item in value)
    if kind in (bool, str):
        fits = isinstance(value, kind)
    else:
        number = numbers.Integral if kind is int else numbers.Real
        fits = isinstance(value, number) and not isinstance(value, bool)
    if not fits:
        raise TypeError(value)
    return kind(value)


def from_text(text: str, default: Any) -> Any:
    """Reads what a flag says as the type of `default`, or raises ValueError.

    A tuple is a list or tuple of Python or JSON, a single item, or items with commas between, where
    those inside of brackets, braces and parentheses are part of an item, as in regular expressions.
    """
    kind = type(default)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    if kind is not tuple:
        return kind(text)
    for read in (ast.literal_eval, json.loads):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # regular expressions are full of odd escapes
                found = read(text.strip())
            return typed(found if isinstance(found, list | tuple) else (found,), default)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    item = type(default[0]) if default else float
    return tuple(item(part.strip()) for part in _parts(text))


def _parts(text: str) -> Iterator[str]:
    """The parts between commas, but for those in brackets and behind backslashes."""
    start, depth, set_start = 0, 0, None  # `set_start`: where a set's first member is, as in [,a]
    escaped = False
    for i, letter in enumerate(text):
        if escaped or letter == "\\":
            escaped = not escaped
        elif set_start is not None:
            if letter == "^" and i == set_start:
                set_start += 1
            elif letter == "]" and i > set_start:
                set_start = None
        elif letter == "[":
            set_start = i + 1
        elif letter in "({":
            depth += 1
        elif letter in ")}":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield text[start:i]
            start, depth = i + 1, 0
    if start == 0 or text[start:].strip():  # as in Python, a comma may end them
        yield text[start:]


def unknown(field: str, fields: Mapping) -> str:
    """Returns the message for a dotted path that is none of `fields`."""
    inner = [known for known in fields if known.startswith(f"{field}.")]
    if inner:
        return f"{field}: a section, not a field; its fields are {', '.join(inner)}"
    nearest = difflib.get_close_matches(field, fields, n=1, cutoff=0)
    return f"{field}: unknown field; the nearest known one is {nearest[0]}"


def wrong_type(field: str, value: Any, default: Any) -> str:
    """Returns the message for a value whose type is not that of base's default."""
    kind = type(default).__name__
    if isinstance(default, tuple):
        kind = f"tuple of {type(default[0]).__name__ if default else 'float'}"
    return f"{field} = {value!r}: expected {kind}"


def checked(tree: Mapping, errors: list[str]) -> ConfigDict:
    """Builds the validated config from nested dicts; raises `errors` and those that it finds."""
    known, values = schema(), {}
    _read(tree, known, "", values, errors)
    config_rules.check(values, errors)
    if errors:
        raise ConfigError("\n".join(errors))
    config = ConfigDict(known)
    config.update_from_flattened_dict(values)
    return config.lock()


def _read(given: Mapping, known: Mapping, prefix: str, values: dict, errors: list[str]) -> None:
    """Collects the fields that exist and have their type in `values`, by dotted path."""
    errors += [unknown(f"{prefix}{name}", flatten(schema())) for name in given if name not in known]
    for name, default in known.items():
        field = prefix + name
        if name not in given:
            errors.append(f"{field}: missing; start from configs.base.get_config()")
        elif not isinstance(default, Mapping):
            try:
                values[field] = typed(given[name], default)
            except (TypeError, OverflowError):
                errors.append(wrong_type(field, given[name], default))
        elif isinstance(given[name], Mapping):
            _read(given[name], default, f"{field}.", values, errors)
        else:
            errors.append(
                f"{field} = {given[name]!r}: expected a section with {', '.join(default)}"
            )
