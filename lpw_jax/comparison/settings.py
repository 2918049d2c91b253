"""What was trained: a run's settings, beside those of another and of the shipped configs."""

import functools
from collections.abc import Mapping
from typing import Any

from lpw_jax import config as config_lib
from lpw_jax import config_schema

Fields = dict[str, Any]

# The member mode changes no result, and a seed is what repeats an experiment.
_IGNORED = (*config_lib.NOT_TRAINED, "seed", "late_phase.member_mode")
COASTING = "late_phase.coasting"


def fields(
    config: Mapping[str, Any], pretrained: Mapping[str, Any] | None = None, *, networks: int = 1
) -> Fields:
    """The trained fields of a stored config, by dotted path, without the seed; and `networks`.

    Args:
      config: as in results.json; fields younger than it have their defaults.
      pretrained: as in results.json. Weights count by their content, not by where they lay, and
        torchvision's own as the config's default.
      networks: how many trainings make one prediction, more than one in a deep ensemble.

    Raises:
      ConfigError: it is no config of ours.
    """
    flat = config_schema.flatten(config_lib.to_dict(config_lib.from_dict(config)))
    found = {name: value for name, value in flat.items() if name not in _IGNORED}
    if pretrained:
        found["model.pretrained"] = "" if pretrained.get("published") else pretrained.get("sha256")
    elif found["model.pretrained"] == "imagenet1k_v1":
        found["model.pretrained"] = ""
    return found | {"networks": networks}


def releases(settings: Fields) -> bool:
    """Whether members are ever made."""
    return settings["late_phase.release_epoch"] >= 0


def differences(ours: Fields, theirs: Fields) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, as (ours, theirs).

    Without a release the late-phase fields change nothing: where neither side releases they do not
    count, and where one does, only the release itself.
    """
    found = {
        name: (ours[name], theirs[name])
        for name in ours
        if ours[name] != theirs.get(name, ours[name])
    }
    if releases(ours) and releases(theirs):
        return found
    if releases(ours) == releases(theirs):
        found.pop("late_phase.release_epoch", None)
    return {
        name: values
        for name, values in found.items()
        if not name.startswith("late_phase.") or name == "late_phase.release_epoch"
    }


def same_method(ours: Fields, theirs: Fields) -> bool:
    """Whether both release or neither does, and both average weights (SWA) or neither does."""

    def method(settings):
        return releases(settings), settings["swa.start_epoch"] > 0

    return method(ours) == method(theirs)


def describe(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences in words: 'train.epochs = 12, not 200; ...'."""
    return "; ".join(f"{name} = {ours!r}, not {theirs!r}" for name, (ours, theirs) in found.items())


@functools.cache
def shipped(name: str) -> Fields:
    """The trained fields of configs/NAME.py."""
    return fields(config_lib.load_config(str(config_schema.CONFIGS / f"{name}.py")).to_dict())


@functools.cache
def shipped_names() -> tuple[str, ...]:
    """The names of the configs that come with the package."""
    files = config_schema.CONFIGS.glob("*.py")
    return tuple(sorted(file.stem for file in files if file.stem not in ("__init__", "base")))


def shipped_name(settings: Fields) -> str | None:
    """The shipped config that trains just this, if there is one."""
    for name in shipped_names():
        if shipped(name) == settings:
            return name
    return None
