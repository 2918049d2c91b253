"""What a kind of late-phase weights is: how it makes members' weights, and networks of them."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from lpw_jax.method import trees
from lpw_jax.method.selection import Selection, select

Tree = Any
Made = dict[str, tuple[Any, Any]]


class Places(NamedTuple):
    """What stands where, by path: what is shared, and one member's own."""

    shared: Callable[[str], Any]
    own: Callable[[str], Any]


class Kind(abc.ABC):
    """Some weights of a network, and what their members have of their own."""

    @abc.abstractmethod
    def make(self, params: Tree, key: jax.Array | None) -> Made:
        """What stands in the place of each weight of this kind, by path.

        It is what is shared, and what is one member's. Of the member's, an array replaces the
        weight, and a `Part` makes it, perhaps of the shared array; without it the weight is the
        shared array, or what a shared `Part` makes.

        Args:
          params: of a network.
          key: for kinds that draw numbers.

        Raises:
          ValueError: a weight that this kind cannot have, which is named; there is no key.
        """


def chosen(params: Tree, selection: Selection, kind: str) -> dict[str, jax.Array]:
    """The weights that `selection` means, by path; errors as in `select`."""
    mask = select(params, selection, kind)
    return {
        path: weight
        for (path, weight), here in zip(trees.places(params), mask, strict=True)
        if here
    }


class Part(trees.Node, abc.ABC):
    """Arrays in the place of a weight, most often one member's own; a registered pytree."""

    @abc.abstractmethod
    def combine(self, shared: Any, places: Places) -> Any:
        """The member's weight; `shared` is what all members have in this place, or None."""

    def collapse(self, shared: Any, places: Places) -> jax.Array:
        """The weight that members average to; arrays of members are [K, ...], here and there."""
        of_mean = Places(places.shared, lambda path: _mean(places.own(path)))
        return _mean(self).combine(shared, of_mean)


def need_key(key: jax.Array | None, kind: str) -> jax.Array:
    """`key`, which must be there."""
    if key is None:
        raise ValueError(f"init: {kind} draws random numbers, so it must be given a key")
    return key


def combine(shared: Tree, member: Tree) -> Tree:
    """The parameters of one member: what its model is applied with."""
    return _made(shared, member, lambda part, *rest: part.combine(*rest), lambda own: own)


def collapse(shared: Tree, members: Tree) -> Tree:
    """The parameters that members average to; arrays of `members` are [K, ...]."""
    return _made(shared, members, lambda part, *rest: part.collapse(*rest), _mean)


def _made(shared: Tree, own: Tree, of_part: Callable, of_array: Callable) -> Tree:
    standing = dict(trees.places(shared))
    of_member = dict(zip(standing, trees.structure(shared).flatten_up_to(own), strict=True))
    places = Places(standing.__getitem__, of_member.__getitem__)

    def weight(shared, own):
        if own is None:
            return shared.combine(None, places) if isinstance(shared, Part) else shared
        return of_part(own, shared, places) if isinstance(own, Part) else of_array(own)

    return trees.map_places(weight, shared, own)


def _mean(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.mean(0), tree)
