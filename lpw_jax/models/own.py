"""A network from outside the package, called as the package's own are."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax import registry
from lpw_jax.errors import UserError
from lpw_jax.method import model_state, trees
from lpw_jax.models.own_linen import Linen

_FIELD = "model.name"


class OwnNetwork:
    """The flax module that a function of one's own gives, with the methods that a run uses.

    The function is 'package.module:function'. It is called with those of these keyword arguments
    that are in its signature by name: `num_classes`, `depth` and `width` (of the config), `dtype`
    (of activations), `precision` (of products), `axis_name` (the device axis over which batch norm
    takes its statistics, or None), `conv_general_dilated` (what computes convolutions, None for
    JAX's) and `remat` (of the config, 'none' for a function that does not take it). The module maps
    normalised images [B, H, W, C] to logits [B, num_classes]; its `__call__` may take `train`.

    A `flax.linen` module may draw random numbers of the collection 'dropout' in training mode. Its
    variables are `params` and, if it has batch norms, `batch_stats`.

    A `flax.nnx` module is given by a function that takes `rngs`, too, an `nnx.Rngs` from which the
    weights are drawn. Its variables are `nnx.Param`s and `nnx.BatchStat`s; without `train` its mode
    is set by `module.train()` and `module.eval()`.

    Batch norms are flax's, of any momentum and epsilon, or `lpw_jax.models.layers.BatchNorm`. With
    SWA, other layers return `lpw_jax.Observed` in the place of their new statistics.

    Attributes:
      num_classes, dtype, axis_name, conv_general_dilated: what it was built with.
      module: the flax module; of nnx, one with shapes in the place of arrays.
    """

    def __init__(self, name: str, **options: Any):
        """Builds the module.

        Raises:
          UserError: `name` is no function, it fails, or what it gives is no flax module.
        """
        self.name, self._options = name, options
        self.num_classes, self.dtype = options["num_classes"], options["dtype"]
        self.axis_name = options.get("axis_name")
        self.conv_general_dilated = options.get("conv_general_dilated")
        if self._takes("rngs"):
            from lpw_jax.models.own_nnx import Nnx  # not for runs of linen networks

            self._form = Nnx(lambda rngs: registry.call(name, _FIELD, options | {"rngs": rngs}))
        else:
            self._form = Linen(registry.call(name, _FIELD, options))
        self.module = self._form.module
        if options.get("remat", "none") != "none" and not self._takes("remat"):
            raise UserError(
                f"train.remat = {options['remat']!r}: must be 'none' for {name!r}, which does not "
                "take the argument remat"
            )
        if wrong := self._form.wrong:
            raise self._error(wrong)
        self._takes_train = bool(registry.accepted(type(self.module).__call__, {"train": None}))

    def clone(self, **changed: Any) -> "OwnNetwork":
        """Built anew with other options; one that the function does not take changes nothing."""
        return OwnNetwork(self.name, **self._options | changed)

    def init(self, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        """`params` and `batch_stats`, the latter perhaps empty, for images [B, H, W, C]."""
        found = self._form.init(key, images, options=self._mode(False))
        return {"params": {}, "batch_stats": {}, **found}

    def apply(
        self,
        variables: dict[str, Any],
        images: jax.Array,
        *,
        train: bool = False,
        mutable: Any = False,
        rngs: Any = None,
        on_norm: Callable[[str, Any], None] = lambda path, layer: None,
    ) -> Any:
        """Logits [B, num_classes], float32 or wider; with `mutable` also what was written.

        In training mode that is, of flax's batch norms, what they saw, as `Observed`. `on_norm` is
        told the path of each layer with statistics whenever it is called, and the layer.
        """
        kept = {name: tree for name, tree in variables.items() if tree or name == "params"}
        logits, updated = self._form.apply(
            kept, images, train=train, rngs=rngs, on_norm=on_norm, options=self._mode(train)
        )
        logits = logits.astype(np.promote_types(logits.dtype, np.float32))
        return logits if mutable is False else (logits, {"batch_stats": {}, **updated})

    def check(self, image_shape: Sequence[int], *, averages: bool = False) -> list[str]:
        """Refuses what a run could not train, by shapes alone, for images [H, W, C].

        `averages` tells whether there is SWA, for which statistics are taken anew.

        Returns:
          the paths of statistics that layers change themselves, without `Observed`.

        Raises:
          UserError: it fails, gives other than logits, or has other variables than it may.
        """
        variables, logits, norms, changed = self._trained(image_shape)
        if not variables.get("params"):
            raise self._error("must have parameters, but has none")
        if others := sorted(variables.keys() - {"params", "batch_stats"}):
            raise self._error(f"must have no variables but params and batch_stats, not {others}")
        expected = (2, self.num_classes)
        if logits.shape != expected or not jnp.issubdtype(logits.dtype, jnp.floating):
            found = f"{logits.dtype} {list(logits.shape)}"
            raise self._error(f"must give logits {list(expected)} for two images, not {found}")
        if norms and not self._takes("axis_name"):
            raise self._error(
                "must take axis_name and give it to its batch norms, whose statistics are those of "
                "all devices' images"
            )
        calls = Counter(id(layer) for _, layer in norms)  # some transforms trace copies
        if twice := [path for path, layer in norms if calls[id(layer)] > 1]:
            raise self._error(
                f"must call each layer with statistics only once, but calls {twice[0]!r} again; "
                "make several layers"
            )
        modules = {trees.module(path) for path, _ in trees.places(variables["params"])}
        for path, _ in trees.places(variables["batch_stats"]):
            if trees.owner(path, modules) is None:
                raise self._error(
                    f"must have parameters in each layer with statistics, but {path!r} has none: "
                    "they decide whether the statistics are late-phase or shared"
                )
        if averages and changed:
            raise self._error(
                f"must, with SWA, return lpw_jax.Observed for {changed[0]!r}: its statistics are "
                "estimated again, which is done without it for flax's batch norms and those of "
                "lpw_jax.models.layers only"
            )
        return changed

    def epsilon(self, image_shape: Sequence[int]) -> Callable[[str], float]:
        """What each batch norm adds to the variance, by its path, for images [H, W, C].

        It raises UserError for a layer that does not tell by an attribute `epsilon`.
        """
        _, _, norms, _ = self._trained(image_shape)
        known = {path: getattr(layer, "epsilon", None) for path, layer in norms}

        def of(path: str) -> float:
            if known.get(path) is None:
                raise self._error(
                    f"must have an attribute `epsilon` in its batch norm {path!r}, which is added "
                    "to the variance: without it members' batch norms cannot be averaged"
                )
            return known[path]

        return of

    def _trained(self, image_shape):
        """By shapes: variables, logits, layers with statistics, statistics that they changed."""
        norms, changed = [], []

        def train(variables, images):
            rngs = {"dropout": jax.random.key(0)}
            logits, updated = self.apply(
                variables,
                images,
                train=True,
                mutable=["batch_stats"],
                rngs=rngs,
                on_norm=lambda *norm: norms.append(norm),
            )
            news, _ = model_state.settle(variables["batch_stats"], updated["batch_stats"])
            changed.extend(
                path
                for path, new in trees.places(news)
                if new is not None and jnp.issubdtype(new.dtype, jnp.inexact)
            )
            return logits

        images = jax.ShapeDtypeStruct((2, *image_shape), self.dtype)
        with registry.speaking_of(_FIELD, self.name):
            variables = jax.eval_shape(self.init, jax.random.key(0), images)
            return variables, jax.eval_shape(train, variables, images), norms, changed

    def _takes(self, argument: str) -> bool:
        return bool(registry.accepted(registry.resolve(self.name, _FIELD), {argument: None}))

    def _mode(self, train: bool) -> dict[str, bool]:
        return {"train": train} if self._takes_train else {}

    def _error(self, rule: str) -> UserError:
        return UserError(f"{_FIELD} = {self.name!r}: {rule}")
