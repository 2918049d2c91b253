"""What was trained: a run's settings, beside those of another and of the shipped configs."""

import functools
from collections.abc import Mapping
from typing import Any

from lpw_jax import config as config_lib
from lpw_jax import config_schema
from lpw_jax.errors import UserError
from lpw_jax.files.results import Results
from lpw_jax.weights.pretrained import PUBLISHED, PUBLISHED_NAME

Fields = dict[str, Any]

# The member mode changes no result, and a seed is what repeats an experiment.
_IGNORED = (*config_lib.NOT_TRAINED, "seed", "late_phase.member_mode")
_DEEP = "ensemble_of."
_LATE = "late_phase."
_RELEASE = "late_phase.release_epoch"
UNUSED = "unused"
COASTING = "late_phase.coasting"
IMPORTED = "imported"
TORCHVISION = "torchvision"


def of_results(results: Results, ensemble_of: Mapping[str, Any]) -> Fields:
    """`fields` of a run; `ensemble_of` is that of a deep ensemble, else empty."""
    pretrained, weights = results.pretrained, None
    if pretrained:
        weights = TORCHVISION if pretrained.published else pretrained.sha256
    imported = results.imported is not None
    soup = len(results.soup_of.runs) if results.soup_of else 1
    return fields(results.config, weights, imported=imported, ensemble_of=ensemble_of, soup=soup)


def fields(
    config: Mapping[str, Any],
    weights: str | None = None,
    *,
    imported: bool = False,
    ensemble_of: Mapping[str, Any] | None = None,
    soup: int = 1,
) -> Fields:
    """The trained fields of a stored config, by dotted path, without the seed, and how it was made.

    Args:
      config: as in results.json; fields younger than it have their defaults.
      weights: those it began with count by their content, not by where they lay: 'torchvision' for
        torchvision's own, a SHA-256 for others, None for what `config` says.
      imported: whether the networks were trained by the PyTorch code.
      ensemble_of: of a deep ensemble its `networks` (how many), `view`, `different` and `runs`.
      soup: of how many runs the weights are the mean.

    Returns:
      The fields with `imported`, `soup`, `networks` (1 but for a deep ensemble) and, of a deep
      ensemble, `ensemble_of.view`, `ensemble_of.different` and `ensemble_of.runs`.

    Raises:
      ConfigError: it is no config of ours.
    """
    flat = config_schema.flatten(config_lib.to_dict(config_lib.from_dict(config)))
    found = {name: value for name, value in flat.items() if name not in _IGNORED}
    if weights:
        found["model.pretrained"] = weights
    elif found["model.pretrained"] == PUBLISHED_NAME:
        found["model.pretrained"] = TORCHVISION
    deep = dict(ensemble_of or {})
    found |= {"imported": imported, "soup": soup, "networks": deep.pop("networks", 1)}
    return found | {f"{_DEEP}{name}": value for name, value in deep.items()}


def check_swept(field: str) -> None:
    """Refuses what is no field that changes a training, naming the nearest one.

    Raises:
      UserError: as it says.
    """
    known = {name: 0 for name in config_schema.flatten(config_schema.schema())}
    if field not in known:
        raise UserError(f"--sweep {config_schema.unknown(field, known)}")
    if field in _IGNORED:
        raise UserError(f"--sweep {field}: must be a field that affects the training")


def of_one_network(settings: Fields) -> Fields:
    """The settings of what was trained, be it part of a deep ensemble or soup, or imported."""
    trained = {name: value for name, value in settings.items() if not name.startswith(_DEEP)}
    return trained | {"imported": False, "soup": 1, "networks": 1}


def releases(settings: Fields) -> bool:
    """Whether members are ever made."""
    return settings["late_phase.release_epoch"] >= 0


def differences(ours: Fields, theirs: Fields) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, as (ours, theirs).

    Without a release the late-phase fields change nothing: where neither side releases they do not
    count, and where one does, the release itself and what that side changed of base's defaults,
    beside 'unused'.
    """
    found = {
        name: (ours[name], theirs[name])
        for name in ours
        if ours[name] != theirs.get(name, ours[name])
    }
    if releases(ours) and releases(theirs):
        return found
    late = {_RELEASE: found[_RELEASE]} if releases(ours) != releases(theirs) else {}
    if releases(ours):
        late |= {name: (value, UNUSED) for name, value in _changed_late_phase(ours).items()}
    if releases(theirs):
        late |= {name: (UNUSED, value) for name, value in _changed_late_phase(theirs).items()}
    return {n: v for n, v in found.items() if not n.startswith(_LATE)} | late


def _changed_late_phase(settings: Fields) -> Fields:
    """The late-phase fields, without the release, that are not as in base."""
    base = config_schema.flatten(config_lib.to_dict(config_schema.import_base().get_config()))
    return {
        name: value
        for name, value in settings.items()
        if name.startswith(_LATE) and name != _RELEASE and value != base[name]
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
    """The trained fields of configs/NAME.py; those of ImageNet fine-tune torchvision's weights."""
    config = config_lib.load_config(str(config_schema.CONFIGS / f"{name}.py")).to_dict()
    fine_tunes = config["model"]["name"] in PUBLISHED
    return fields(config, TORCHVISION if fine_tunes else None)


@functools.cache
def shipped_names() -> tuple[str, ...]:
    """The names of the configs that come with the package."""
    return tuple(name for name in config_schema.config_names() if name != "base")


def shipped_name(settings: Fields) -> str | None:
    """The shipped config that trains just this, if there is one."""
    for name in shipped_names():
        if shipped(name) == settings:
            return name
    return None
