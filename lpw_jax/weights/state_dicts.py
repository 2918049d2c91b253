"""State dicts as they are kept: of wrapped networks, in other dicts, with other things beside."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from lpw_jax.errors import UserError

# Parts of names that PyTorch's wrappers put before those of the network in them, anywhere.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
TOP = "."  # the key of a state dict that is in no other


@dataclasses.dataclass(frozen=True)
class StateDict:
    """One network's arrays by name, and in a line where they were; '' if they were all there is."""

    entries: dict[str, Any]
    taken: str


def choose(
    entries: Mapping[str, Any],
    wanted: Collection[str],
    *,
    place: epath.Path,
    key: str = "",
    field: str = "--key",
) -> StateDict:
    """The one state dict in a file that has the names `wanted`.

    Args:
      entries: what the file holds, by names whose parts are divided by '.' or '/'.
      wanted: names that tell the network.
      place: the file.
      key: what its names begin with, 'model_ema' say; `TOP` for nothing, '' for whatever does.
      field: what messages call the key.

    Returns:
      That which has all of `wanted`, or most of them: what it lacks is for others to say.

    Raises:
      UserError: several have all of them and none is chosen, or nothing begins with the key.
    """
    names, removed = _unwrapped(entries)
    start = "".join(f"{part}." for part in _parts(key) if part and part not in removed)
    inside = [name for name in names if name.startswith(start)]
    if not inside and start:
        raise UserError(
            f"{field} = {key!r}: {place} must hold names that begin with it, but has "
            f"{_some({_parts(name)[0] for name in names})}"
        )
    counts = collections.Counter(
        prefix for name in inside for prefix, rest in _divisions(name) if rest in wanted
    )
    whole = sorted(prefix for prefix, count in counts.items() if count == len(wanted))
    if len(whole) > 1 and not (key and start in whole):
        keys = " and ".join(prefix.rstrip(".") or TOP for prefix in whole)
        raise UserError(
            f"{place}: must hold the weights of one network, but holds {len(whole)}, {keys}; "
            f"choose one with {field}"
        )
    best = start if start in whole else min(whole, default=_likeliest(counts))
    beside = tuple(prefix for prefix in whole if prefix != best)
    leads = {_lead(names[best + name], name) for name in wanted if best + name in names}
    chosen, left = {}, collections.Counter()
    for name, written in names.items():
        rest = name.removeprefix(best)
        is_in = name.startswith(best) and not name.startswith(beside)
        if is_in and (not leads or _lead(written, rest) in leads):  # else it is a wrapper's own
            chosen[rest] = entries[written]
        else:
            left[_parts(name)[0]] += 1
    wrappers = removed & {part for name in names.values() for part in _parts(name)}
    told = [f"those under {best.rstrip('.')!r}"] if best else []
    told += [f"without the wrappers {_some(wrappers)}"] if wrappers else []
    told += [f"leaving out {_some(f'{n} ({c:,})' for n, c in left.items())}"] if left else []
    return StateDict(chosen, f"{place}: weights are {', '.join(told)}" if told else "")


def _likeliest(counts: collections.Counter) -> str:
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")


def flat(tree: Mapping[Any, Any], is_leaf: Callable[[Any], bool]) -> dict[str, Any]:
    """Leaves of nested dicts by names with dots; what is neither leaf nor dict is left out."""
    found, waiting, seen = {}, [("", tree)], set()
    while waiting:
        start, branch = waiting.pop()
        if id(branch) in seen:  # it is in itself, or there twice
            continue
        seen.add(id(branch))
        for name, value in branch.items():
            if is_leaf(value):
                found[f"{start}{name}"] = value
            elif isinstance(value, Mapping):
                waiting.append((f"{start}{name}.", value))
    return found


def _unwrapped(names: Collection[str]) -> tuple[dict[str, str], set[str]]:
    """How names are written, by names without wrappers; and these, none if two became one."""
    for wrappers in (_WRAPPERS, set()):
        found = {".".join(p for p in _parts(name) if p not in wrappers): name for name in names}
        if len(found) == len(names):
            return found, wrappers
    return {name: name for name in names}, set()


def _parts(name: str) -> list[str]:
    return re.split(r"[./]", name)


def _lead(written: str, rest: str) -> tuple[str, ...]:
    """The wrappers that stand right before `rest` in a name, as it is written."""
    parts = _parts(written)
    own = [i for i, part in enumerate(parts) if part not in _WRAPPERS]
    first = own[-len(_parts(rest))] if own else 0
    before = reversed(parts[:first])
    return tuple(itertools.takewhile(lambda part: part in _WRAPPERS, before))


def _divisions(name: str) -> Iterator[tuple[str, str]]:
    """A name divided at each of its dots: what stands before, and behind."""
    yield "", name
    for match in re.finditer(r"\.", name):
        yield name[: match.end()], name[match.end() :]


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
