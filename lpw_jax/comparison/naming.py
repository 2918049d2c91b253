"""What sides are called: by their config or their folder, and each by a name of its own."""

import re
from collections.abc import Iterator, Sequence

from etils import epath

from lpw_jax.comparison import settings
from lpw_jax.comparison.sides import Side

# What tells the repetitions of an experiment apart in the names of their folders.
_REPETITION = re.compile(r"(^|[_-])(seed|run|s|r)?[_-]?\d[\d_.:-]*$")


def stem(home: epath.Path) -> str:
    """A run's folder without what repeats: seed0 is '', cifar10_bn_seed0 is cifar10_bn."""
    return _REPETITION.sub("", home.name)


def folder_name(home: epath.Path) -> str:
    """What the folders of an experiment are called: runs/NAME/seed0 is NAME."""
    return stem(home) or home.parent.name or home.name


def name_of(fields: settings.Fields, home: epath.Path) -> str:
    """The shipped config of these settings, or else the folder."""
    name = settings.shipped_name(settings.of_one_network(fields))
    if name is None:
        name = folder_name(home)
        name += ", changed" if name in settings.shipped_names() else ""
    if fields["imported"]:
        name += ", imported"
    if fields["soup"] > 1:
        name = f"soup of {fields['soup']} {name}"
    if fields["networks"] == 1:
        return name
    mixed = fields["ensemble_of.different"]
    members = fields["ensemble_of.runs"] if mixed else name
    return f"{'mixed ' if mixed else ''}deep ensemble of {fields['networks']} {members}"


def named_apart(sides: Sequence[Side]) -> list[Side]:
    """Sides of one name get behind it what they differ in, or else a number."""
    first: dict[str, Side] = {}
    apart: list[Side] = []
    for side in sides:
        other = first.setdefault(side.name, side)
        if other is not side:
            taken = {each.name for each in (*sides, *apart)}
            name = next(name for name in _names(side, other) if name not in taken)
            side = Side(**{**vars(side), "name": name})
        apart.append(side)
    return apart


def _names(side: Side, other: Side) -> Iterator[str]:
    """Names with two fields in which the sides differ, with more, and then with numbers."""
    values = []
    if side.fields is not None and other.fields is not None:
        differing = settings.differences(side.fields, other.fields)
        values = [f"{name}={ours}" for name, (ours, _) in differing.items()]
    for count in range(min(2, len(values)), len(values) + 1):
        what = ", ".join(values[:count]) or side.dataset
        if what:
            yield f"{side.name} ({what})"
    number = 2
    while True:
        yield f"{side.name} ({number})"
        number += 1
