"""Late-phase mixtures of shared templates (paper, section 2.3: linear hypernetworks)."""

import dataclasses
import functools
import math
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import trees
from lpw_jax.method.kinds.part import Kind, Made, Part, Places, chosen, need_key


def templates(*layers: "Mixed") -> "Templates":
    """Weights are sums of shared templates, W = sum_t c_k[t] T_t, with members' own coefficients.

    Weights of equal numbers of axes, T and template shapes share one bank of templates, which
    stands in the place of the first of them. The values that the weights have are not used:
    templates start He normal, coefficients orthogonal between layers of a bank. Collapse: the mean
    of the coefficients, which is that of the weights.

    Args:
      *layers: each from `mixed`.
    """
    return Templates(layers)


def mixed(
    *selection: Any,
    num_templates: int,
    split: int = 1,
    biases: bool = False,
    late_phase: bool = True,
) -> "Mixed":
    """Layers whose weights are mixtures of T templates.

    A weight [..., in, out] has templates [..., in / split, out] and coefficients [T, split]: input
    channel j * split + s is mixed with column s.

    Args:
      *selection: as in `copies`; weights of at least two axes, their `in` divisible by `split`.
      num_templates: T, >= 1.
      split: groups of input channels with coefficients of their own, >= 1.
      biases: whether the `bias` beside each weight is mixed as well, from templates of biases,
        which start at 0, by the sum of the weight's coefficients over `split`.
      late_phase: whether members have coefficients of their own; otherwise they share them.

    Raises:
      ValueError: a number below 1.
    """
    for name, number in (("num_templates", num_templates), ("split", split)):
        if number < 1:
            raise ValueError(f"mixed: {name} must be >= 1, got {number}")
    return Mixed(selection, num_templates, split, biases, late_phase)


@dataclasses.dataclass(frozen=True)
class Mixed:
    """See `mixed`."""

    selection: tuple[Any, ...]
    num_templates: int
    split: int
    biases: bool = False
    late_phase: bool = True

    def shape(self, path: str, weight: jax.Array) -> tuple[int, ...]:
        """Of one template."""
        *outer, inputs, outputs = weight.shape if weight.ndim > 1 else (0, 0)
        if weight.ndim < 2 or inputs % self.split:
            raise ValueError(
                f"mixed: a weight must be [..., in, out] with `in` divisible by split = "
                f"{self.split}, but {path!r} has shape {weight.shape}"
            )
        return (*outer, inputs // self.split, outputs)


@dataclasses.dataclass(frozen=True)
class Templates(Kind):
    """See `templates`."""

    layers: tuple[Mixed, ...]

    def make(self, params: Any, key: jax.Array | None) -> Made:
        """As in `Kind`."""
        key = need_key(key, "templates")
        found: dict[str, tuple[jax.Array, Mixed]] = {}
        for mixed in self.layers:
            for path, weight in chosen(params, mixed.selection, "mixed").items():
                if path in found:
                    raise ValueError(f"templates: {path!r} is chosen by two calls of `mixed`")
                found[path] = (weight, mixed)
        banks: dict[tuple, dict[str, tuple[jax.Array, Mixed]]] = defaultdict(dict)
        # In the order of the paths, so that no result depends on that of the arguments.
        for path, (weight, mixed) in sorted(found.items()):
            banks[mixed.shape(path, weight), mixed.num_templates][path] = (weight, mixed)
        made: Made = {}
        bank_of: dict[str, str] = {}
        for (shape, count), layers in banks.items():
            key, key_bank, key_mixing = jax.random.split(key, 3)
            first, (weight, _) = next(iter(layers.items()))
            scale = math.sqrt(2 / (weight.size // weight.shape[-1]))
            bank = scale * jax.random.normal(key_bank, (*shape, count), weight.dtype)
            splits = {path: mixed.split for path, (_, mixed) in layers.items()}
            for path, values in _coefficients(key_mixing, splits, count, weight.dtype).items():
                place, own = bank if path == first else None, Coefficients(values, bank=first)
                is_late = layers[path][1].late_phase
                made[path] = (place, own) if is_late else (Mixture(place, own), None)
                bank_of[path] = first
        return made | self._biases(params, found, bank_of)

    def _biases(
        self,
        params: Any,
        found: dict[str, tuple[jax.Array, Mixed]],
        bank_of: dict[str, str],
    ) -> Made:
        there = dict(trees.places(params))
        mixtures: Made = {}
        for path, (_, mixed) in sorted(found.items()):
            if not mixed.biases:
                continue
            bias, of_bank = (_beside(place) for place in (path, bank_of[path]))
            if there.get(bias) is None:
                raise ValueError(f"mixed: biases = True, but there is no {bias!r}")
            shape = (*there[bias].shape, mixed.num_templates)
            bank = None if of_bank in mixtures else jnp.zeros(shape, there[bias].dtype)
            mixtures[bias] = (bank, BiasMixture(kernel=path, bank=of_bank))
        return mixtures


def _coefficients(
    key: jax.Array, splits: dict[str, int], count: int, dtype: Any
) -> dict[str, jax.Array]:
    """Coefficients [T, split] by path, orthogonal between those of equal shape, columns of norm 1.

    The norm of a layer's columns is 1 on average over them (published code).
    """
    found = {}
    for number, split in enumerate(sorted(set(splits.values()))):
        paths = [path for path, other in splits.items() if other == split]
        rows = jax.nn.initializers.orthogonal()(
            jax.random.fold_in(key, number), (len(paths), count * split), dtype
        )
        for path, row in zip(paths, rows, strict=True):
            values = row.reshape(count, split)
            found[path] = values / jnp.linalg.norm(values, axis=0).mean()
    return found


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["bank"])
@dataclasses.dataclass(frozen=True)
class Coefficients(Part):
    """A member's mixture: `values` [T, split], of the templates at the path `bank`."""

    values: jax.Array
    bank: str = ""

    def combine(self, shared: jax.Array | None, places: Places) -> jax.Array:
        """As in `Part`."""
        bank = places.shared(self.bank)  # [..., in / split, out, T]
        bank = bank.templates if isinstance(bank, Mixture) else bank
        weight = jnp.einsum("...jot,ts->...jso", bank, self.values, precision="highest")
        *outer, inputs, split, outputs = weight.shape
        return weight.reshape(*outer, inputs * split, outputs)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["templates", "coefficients"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Mixture(Part):
    """All of a shared mixture: its coefficients and, in the place of a bank, the templates."""

    templates: jax.Array | None
    coefficients: Coefficients

    def combine(self, shared: None, places: Places) -> jax.Array:
        """As in `Part`."""
        return self.coefficients.combine(None, places)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["kernel", "bank"])
@dataclasses.dataclass(frozen=True)
class BiasMixture(Part):
    """A bias of templates [out, T] at the path `bank`, by the coefficients of `kernel`."""

    kernel: str = ""
    bank: str = ""

    def combine(self, shared: jax.Array | None, places: Places) -> jax.Array:
        """As in `Part`."""
        mixture = places.own(self.kernel) or places.shared(self.kernel).coefficients
        bank = places.shared(self.bank)
        return jnp.matmul(bank, mixture.values.sum(1), precision="highest")


def _beside(path: str) -> str:
    """The path of the bias beside a weight."""
    module = trees.module(path)
    return f"{module}/bias" if module else "bias"
