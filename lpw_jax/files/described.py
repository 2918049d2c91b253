"""JSON that dataclasses describe: read and checked by the types of their fields, and written."""

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union

T = TypeVar("T")
_ROUNDED = 1e-9  # a figure may be above its largest value by so much: areas are sums

described = dataclasses.dataclass(frozen=True, kw_only=True)


class Range(NamedTuple):
    """Least and largest value of a number, in `Annotated[int, Range(0)]`."""

    least: float
    largest: float = math.inf


def optional() -> Any:
    """A field that is not written where it is None."""
    return dataclasses.field(default=None, metadata={"optional": True})


def read(kind: type[T], value: Any, name: str = "") -> T:
    """JSON's `value` as `kind`: a dataclass, or any type that a field of one may have.

    Such are bool, int, float (finite; an int does), str, Literal, list[X], tuple[X, ...],
    dict[str, X], X | None, Any, and numbers with a `Range`.

    Raises:
      ValueError: naming the field, below `name`, the rule and the value.
    """
    if dataclasses.is_dataclass(kind):
        return _object(kind, value, name)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        (one,) = (option for option in inner if option is not type(None))
        return None if value is None else read(one, value, name)
    if origin is Annotated:
        number, (least, largest) = read(inner[0], value, name), inner[1]
        if not least - _ROUNDED <= number <= largest + _ROUNDED:
            to = f" to {largest:g}" if math.isfinite(largest) else " or more"
            raise _wrong(name, value, f"{least:g}{to}")
        return number
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise _wrong(name, value, " or ".join(map(repr, inner)))
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise _wrong(name, value, "a list")
        return origin(read(inner[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _check_mapping(value, name)
        return {key: read(inner[1], item, _join(name, key)) for key, item in value.items()}
    return _simple(kind, value, name)


def plain(value: Any) -> Any:
    """A dataclass in JSON's types, inverse of `read`."""
    if dataclasses.is_dataclass(value):
        found = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            field.name: plain(inner)
            for field, inner in found.items()
            if inner is not None or "optional" not in field.metadata
        }
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def documented(kind: type) -> Iterator[tuple[str, str]]:
    """Its fields as the docstring of a dataclass tells of them: 'name, name' and their meaning."""
    text = inspect.getdoc(kind).partition("Attributes:\n")[2]
    for names, meaning in re.findall(r"^  (\w[\w, ]*): ((?:.|\n    )+)", text, re.MULTILINE):
        yield names, " ".join(meaning.split())


def _object(kind: type[T], value: Any, name: str) -> T:
    _check_mapping(value, name)
    hints = _hints(kind)
    if others := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{_join(name, others[0])}: is no field, which are {', '.join(hints)}")
    found = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            found[field.name] = read(hints[field.name], value[field.name], _join(name, field.name))
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(name, field.name)}: is missing")
    try:
        return kind(**found)
    except ValueError as error:  # a rule about several fields
        raise ValueError(_join(name, str(error))) from error


def _simple(kind: type, value: Any, name: str) -> Any:
    kinds = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        float: (int | float, "a finite number"),
        str: (str, "text"),
    }
    accepted, what = kinds[kind]
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    try:
        if fits and (kind is not float or math.isfinite(value)):
            return kind(value)
    except OverflowError:  # a whole number that no float can be
        pass
    raise _wrong(name, value, what)


def _check_mapping(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(name, value, "an object with fields")


def _wrong(name: str, value: Any, rule: str) -> ValueError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return ValueError(f"{name} = {shown}: must be {rule}" if name else f"found {shown}")


def _join(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
