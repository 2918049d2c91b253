"""Loads, overrides and validates configurations. Imports nothing heavy.

The tree that `configs.base.get_config()` returns is the schema: the fields and their types.
"""

import argparse
import collections
import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lpw_jax import config_file, config_schema
from lpw_jax.config_file import config_name
from lpw_jax.errors import ConfigError

__all__ = [
    "NOT_TRAINED",
    "ConfigError",
    "add_config_flags",
    "agreed",
    "check_devices",
    "config_name",
    "differences",
    "digest",
    "from_dict",
    "load_config",
    "override",
    "parse",
    "split_flags",
    "to_dict",
    "validate",
]


# Fields that change nothing of what is trained: where data lies, what runs where, what is kept.
NOT_TRAINED = (
    "data.dir",
    "data.ood_dir",
    "data.require_ood",
    "data.note",
    "data.manual_dir",
    "data.skip_corrupt",
    "train.on_nonfinite",
    "train.remat",
    "parallel.num_devices",
    "parallel.platform",
    "parallel.backend",
    "parallel.layout",
    "checkpoint.every_epochs",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "evaluate.batch_size",
    "evaluate.every_epochs",
    "evaluate.member_predictions",
)
# Fields in which the processes of one run may differ: where each finds its data.
_OWN = (
    "data.dir",
    "data.ood_dir",
    "data.require_ood",
    "data.note",
    "data.manual_dir",
    "model.pretrained",
)


def load_config(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads, overrides, validates and locks a configuration.

    Args:
        path: a Python file that defines `get_config()`; 'FILE.py:ARG' calls `get_config('ARG')`.
            Where there is no such file: the name of a config of the package, as 'cifar10_bn:fast'.
        overrides: '--config.train.batch_size=64', or the same as two items.

    Raises:
        ConfigError: with every mistake found, one a line.
    """
    try:
        return override(config_file.run(path), overrides)
    except ConfigError:
        raise
    except Exception as error:  # a lazily computed field of the file's may raise anything
        raise ConfigError(f"{path}: {config_file.one_line(error)}") from error


def override(config: ConfigDict | Mapping, overrides: Sequence[str]) -> ConfigDict:
    """Returns `config` with '--config.FIELD=VALUE' flags applied, validated and locked.

    Raises:
        ConfigError: with every mistake found, one a line.
    """
    config = copy.deepcopy(config) if isinstance(config, ConfigDict) else ConfigDict(dict(config))
    fields = config_schema.flatten(config_schema.schema())
    others, overrides = split_flags(overrides)
    errors = [f"{item!r}: expected --config.FIELD=VALUE" for item in others]
    for flag in overrides:
        field, equals, text = flag.removeprefix("--config.").partition("=")
        if field not in fields:
            errors.append(config_schema.unknown(field, fields))
        elif not equals:
            errors.append(f"{field}: the flag --config.{field} needs a value")
        else:
            try:
                _assign(config, field, config_schema.from_text(text, fields[field]))
            except ValueError:
                errors.append(config_schema.wrong_type(field, text, fields[field]))
    return config_schema.checked(config.to_dict(), errors)


def validate(config: ConfigDict | Mapping) -> ConfigDict:
    """Returns a complete, typed and locked copy of `config`, or raises ConfigError.

    Every field must be there, known, of base's type (an int does for a float, a list for a tuple)
    and possible. Whether the batch fits the devices is `check_devices`'s question.
    """
    tree = config.to_dict() if isinstance(config, ConfigDict) else config
    if not isinstance(tree, Mapping):
        raise ConfigError(f"a configuration must be a mapping of fields, not {tree!r}")
    return config_schema.checked(tree, [])


def check_devices(config: ConfigDict, num_devices: int) -> None:
    """Raises ConfigError unless the devices can share each microbatch evenly."""
    size, parts = config.train.batch_size, config.train.num_microbatches
    if size // parts % num_devices:
        of = f" (train.num_microbatches = {parts})" if parts > 1 else ""
        raise ConfigError(
            f"train.batch_size = {size}{of}: must be divisible by the number of devices, "
            f"{num_devices}{', in every microbatch' if parts > 1 else ''}"
        )


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration in JSON's types (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def from_dict(tree: Mapping) -> ConfigDict:
    """Inverse of `to_dict`: validated and locked, tuples restored; raises ConfigError.

    A field that is not there, because it is younger than the stored config, has base's value.
    """
    known = isinstance(tree, Mapping)
    return validate(_with_defaults(tree, config_schema.schema()) if known else tree)


def differences(old: Mapping, new: Mapping) -> list[str]:
    """The fields in which two stored configs train something else, each with its values."""
    old, new = (config_schema.flatten(to_dict(from_dict(tree))) for tree in (old, new))
    return [
        f"{field}: {old[field]!r} there, {new[field]!r} here"
        for field in old
        if field not in NOT_TRAINED and _trained(field, old) != _trained(field, new)
    ]


def agreed(config: ConfigDict) -> dict[str, Any]:
    """The fields that all processes of a run must have alike, by dotted path, in JSON's types."""
    fields = config_schema.flatten(to_dict(config))
    return {field: value for field, value in fields.items() if field not in _OWN}


def digest(config: ConfigDict) -> str:
    """Short hash of all that is trained; a field added later changes none by its default."""
    defaults = config_schema.flatten(config_schema.schema())
    changed = {
        field: value
        for field, value in config_schema.flatten(config.to_dict()).items()
        if field not in NOT_TRAINED and value != defaults[field]
    }
    changed = {field: _trained(field, changed) for field in changed}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]


def _trained(field: str, values: Mapping[str, Any]) -> Any:
    """What a field means for the training: of a file of weights only whether there is one."""
    # Which weights it holds is known by their hash (`train.Training.identity`).
    return bool(values[field]) if field == "model.pretrained" else values[field]


def _with_defaults(tree: Mapping, defaults: Mapping) -> dict[str, Any]:
    filled = {**defaults, **tree}
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(filled[name], Mapping):
            filled[name] = _with_defaults(filled[name], default)
    return filled


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Gives a program `--config FILE` and `--config.FIELD=VALUE`; read them with `parse`."""
    parser.allow_abbrev = False
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help='Python file with a function get_config(); FILE:ARG calls get_config("ARG"); or the '
        "name of a config that comes with the package, such as cifar10_bn or cifar10_bn:fast",
    )
    parser.add_argument(
        "--config.FIELD",
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help="set a field of the config, for example --config.train.batch_size=64; "
        "configs/base.py explains every field",
    )


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, ConfigDict]:
    """Reads a command line with config flags into (arguments, validated config).

    A mistake is printed to stderr as '<prog>: error: ...' and ends the program with exit code 2.
    """
    others, overrides = split_flags(argv)
    arguments = parser.parse_args(others)
    try:
        return arguments, load_config(arguments.config, overrides)
    except ConfigError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def split_flags(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into (other items, overrides joined to '--config.FIELD=VALUE')."""
    others, overrides, items = [], [], collections.deque(items)
    while items:
        item = items.popleft()
        if not item.startswith("--config."):
            others.append(item)
            continue
        if "=" not in item and items and not items[0].startswith("--"):
            item += "=" + items.popleft()
        overrides.append(item)
    return others, overrides


def _assign(config: Any, field: str, value: Any) -> None:
    """Sets a field, whatever its type was; one that is not there is left to the validation."""
    *sections, leaf = field.split(".")
    for section in sections:
        config = config.get(section) if isinstance(config, ConfigDict) else None
    if isinstance(config, ConfigDict) and leaf in config:
        with config.ignore_type():
            config[leaf] = value
